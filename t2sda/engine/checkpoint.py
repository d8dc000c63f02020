"""Checkpoints: whole, atomic, strict, and loadable without executing anything in them."""

from __future__ import annotations

import pickle
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

import t2sda
from t2sda.config import SCHEMA, Field, config_from_mapping, config_to_mapping
from t2sda.data.taxonomies import Taxonomy
from t2sda.engine.hooks import Hook, Stage
from t2sda.errors import MissingFileError, UserError
from t2sda.files import PARTIAL_SUFFIX, written_whole
from t2sda.structures import Step
from t2sda.weights import licences

SCHEMA.declare(
    "CHECKPOINT",
    {
        "PERIOD": Field(
            2000, "iterations between checkpoints; 0: only at the end", unit="iterations", low=0
        ),
        "KEEP": Field(3, "newest checkpoints that stay; 0: all", low=0),
    },
)

_OURS = "t2sda checkpoint "
FORMAT = f"{_OURS}2"
_ZIP = b"PK\x03\x04"  # what torch.save writes begins with it
_NAME = re.compile(r"checkpoint_(\d{7,})\.pth")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        path: where it was read from.
        iteration: steps done, so the one that is due next.
        meta_arch: state dict of student, teacher and passes.
        optimizers: state dicts by owner, "student" or a pass.
        hooks: state dicts by name, of those that have a state.
        scaler: its state dict.
        cfg: the resolved configuration of the run.
        config: the same as it was saved.
        taxonomy: class names and colours.
        versions: of the libraries that wrote it.
        provenance: of imported weights: file, sha256, format, branch, licence; otherwise empty.
    """

    path: Path
    iteration: int
    meta_arch: dict[str, torch.Tensor]
    optimizers: dict[str, dict[str, Any]]
    hooks: dict[str, dict[str, torch.Tensor]]
    scaler: dict[str, Any]
    cfg: CfgNode
    config: dict[str, Any]
    taxonomy: Taxonomy
    versions: dict[str, str]
    provenance: dict[str, str] = field(default_factory=dict)


def checkpoint_path(output_dir: Path, iteration: int) -> Path:
    """Where the checkpoint after `iteration` steps lies."""
    return output_dir / f"checkpoint_{iteration:07d}.pth"


def checkpoints_in(output_dir: Path) -> list[Path]:
    """All finished checkpoints of a run, oldest first."""
    if not output_dir.is_dir():
        return []
    found = [(int(match[1]), path) for path in output_dir.iterdir() if (match := _match(path))]
    return [path for _, path in sorted(found)]


def resolve_checkpoint(run_or_file: Path) -> Path:
    """A checkpoint file, or the newest one of a run's folder.

    Raises:
        MissingFileError: if there is none.
    """
    if run_or_file.is_file():
        return run_or_file
    if not run_or_file.exists():
        raise MissingFileError(f"{run_or_file}: no such file or folder")
    found = checkpoints_in(run_or_file)
    if not found:
        raise MissingFileError(f"{run_or_file}: no checkpoint_*.pth in this folder")
    return found[-1]


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write atomically: `path` is the old file or the whole new one, whenever power fails.

    Raises:
        UserError: if it cannot be written (disk full, no permission); `path` is as it was.
    """
    try:
        with written_whole(path) as partial, partial.open("wb") as file:
            torch.save({"format": FORMAT, **content}, file)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{path}: the checkpoint cannot be written ({_cause(error)}); earlier checkpoints are "
            f"intact. Make room or choose another OUTPUT_DIR, then continue with --resume"
        ) from None


def load_checkpoint(
    path: Path, read_config: Callable[..., CfgNode] = config_from_mapping
) -> Checkpoint:
    """Read a checkpoint to the CPU.

    Args:
        path: of the file.
        read_config: what is made of the configuration in it; `network_config` asks for less.

    Raises:
        UserError: if the file is damaged, not one of ours, or holds more than plain data.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_ZIP))
        if beginning != _ZIP:  # torch's reader stumbles over other files
            raise UserError(f"{path}: not a checkpoint of t2sda, nor any file of torch")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path}: not a readable checkpoint ({_cause(error)}); if a copy was cut short, "
            f"delete it and use an older one"
        ) from None
    mark = content.get("format") if isinstance(content, dict) else None
    if not isinstance(mark, str) or not mark.startswith(_OURS):
        raise UserError(f"{path}: not a checkpoint of t2sda (no '{FORMAT}' mark)")
    if mark != FORMAT:
        raise UserError(
            f"{path}: a '{mark}', but this version of t2sda reads '{FORMAT}'; use the version that "
            f"wrote it, or train anew"
        )
    names = content["taxonomy"]["class_names"]
    return Checkpoint(
        path=path,
        iteration=content["iteration"],
        meta_arch=content["meta_arch"],
        optimizers=content["optimizers"],
        hooks=content["hooks"],
        scaler=content["scaler"],
        cfg=read_config(content["config"], origin=str(path)),
        config=content["config"],
        taxonomy=Taxonomy(
            name=content["taxonomy"]["name"],
            class_names=tuple(names),
            palette=tuple((r, g, b) for r, g, b in content["taxonomy"]["palette"]),
            subsets={
                name: tuple(train_ids) for name, train_ids in content["taxonomy"]["subsets"].items()
            },
        ),
        versions=content["versions"],
        provenance=_provenance(content, path),
    )


def _provenance(content: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Where imported weights come from; their licence is logged."""
    found = content.get("provenance", {})
    if not isinstance(found, dict) or not all(
        isinstance(text, str) for pair in found.items() for text in pair
    ):
        raise UserError(f"{path}: a damaged or edited checkpoint: `provenance` must be texts")
    if "licence" in found:
        licences.note(found["licence"])
    return found


def load_weights_(module: nn.Module, state: Mapping[str, torch.Tensor], origin: Path) -> None:
    """Load a state dict strictly.

    Raises:
        UserError: naming what is missing, left over or of another shape.
    """
    own = module.state_dict()
    missing = sorted(set(own) - set(state))
    unknown = sorted(set(state) - set(own))
    reshaped = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    problems = [
        f"{len(items)} tensors {what}: {', '.join(items[:3])}{' …' if len(items) > 3 else ''}"
        for what, items in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", reshaped),
        )
        if items
    ]
    if problems:
        raise UserError(
            f"{origin}: a checkpoint of another architecture: {'; '.join(problems)}. "
            f"Use the configuration that it was trained with"
        )
    module.load_state_dict(dict(state))


class CheckpointWriter(Hook):
    """Saves what a run needs to go on, and removes what is older than the newest `keep`.

    Args:
        output_dir: the run's folder.
        state: called at the moment of saving; returns the state dicts of `Checkpoint`.
        cfg: the resolved configuration.
        taxonomy: of the model's classes.
        period, keep, max_iter: see CHECKPOINT and SOLVER.
    """

    stage = Stage.CHECKPOINT

    def __init__(
        self,
        output_dir: Path,
        state: Callable[[], dict[str, Any]],
        cfg: CfgNode,
        taxonomy: Taxonomy,
        *,
        period: int,
        keep: int,
        max_iter: int,
    ) -> None:
        self.output_dir = output_dir
        self.state = state
        self.cfg = cfg
        self.taxonomy = taxonomy
        self.period = period
        self.keep = keep
        self.max_iter = max_iter

    def before_train(self, first_iteration: int) -> None:
        """Remove what a killed process left half-written."""
        for partial in self.output_dir.glob(f"checkpoint_*{PARTIAL_SUFFIX}"):
            partial.unlink()

    def after_step(self, step: Step) -> None:
        """Save if it is due."""
        done = step.iteration + 1
        if done == self.max_iter or (self.period and done % self.period == 0):
            self.save(done)

    def after_train(self, next_iteration: int) -> None:
        """Save what an early stop would otherwise lose."""
        if not checkpoint_path(self.output_dir, next_iteration).exists():
            self.save(next_iteration)

    def save(self, iteration: int) -> None:
        """Write the checkpoint after `iteration` steps."""
        content = {**self.state(), **checkpoint_content(self.cfg, self.taxonomy, iteration)}
        save_checkpoint(checkpoint_path(self.output_dir, iteration), content)
        if self.keep:
            for old in checkpoints_in(self.output_dir)[: -self.keep]:
                old.unlink()


def checkpoint_content(cfg: CfgNode, taxonomy: Taxonomy, iteration: int) -> dict[str, Any]:
    """What a checkpoint holds besides states."""
    return {
        "iteration": iteration,
        "config": config_to_mapping(cfg),
        "taxonomy": {
            "name": taxonomy.name,
            "class_names": list(taxonomy.class_names),
            "palette": [list(colour) for colour in taxonomy.palette],
            "subsets": {name: list(ids) for name, ids in taxonomy.subsets.items()},
        },
        "versions": library_versions(),
    }


def library_versions() -> dict[str, str]:
    """What wrote a file."""
    return {
        "t2sda": t2sda.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def _match(path: Path) -> re.Match[str] | None:
    return _NAME.fullmatch(path.name)


def _cause(error: BaseException) -> str:
    """The first line of the reason, the system's own where there is one."""
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
