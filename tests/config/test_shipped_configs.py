"""Every shipped configuration resolves, prints its plan, and is short."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from t2sda.config import load_config
from t2sda.data.catalog import DATASETS
from t2sda.meta_arch.base import pass_names
from t2sda.training.plan import plan_text

CONFIGS = Path(__file__).parents[2] / "configs"
PARTS = CONFIGS / "base"
"""What runs are put together from: no runs themselves, so they need not resolve alone."""
FILES = sorted(CONFIGS.rglob("*.yaml"))
RUNS = [path for path in FILES if PARTS not in path.parents]
MAX_LINES = 15


def name_of(path: Path) -> str:
    return path.relative_to(CONFIGS).as_posix()


def bases_of(path: Path) -> list[Path]:
    bases = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("_BASE_", [])
    names = [bases] if isinstance(bases, str) else bases
    return [(path.parent / name).resolve() for name in names]


@pytest.mark.parametrize("path", RUNS, ids=name_of)
def test_a_run_resolves_and_its_plan_says_what_it_does(path: Path) -> None:
    cfg = load_config(path)
    assert all(name in DATASETS for name in cfg.DATASETS.SOURCE)
    assert all(name in DATASETS for name in cfg.DATASETS.TARGET)
    assert all(name in DATASETS for name in cfg.EVALUATION.DATASETS)
    plan = plan_text(cfg)
    for expected in (cfg.META_ARCH.NAME, *cfg.DATASETS.SOURCE, *pass_names(cfg)):
        assert expected in plan


def test_files_are_short() -> None:
    long = [
        name_of(path)
        for path in FILES
        if len(path.read_text(encoding="utf-8").splitlines()) > MAX_LINES
    ]
    assert long == []


def test_every_part_is_part_of_something() -> None:
    used = {base for path in FILES for base in bases_of(path)}
    assert {path for path in FILES if PARTS in path.parents} <= used


def test_every_method_is_there_for_both_benchmarks_and_architectures() -> None:
    methods = ("source_only", "fda", "minent", "dacs", "daformer", "t2sda", "mic", "t2sda_mic")
    expected = {
        f"{benchmark}_to_cityscapes/{method}_{network}.yaml"
        for benchmark in ("gta5", "synthia")
        for method in methods
        for network in ("deeplabv2_r101", "daformer_mit_b5")
    }
    expected |= {
        f"{benchmark}_to_cityscapes/{method}_hrda_mit_b5.yaml"
        for benchmark in ("gta5", "synthia")
        for method in ("daformer", "t2sda", "mic", "t2sda_mic")
    }
    assert expected <= set(map(name_of, FILES))


def test_masked_consistency_is_one_word_in_the_list_of_passes() -> None:
    plain, masked = (
        load_config(CONFIGS / f"gta5_to_cityscapes/{name}_daformer_mit_b5.yaml")
        for name in ("t2sda", "t2sda_mic")
    )
    assert pass_names(masked) == (*pass_names(plain), "masked")
