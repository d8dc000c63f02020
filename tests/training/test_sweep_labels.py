"""Pseudo-labels of a sweep: the commands that make them, and options that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from t2sda.errors import UserError
from t2sda.training.sweep import read_sweep
from tests.training.test_sweep import sweep_file

ROUNDS = (
    "runs:\n"
    "  source: {config: quickstart_source_only.yaml}\n"
    "  round:\n"
    "    config: streets/cbst.yaml\n"
    "    weights: source\n"
    "    labels: {rule: cbst, portion: 0.25, flip: true, scales: [0.9]}\n"
)


def test_labels_are_made_by_another_run_and_trained_on(tmp_path: Path) -> None:
    source, adapted = read_sweep(sweep_file(tmp_path, ROUNDS, seeds="seeds: [3]\n")).runs
    labels = adapted.folder / "pseudo_labels"
    assert adapted.needs == ("source/seed_3",)
    assert adapted.label_arguments[:5] == (
        *(str(source.folder), "--data", "streets_hazy_train", "--output", str(labels)),
    )
    assert adapted.label_arguments[5:12] == (
        *("--rule", "cbst", "--portion", "0.25", "--flip", "--scales", "0.9"),
    )
    assert adapted.cfg.DATASETS.TARGET == ("streets_hazy_train_pseudo_labels",)
    assert (str(labels / "dataset.yaml"),) == adapted.cfg.DATASETS.FILES
    first, second = adapted.command.split(" && ")
    assert first.startswith(f"t2sda pseudo-label {source.folder} --data")
    assert second.startswith("t2sda train")
    assert source.label_arguments == ()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("{of: source, rule: cbst, portoin: 0.2}", "no option 'portoin'; nearest: portion"),
        ("{of: source, portion: 0.2}", "`rule` is missing"),
        ("{of: source, rule: 3}", "rule: found 3"),
        ("{rule: cbst}", "`of` is missing"),
        ("{of: 3, rule: cbst}", "of: found 3; must be text"),
        ("{of: source, rule: none}", "--rule none: there is none; known: argmax"),
        ("{of: source, rule: cbst, portion: 7}", "--portion 7: the share of every class"),
        ("{of: source, rule: cbst, portion: true}", "portion: found true"),
        ("{of: source, rule: cbst, threshold: 0.5}", "--threshold: has no effect with --rule cbst"),
        ("{of: source, rule: cbst, scales: [x]}", "scales: found"),
        ("{of: source, rule: cbst, scales: []}", "scales: .. is empty"),
        ("{of: source, rule: cbst, window: [64]}", "window: found"),
        ("{of: source, rule: cbst, branch: head}", "branch: found 'head'"),
        ("{of: nobody, rule: cbst}", "needs 'nobody', which no run before it"),
    ],
)
def test_wrong_labels_are_named(tmp_path: Path, labels: str, message: str) -> None:
    text = (
        "runs:\n  source: {config: quickstart_source_only.yaml}\n"
        f"  round: {{config: streets/cbst.yaml, labels: {labels}}}\n"
    )
    with pytest.raises(UserError, match=message):
        read_sweep(sweep_file(tmp_path, text))


def test_labels_need_a_run_with_one_target(tmp_path: Path) -> None:
    text = (
        "runs:\n  source: {config: quickstart_source_only.yaml}\n"
        "  round: {config: quickstart_source_only.yaml, labels: {of: source, rule: argmax}}\n"
    )
    with pytest.raises(UserError, match=r"run with one dataset in DATASETS\.TARGET.*; none"):
        read_sweep(sweep_file(tmp_path, text))
