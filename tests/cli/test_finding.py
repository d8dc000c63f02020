"""What a user types first: a verb's beginning, a list of one, the names of configurations."""

from __future__ import annotations

import pytest

from t2sda.cli import main as commands
from t2sda.cli.main import main
from t2sda.config import ConfigError, load_config


def test_a_verb_by_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(commands, "run_verb", lambda verb, argv: asked.append(verb) or 0)
    for word in ("eval", "evaluate", "tr", "weights"):
        assert main([word]) == 0
    assert asked == ["evaluate", "evaluate", "train", "weights"]


def test_a_verb_of_data_by_its_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", "con", "--help"])
    assert "usage: t2sda data convert" in capsys.readouterr().out
    assert main(["data", "x"]) == 2


def test_beginnings_of_several_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["e"]) == 2
    assert "no command 'e'; known, nearest first: env, " in capsys.readouterr().err


def test_all_shipped_configurations_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show-config", "--list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert "configs/quickstart.yaml" in names
    assert "configs/models/light.yaml" in names
    for name in ("configs/quickstart.yaml", names[-1]):
        load_config(name)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("EVALUATION.DATASETS", "rendered_val", ("rendered_val",)),
        ("EVALUATION.DATASETS", "[rendered_val]", ("rendered_val",)),
        ("EVALUATION.DATASETS", "2024", ("2024",)),
        ("EVALUATION.DATASETS", "[]", ()),
        ("DATASETS.SOURCE", "streets_clear_train", ("streets_clear_train",)),
        ("SOLVER.BASE_LR", "0.5", 0.5),
    ],
)
def test_a_list_of_one_needs_no_brackets(key: str, text: str, value: object) -> None:
    cfg = load_config(None, [key, text])
    section, name = key.split(".")
    assert cfg[section][name] == value


def test_a_list_of_one_where_two_are_due() -> None:
    with pytest.raises(ConfigError, match=r"SOLVER.BETAS: found \[0.9\] .*a list of length 2"):
        load_config(None, ["SOLVER.BETAS", "0.9"])
