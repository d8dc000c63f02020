"""The folder of a run, as `t2sda train` leaves it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from t2sda.config import read_config_file
from t2sda.config.schema import flat_items
from t2sda.data.catalog import DATASETS
from t2sda.data.dataset_files import register_dataset_files
from t2sda.errors import MissingFileError
from t2sda.files import is_folder, is_missing

CONFIG_NAME = "config.yaml"
NOWHERE = "–"
"""For what there is not."""


def read_settings(folder: Path) -> dict[str, Any]:
    """Every setting of a run by its dotted key, sequences as lists; no component must be known.

    Raises:
        MissingFileError: if there is no such folder.
        UserError: if it is the folder of no run, or its configuration is damaged.
    """
    if not is_folder(folder):
        raise MissingFileError(f"{folder}: no such folder; give that of a run")
    try:
        settings = read_config_file(folder / CONFIG_NAME)
    except MissingFileError:
        raise MissingFileError(
            f"{folder}: not the folder of a run: it holds no {CONFIG_NAME}; give the folder that "
            f"`t2sda train --output-dir` wrote"
        ) from None
    return dict(flat_items(settings))


def register_datasets_of_runs(models: Iterable[Path], names: Iterable[str]) -> list[str]:
    """Make known what the DATASETS.FILES of runs describe, where a dataset is unknown without.

    Args:
        models: folders of runs, and checkpoints in them; other files say nothing.
        names: of the datasets that are asked for.
    Returns:
        The files, of those that are still where they were.
    Raises:
        UserError: if one cannot be used, or two give different datasets one name.
    """
    if all(name in DATASETS for name in names):
        return []
    named = (path for model in models for path in _dataset_files(model))
    files = [path for path in dict.fromkeys(named) if Path(path).is_file()]
    register_dataset_files(files)
    return files


def _dataset_files(model: Path) -> Sequence[str]:
    folder = model.parent if model.suffix == ".pth" else model
    if not is_folder(folder) or is_missing(folder / CONFIG_NAME):
        return ()
    files: Sequence[str] = read_settings(folder).get("DATASETS.FILES", ())
    return files


def differing_settings(
    settings: Sequence[Mapping[str, Any]], left_out: Container[str]
) -> list[tuple[str, list[str]]]:
    """(setting, its value in each run) of those that are not the same in all of them."""
    keys = dict.fromkeys(key for own in settings for key in own if key not in left_out)
    rows = [(key, [written(own.get(key, NOWHERE)) for own in settings]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def written(value: Any) -> str:
    """A setting's value as in a YAML file; an empty text can be seen."""
    return "''" if value == "" else str(value)
