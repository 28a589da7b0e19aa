import pytest

from diffhep.cli import main
from diffhep.demo import DemoConfig, read_config


def test_overrides_win_over_the_file(tmp_path):
    path = tmp_path / "demo.toml"
    path.write_text("num_steps = 7\nluminosity = 100\n")
    config = read_config(path, ["num_steps=9"])
    assert config.num_steps == 9
    assert config.luminosity == 100.0
    assert config.seed == DemoConfig().seed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["num_step=9"], "did you mean 'num_steps'"),
        (["num_steps"], "wants name=value"),
        (["num_steps=many"], "wants a number"),
        (["num_steps=1.5"], "wants an integer"),
        (["replicas=1"], "at least 2"),
        (["capacity=0"], "must be positive"),
    ],
)
def test_mistakes_are_sentences(words, message):
    with pytest.raises(ValueError, match=message):
        read_config(None, words)


def test_file_that_is_not_toml(tmp_path):
    path = tmp_path / "demo.toml"
    path.write_text("num_steps: 7\n")
    with pytest.raises(ValueError, match="is not a TOML file"):
        read_config(path, [])


def test_command_line_prints_one_sentence(capsys, tmp_path):
    assert main(["demo", "--set", "num_step=9"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("diffhep: error: Unknown configuration key 'num_step'")
    assert error.count("\n") == 1
    assert main(["demo", "--config", str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in capsys.readouterr().err
