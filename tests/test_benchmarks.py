import json
import math

from benchmarks import _harness
from benchmarks._harness import Row, report


def test_bars():
    assert Row("q", 3.0, 1.0, 4.0).holds is True
    assert Row("q", 5.0, 1.0, 4.0).holds is False
    assert Row("q", 5.0, 1.0).holds is None
    assert Row("q", 0.0, bar=0.0).holds is True
    assert Row("q", math.nan, bar=1.0).holds is False
    assert Row("q", 6.0, 2.0).ratio == 3.0


def test_report_prints_writes_and_judges(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_harness, "RESULTS", tmp_path)
    assert report("toy", [Row("time, s", 1.0, 2.0, 1.0)], events=7) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["quantity", "ours", "peer", "ratio", "bar", "holds"]
    assert table[2].split() == ["time,", "s", "1", "2", "0.5", "1", "yes"]
    assert report("toy", [Row("time, s", 3.0, 2.0, 1.0)]) == 1
    assert "falls short of its bar: time, s" in capsys.readouterr().out
    written = json.loads((tmp_path / "toy.json").read_text())
    assert written["rows"][0]["ratio"] == 1.5
    assert written["rows"][0]["holds"] is False
    assert [path.name for path in tmp_path.iterdir()] == ["toy.json"]
