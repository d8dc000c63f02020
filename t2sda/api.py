"""Training and scoring from Python: what `import t2sda` offers beside `load_model`.

result = t2sda.train("quickstart.yaml", overrides={"SOLVER.MAX_ITER": 100}, output_dir="runs/first")
scores = t2sda.evaluate(result.predictor, "streets_hazy_val")
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from t2sda import config
from t2sda.data.catalog import open_dataset
from t2sda.data.datasets import SegmentationDataset
from t2sda.distributed import process_group
from t2sda.engine.device import choose_device
from t2sda.engine.hooks import Hook
from t2sda.engine.metrics import standard_console
from t2sda.engine.progress import ConsoleProgress
from t2sda.errors import UserError
from t2sda.evaluation import evaluator
from t2sda.evaluation.entries import Scores
from t2sda.evaluation.views import protocol_for
from t2sda.modeling.segmentor import SegmentationModel
from t2sda.plugins import load_components, recorded
from t2sda.registry import check_registered
from t2sda.resources import named_shortages
from t2sda.runtime.loading import load_model
from t2sda.runtime.predictor import PathLike, Predictor
from t2sda.training.run import TrainingResult, run_training

ConfigSource = PathLike | Mapping[str, Any] | None
Overrides = Mapping[str, Any] | Sequence[str]

load_components([])


def load_config(
    source: ConfigSource = None,
    overrides: Overrides = (),
    *,
    output_dir: PathLike | None = None,
    plugins: Sequence[str] = (),
) -> CfgNode:
    """The checked, frozen configuration of a run.

    Args:
        source: a YAML file, the name of a shipped one, a nested mapping, or a configuration; None
            for the defaults.
        overrides: settings that replace those of `source`, as {"SOLVER.MAX_ITER": 100} or as on a
            command line, ["SOLVER.MAX_ITER", "100"].
        output_dir: the same as the setting OUTPUT_DIR.
        plugins: modules or .py files that register components of your own.

    Raises:
        ConfigError: a UserError, with everything that is wrong.
    """
    if isinstance(overrides, str) or not all(isinstance(item, str) for item in overrides):
        raise UserError(
            f"overrides: {overrides!r}; give a mapping, as {{'SOLVER.MAX_ITER': 100}}, or a list "
            f"of text, as ['SOLVER.MAX_ITER', '100']"
        )
    named = _plugins_of(source)
    load_components([*named, *plugins])
    cfg = config.load_config(source, overrides)
    if named or plugins:
        cfg = config.load_config(cfg, {"PLUGINS": recorded([*named, *plugins])})
    if output_dir is not None:
        cfg = config.load_config(cfg, {"OUTPUT_DIR": os.fspath(output_dir)})
    check_registered(cfg)
    load_components([], cfg.DATASETS.FILES)
    return cfg


def _plugins_of(source: ConfigSource) -> list[str]:
    """Those that a configuration names."""
    if source is None or isinstance(source, Mapping):
        return list((source or {}).get("PLUGINS") or ())
    return config.plugins_named(source)


def train(
    source: ConfigSource,
    *,
    overrides: Overrides = (),
    resume: bool = False,
    weights: PathLike | None = None,
    output_dir: PathLike | None = None,
    plugins: Sequence[str] = (),
    model: SegmentationModel | None = None,
    hooks: Sequence[Hook] = (),
) -> TrainingResult:
    """Train by a configuration, as `t2sda train` does; log messages go to `logging`.

    Args:
        source, overrides, output_dir, plugins: see `load_config`.
        resume: go on from the newest checkpoint of the output folder, if it holds one.
        weights: checkpoint or run folder whose student to start from.
        model: of your own, trained in place of the one that MODEL describes.
        hooks: of your own, beside those of HOOKS.NAMES.

    Raises:
        UserError: what is wrong and what to do.
    """
    if model is not None:
        _check_kind("model", model, SegmentationModel, "join a backbone and a head in one")
    for hook in hooks:
        _check_kind("hooks", hook, Hook, "derive it")
    cfg = load_config(source, overrides, output_dir=output_dir, plugins=plugins)
    device = choose_device(cfg.DEVICE)
    start = None if weights is None else os.fspath(weights)
    with process_group(device), named_shortages():
        return run_training(cfg, device, resume=resume, weights=start, model=model, hooks=hooks)


def evaluate(
    model: PathLike | Predictor,
    dataset: str | SegmentationDataset,
    *,
    device: str | None = None,
    branch: str | None = None,
    image_size: tuple[int, int] | None = None,
    window: tuple[int, int] | None = None,
    step: tuple[int, int] | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    boundary: bool = False,
    calibration: bool = False,
) -> Scores:
    """Score a network on a labelled dataset, as `t2sda evaluate` does.

    Args:
        model: what `load_model` takes, or a predictor.
        dataset: a name of `t2sda.datasets.names()`, or a dataset.
        device, branch: of a file that is loaded, see `load_model`.
        image_size: bound (height, width) that images are resized to fit; by default that of the
            run's evaluations.
        window: (height, width) of a sliding window; by default as in the run's evaluations.
        step: from one window to the next; by default as there, or two thirds of the window.
        flip: whether the mirrored image counts as well.
        scales: factors of the image's size that count.
        boundary: whether boundary IoU is asked for.
        calibration: whether the expected calibration error is.

    Raises:
        UserError: if the dataset is unlabelled or has other classes than the network, or the
            network cannot do what is asked for.
    """
    if isinstance(model, (str, os.PathLike)):
        model = load_model(Path(model), device=device, branch=branch)
    _check_kind("model", model, Predictor, "give a file, or what `train` returns as `.predictor`")
    opened = open_dataset(dataset) if isinstance(dataset, str) else dataset
    _check_kind("dataset", opened, SegmentationDataset, "give the name of one, or derive it")
    return evaluator.evaluate(
        model,
        opened,
        protocol_for(
            model, image_size=image_size, window=window, step=step, flip=flip, scales=scales
        ),
        boundary=boundary,
        calibration=calibration,
        progress=ConsoleProgress(standard_console()),
    )


def _check_kind(name: str, value: object, kind: type, advice: str) -> None:
    """Raise TypeError for an argument that no training or scoring can begin with."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: a {type(value).__name__} is no {kind.__name__}; {advice}")
