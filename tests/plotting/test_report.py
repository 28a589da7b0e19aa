import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from diffhep.plotting import GradientRow, gradient_table, loss_curve, write_report


ROWS = [
    GradientRow("layer radius", 33.0, "mm", -1.25e-6, -1.15e-6, 4e-8, 3e-8),
    GradientRow("pitch", 0.05, "mm", 0.33, 0.21, 0.01, 0.01),
    GradientRow("field", 2.0, "T", -0.0012345678, -0.0012345679),
    GradientRow("width", 1.0, "", 1.0, 1.001),
]


class _Reader(HTMLParser):
    """Collects what a page refers to, and whether its tags are balanced."""

    def __init__(self):
        super().__init__()
        self.references, self.open, self.ids = [], [], set()

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        for name in ("src", "href", "data", "srcset", "poster", "action"):
            if name in named:
                self.references.append(named[name])
        if "id" in named:
            assert named["id"] not in self.ids
            self.ids.add(named["id"])
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def figure():
    return loss_curve({"step": np.arange(3), "sigma_mu": np.array([3.0, 2.0, 1.5])})


def _write(path, figure, **options):
    arguments = {
        "title": "A & B <script>alert(1)</script>",
        "summary": [("Result", "First <b>.\n\nSecond."), ("Events", "Many.")],
        "tables": [gradient_table(ROWS), ("Yields", ("a", "b"), [("<i>", 1.23456)])],
        "figures": [("Loss curve. Falls & <falls>.", figure), ("Again", figure)],
        "provenance": {"seed": 1, "command": "x < y"},
        "highlights": [("uncertainty", "0.37 ± 0.01")],
    }
    return write_report(path, **(arguments | options))


def test_report_is_self_contained(tmp_path, figure):
    files = _write(tmp_path / "new" / "report.html", figure)
    text = files[0].read_text(encoding="utf-8")
    reader = _Reader()
    reader.feed(text)
    assert reader.open == []
    for reference in reader.references:
        assert reference.startswith(("data:image/png;base64,", "#"))
        if reference.startswith("#"):
            assert reference[1:] in reader.ids
    outside = re.sub(r'src="data:[^"]*"', "", text)
    assert not re.search(r"https?:|//|url\(|@import|file:", outside)


def test_report_escapes(tmp_path, figure):
    text = _write(tmp_path / "report.html", figure)[0].read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<p>First &lt;b&gt;.</p>" in text
    assert "<td>&lt;i&gt;</td>" in text
    assert "x &lt; y" in text


def test_report_embeds_the_files_beside_it(tmp_path, figure):
    html_file, *images = _write(tmp_path / "report.html", figure)
    assert [file.name for file in images] == [
        "report-1-loss-curve.png",
        "report-2-again.png",
    ]
    embedded = re.findall(r'src="data:image/png;base64,([^"]*)"', html_file.read_text())
    for data, image in zip(embedded, images, strict=True):
        assert base64.b64decode(data) == image.read_bytes()
        assert image.read_bytes().startswith(b"\x89PNG")
    assert sorted(tmp_path.iterdir()) == sorted([html_file, *images])


def test_report_is_reproducible(tmp_path, figure):
    first = _write(tmp_path / "a.html", figure)[0].read_bytes()
    assert first == _write(tmp_path / "b.html", figure)[0].read_bytes()


def test_interrupted_write_leaves_the_old_report(tmp_path, figure, monkeypatch):
    target = tmp_path / "report.html"
    target.write_text("old")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        _write(target, figure)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_unwritable_folder(tmp_path, figure):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"could not be written .*: choose a folder"):
        _write(tmp_path / "file" / "report.html", figure)


def test_ragged_table(tmp_path, figure):
    tables = [("Yields", ("a", "b"), [("x", 1), ("y",)])]
    with pytest.raises(ValueError, match="Row 2 of the table 'Yields' has 1 cells"):
        _write(tmp_path / "report.html", figure, tables=tables)
    assert list(tmp_path.iterdir()) == []


def test_gradient_table():
    _, header, rows = gradient_table(ROWS)
    assert all(len(row) == len(header) for row in rows)
    assert [row[-1] for row in rows] == [
        "✓ agrees",
        "✗ differs",
        "✓ agrees",
        "✗ differs",
    ]
    # -0.1e-6 over hypot(4, 3)e-8 is two standard errors.
    assert rows[0][3:6] == tuple(
        text.replace("-", "\N{MINUS SIGN}")
        for text in ("(-1.250 ± 0.040)e-6", "(-1.150 ± 0.030)e-6", "-2.00 s.e.")
    )
    assert rows[3][5] == "1.0e\N{MINUS SIGN}3 rel."


def test_gradient_table_of_correlated_samples():
    row = GradientRow("pitch", 0.05, "mm", 1.0, 1.1, 0.1, 0.1, -10.0)
    _, _, rows = gradient_table([row])
    assert rows[0][5:] == ("\N{MINUS SIGN}10.00 s.e.", "✗ differs")


def test_gradient_that_is_not_finite_differs():
    _, _, rows = gradient_table([GradientRow("pitch", 0.05, "mm", np.nan, 1.0)])
    assert rows[0][-1] == "✗ differs"
