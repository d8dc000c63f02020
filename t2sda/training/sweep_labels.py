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
from t2sda.registry import nearest_first

FOLDER = "pseudo_labels"
"""In the folder of the run that trains on them."""
OPTIONS: Mapping[str, type | tuple[type, ...]] = {
    "rule": str,
    "portion": (int, float),
    "threshold": (int, float),
    "branch": str,
    "flip": bool,
    "scales": list,
    "image_size": list,
    "window": list,
    "step": list,
}
"""Of `t2sda pseudo-label`, by what a value is."""


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
        UserError: for an unknown option or a run without exactly one target, without place.
    """
    problem = _problem(options)
    if problem is None and len(cfg.DATASETS.TARGET) != 1:
        names = ", ".join(cfg.DATASETS.TARGET) or "none"
        problem = f"need a run with one dataset in DATASETS.TARGET, whose images they are; {names}"
    if problem is not None:
        raise UserError(f"labels: {problem}")
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


def _problem(options: Mapping[str, Any]) -> str | None:
    for name, value in options.items():
        if name not in OPTIONS:
            return f"no option '{name}'; nearest: {nearest_first(name, [*OPTIONS, 'of'])[0]}"
        if not isinstance(value, OPTIONS[name]):
            return f"{name}: found {shown(value)}"
    return None if "rule" in options else "`rule` is missing"


def _words(option: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [option] if value else []
    values = value if isinstance(value, list) else [value]
    return [option, *map(str, values)]
