"""Runs with HRDA on the command line: resumed, evaluated, exported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import TINY_CONFIG, Run, checkpoint_differences

HRDA_CONFIG = (
    TINY_CONFIG.replace(
        "{SOURCE: streets_clear_train}",
        "{SOURCE: streets_clear_train, TARGET: streets_hazy_train}",
    )
    .replace("MAX_ITER: 12", "MAX_ITER: 4")
    .replace("MODEL: {", "MODEL: {NAME: HRDA, HRDA: {DETAIL_SIZE: [32, 48]}, ")
    + """
META_ARCH: {NAME: T2SDA, PASSES: [source, mixed, pull, masked]}
MASKED: {BLOCK_SIZE: 16}
TRANSLATION: {NAME: FDA}
HOOKS: {NAMES: [EmaTeacher, DynamicReweighting]}
EMA: {MOMENTUM: 0.9}
T2SDA: {NUM_NEGATIVES: 64, QUERIES_PER_CLASS: 16}
"""
)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(["SOLVER.ACCUMULATION", "2"], id="two micro-steps"),
        pytest.param(["SOLVER.PRECISION", "bf16"], id="bf16"),
    ],
)
def test_a_resumed_run_draws_the_same_crops_bit_by_bit(
    settings: list[str], t2sda_inline: Run, tmp_path: Path
) -> None:
    config = tmp_path / "hrda.yaml"
    config.write_text(HRDA_CONFIG)
    words = ["train", "--config-file", config, "--output-dir", tmp_path / "run", "--resume"]
    final, kept = tmp_path / "run/checkpoint_0000004.pth", tmp_path / "undisturbed.pth"
    for _ in range(2):  # the second time from the checkpoint after three steps
        result = t2sda_inline(*words, *settings)
        assert result.returncode == 0, result.stderr
        if not kept.exists():
            final.rename(kept)
    assert checkpoint_differences(kept, final) == []
