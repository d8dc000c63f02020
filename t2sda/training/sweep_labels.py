"""`labels` of a sweep's run: pseudo-labels that another run makes before it starts.

    round_1:
      config: streets/cbst.yaml
      weights: source_only
      labels: {of: source_only, rule: cbst, portion: 0.2, flip: true, scales: [0.9]}

The images are those of the run's DATASETS.TARGET, which is then the dataset that the labels make of
them. Keys besides `of` are options of `t2sda pseudo-label`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fvcore.common.config import CfgNode

from t2sda.config.errors import shown
from t2sda.data.packing import DESCRIPTION_NAME
from t2sda.errors import UserError
from t2sda.evaluation.label_rules import CONSTANTS, label_rule
from t2sda.evaluation.views import check_options
from t2sda.registry import nearest_first

FOLDER = "pseudo_labels"
"""In the folder of the run that trains on them."""
BRANCHES = ("student", "teacher")
SIZES = ("image_size", "window", "step")
OPTIONS = ("rule", *CONSTANTS, "branch", "flip", "scales", *SIZES)
"""Of `t2sda pseudo-label`."""


class Labels(NamedTuple):
    """What makes the pseudo-labels of a run, and what the run is given for it."""

    arguments: tuple[str, ...]
    """Of `t2sda pseudo-label`."""
    settings: dict[str, Any]
    """By key."""


def labels_of(
    cfg: CfgNode, options: Mapping[str, Any], labeller: Path, folder: Path, plugins: Sequence[str]
) -> Labels:
    """Arguments and settings.

    Args:
        cfg: of the run that trains on them.
        options: of `labels`, without `of`.
        labeller: folder of the run whose network labels.
        folder: of the run that trains on them.
        plugins: of the sweep.
    Raises:
        UserError: for options that do not fit or a run without exactly one target, without place.
    """
    _check(options)
    if len(cfg.DATASETS.TARGET) != 1:
        names = ", ".join(cfg.DATASETS.TARGET) or "none"
        raise UserError(
            f"labels: need a run with one dataset in DATASETS.TARGET, whose images they are; "
            f"{names}"
        )
    (target,) = cfg.DATASETS.TARGET
    output = folder / FOLDER
    arguments = [str(labeller), "--data", target, "--output", str(output)]
    for name, value in options.items():
        arguments += _words(f"--{name.replace('_', '-')}", value)
    arguments += ["--device", cfg.DEVICE]
    arguments += [word for file in cfg.DATASETS.FILES for word in ("--file", file)]
    arguments += [word for plugin in plugins for word in ("--plugin", plugin)]
    files = [*cfg.DATASETS.FILES, str(output / DESCRIPTION_NAME)]
    settings = {"DATASETS.FILES": files, "DATASETS.TARGET": f"{target}_{FOLDER}"}
    return Labels(tuple(arguments), settings)


def _check(options: Mapping[str, Any]) -> None:
    """Raise UserError for what `t2sda pseudo-label` would refuse after the labeller was trained."""
    for name, value in options.items():
        if name not in OPTIONS:
            near = nearest_first(name, [*OPTIONS, "of"])[0]
            raise UserError(f"labels: no option '{name}'; nearest: {near}")
        if not _takes(name, value):
            raise UserError(f"labels: {name}: found {shown(value)}")
    if "rule" not in options:
        raise UserError("labels: `rule` is missing")
    constants = {name: value for name, value in options.items() if name in CONSTANTS}
    try:
        label_rule(options["rule"], constants)
        check_options(options.get("window"), options.get("step"), options.get("scales", [1.0]))
    except UserError as error:
        raise UserError(f"labels: {error}") from None


def _takes(name: str, value: Any) -> bool:
    """Whether an option's value is of its kind."""
    if name in SIZES:
        return _are(value, int) and len(value) == 2 and min(value) > 0
    if name == "scales":
        return _are(value, int, float)
    if name in CONSTANTS:
        return _are([value], int, float)
    if name == "flip":
        return isinstance(value, bool)
    return value in BRANCHES if name == "branch" else isinstance(value, str)


def _are(values: Any, *kinds: type) -> bool:
    return isinstance(values, list) and all(type(value) in kinds for value in values)


def _words(option: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [option] if value else []
    values = value if isinstance(value, list) else [value]
    return [option, *map(str, values)]
