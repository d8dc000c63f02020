"""Checkpoints: whole, atomic, strict, and loadable without executing anything in them."""

from __future__ import annotations

import platform
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

import t2sda
from t2sda.config import SCHEMA, Field, config_from_mapping, config_to_mapping
from t2sda.data.taxonomies import Taxonomy
from t2sda.engine.checkpoint_validation import (
    SKIPPED_STEPS,
    structure_problems,
    tensor_problems,
)
from t2sda.engine.hooks import Hook, Stage
from t2sda.errors import MissingFileError, UserError
from t2sda.files import atomic_writer, is_regular_file, reason
from t2sda.structures import Step
from t2sda.weights import licences
from t2sda.weights.torch_files import OWN_MARK, DamagedFileError, is_whole, read_torch_file

SCHEMA.declare(
    "CHECKPOINT",
    {
        "PERIOD": Field(
            2000, "iterations between checkpoints; 0: only at the end", unit="iterations", low=0
        ),
        "KEEP": Field(3, "newest checkpoints that stay; 0: all", low=0),
    },
)

FORMAT = f"{OWN_MARK}4"
_NAME = re.compile(r"checkpoint_(\d{7,})\.pth")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        path: where it was read from.
        iteration: steps done, so the one that is due next.
        meta_arch: state dict of student, teacher and passes.
        optimizer: state dict of the student's; empty in imported weights.
        pass_optimizers: state dicts by pass, of those that have an optimizer of their own.
        hooks: state dicts by name, of those that have a state.
        scaler: its state dict.
        cfg: the resolved configuration of the run.
        config: the same as it was saved.
        taxonomy: class names and colors.
        data: what the domains held, see `DomainPairs.fingerprint`.
        versions: of the libraries that wrote it.
        provenance: of imported weights: file, sha256, format, branch, licence; otherwise empty.
    """

    path: Path
    iteration: int
    meta_arch: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    pass_optimizers: dict[str, dict[str, Any]]
    hooks: dict[str, dict[str, torch.Tensor]]
    scaler: dict[str, Any]
    cfg: CfgNode
    config: dict[str, Any]
    taxonomy: Taxonomy
    data: dict[str, list[dict[str, str | int]]]
    versions: dict[str, str]
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def num_skipped(self) -> int:
        """How many steps the optimizers may have skipped: none without float16's loss scale."""
        return SKIPPED_STEPS if self.scaler else 0


def checkpoint_path(output_dir: Path, iteration: int) -> Path:
    """Where the checkpoint after `iteration` steps lies."""
    return output_dir / f"checkpoint_{iteration:07d}.pth"


def checkpoints_in(output_dir: Path) -> list[Path]:
    """All finished checkpoints of a run, oldest first."""
    try:
        paths = list(output_dir.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"{output_dir}: cannot be read ({reason(error)})") from None
    found = [
        (int(match[1]), path) for path in paths if (match := _match(path)) and is_regular_file(path)
    ]
    return [path for _, path in sorted(found)]


def resolve_checkpoint(run_or_file: Path) -> Path:
    """A checkpoint file, or the newest one of a run's folder.

    Raises:
        MissingFileError: if there is none.
    """
    try:
        is_folder = stat.S_ISDIR(run_or_file.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(f"{run_or_file}: no such file or folder") from None
    except (OSError, ValueError) as error:  # no permission, a name that is too long
        raise UserError(f"{run_or_file}: cannot be read ({reason(error)})") from None
    if not is_folder:
        return run_or_file
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
        with atomic_writer(path) as partial, partial.open("wb") as file:
            torch.save({"format": FORMAT, **content}, file)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{path}: the checkpoint cannot be written ({_cause(error)}); earlier checkpoints are "
            f"intact. Make room or choose another OUTPUT_DIR, then continue with --resume"
        ) from None


def load_checkpoint(
    path: Path, read_config: Callable[..., CfgNode] = config_from_mapping
) -> Checkpoint:
    """Read a checkpoint to the CPU; its checksums and its structure are checked.

    Args:
        path: of the file.
        read_config: what is made of the configuration in it; `network_config` asks for less.

    Raises:
        UserError: if the file is damaged, not one of ours, or holds more than plain data.
    """
    try:
        content = read_torch_file(path)
    except DamagedFileError as error:
        raise UserError(f"{path}: not a readable checkpoint: {error}; {_instead(path)}") from None
    mark = content.get("format") if isinstance(content, dict) else None
    if not isinstance(mark, str) or not mark.startswith(OWN_MARK):
        raise UserError(f"{path}: not a checkpoint of t2sda (no '{FORMAT}' mark)")
    if mark != FORMAT:
        raise UserError(
            f"{path}: a '{mark}', but this version of t2sda reads '{FORMAT}'; use the version that "
            f"wrote it, or train anew"
        )
    problems = structure_problems(content) or _number_problem(path, content["iteration"])
    if problems:
        raise _edited(path, problems)
    return Checkpoint(
        path=path,
        iteration=content["iteration"],
        meta_arch=content["meta_arch"],
        optimizer=content["optimizer"],
        pass_optimizers=content["pass_optimizers"],
        hooks=content["hooks"],
        scaler=content["scaler"],
        cfg=read_config(content["config"], origin=str(path)),
        config=content["config"],
        taxonomy=_taxonomy(content["taxonomy"], path),
        data=content["data"],
        versions=content["versions"],
        provenance=_provenance(content, path),
    )


def _provenance(content: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Where imported weights come from; their licence is logged."""
    found = content.get("provenance", {})
    if not isinstance(found, dict) or not all(
        isinstance(text, str) for pair in found.items() for text in pair
    ):
        raise _edited(path, ["`provenance` must be texts by name"])
    if "licence" in found:
        licences.note(found["licence"])
    return found


def load_weights_(module: nn.Module, state: Mapping[str, torch.Tensor], origin: Path) -> None:
    """Load a state dict strictly.

    Raises:
        UserError: naming what is missing, left over, of another shape or type, or not finite.
    """
    problems = tensor_problems(module.state_dict(), state)
    if problems:
        raise UserError(
            f"{origin}: a checkpoint of another architecture, or an edited one: "
            f"{'; '.join(problems)}. Use the configuration that it was trained with"
        )
    module.load_state_dict(dict(state))


def check_iteration(checkpoint: Checkpoint, max_iter: int) -> None:
    """Raise UserError if a run of `max_iter` steps was left behind already."""
    if checkpoint.iteration > max_iter:
        raise UserError(
            f"{checkpoint.path}: {checkpoint.iteration} iterations are done, and SOLVER.MAX_ITER "
            f"is {max_iter}; raise it to go on, or choose another OUTPUT_DIR"
        )


def check_hook_tensors(hooks: Mapping[str, Hook]) -> None:
    """Raise UserError if the state of a hook holds what no checkpoint takes."""
    for name, hook in hooks.items():
        for key, value in hook.state_dict().items():
            if not isinstance(value, torch.Tensor):
                raise UserError(
                    f"hook {name}: '{key}' of its state_dict is {type(value).__name__}; keep state "
                    f"in tensors, such as torch.tensor({value!r})"
                )


def check_hook_state(
    hook: Hook, name: str, state: Mapping[str, torch.Tensor], origin: Path
) -> None:
    """Raise UserError if a tensor that the fresh hook has is another one in the checkpoint."""
    own = hook.state_dict()
    problems = tensor_problems(own, {key: state[key] for key in state if key in own})
    if problems:
        raise _edited(origin, [f"hook {name}: {problem}" for problem in problems])


def _edited(path: Path, problems: Iterable[str]) -> UserError:
    return UserError(
        f"{path}: a damaged or edited checkpoint: {'; '.join(problems)}; {_instead(path)}"
    )


def _number_problem(path: Path, iteration: int) -> list[str]:
    match = _match(path)
    if match is None or int(match[1]) == iteration:
        return []
    return [f"it is of iteration {iteration}, its name says {int(match[1])}"]


def _instead(path: Path) -> str:
    """What to do about a checkpoint that cannot be used."""
    older = [other for other in checkpoints_in(path.parent) if other != path]
    newest = next((other for other in reversed(older) if is_whole(other)), None)
    if newest is None:
        return "use another checkpoint"
    return (
        f"the newest whole one beside it is {newest}: use that, or delete {path.name} and go on "
        f"from there with --resume"
    )


def _taxonomy(content: Mapping[str, Any], path: Path) -> Taxonomy:
    try:
        return Taxonomy(
            name=content["name"],
            class_names=tuple(content["class_names"]),
            palette=tuple((r, g, b) for r, g, b in content["palette"]),
            subsets={name: tuple(train_ids) for name, train_ids in content["subsets"].items()},
        )
    except UserError as error:
        raise _edited(path, [str(error)]) from None


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
        self.save_as(checkpoint_path(self.output_dir, iteration), iteration)
        if self.keep:
            for old in checkpoints_in(self.output_dir)[: -self.keep]:
                old.unlink()

    def save_as(self, path: Path, iteration: int) -> None:
        """Write it to a place of its own."""
        content = {**self.state(), **checkpoint_content(self.cfg, self.taxonomy, iteration)}
        save_checkpoint(path, content)


def checkpoint_content(cfg: CfgNode, taxonomy: Taxonomy, iteration: int) -> dict[str, Any]:
    """What a checkpoint holds besides states."""
    return {
        "iteration": iteration,
        "config": config_to_mapping(cfg),
        "taxonomy": {
            "name": taxonomy.name,
            "class_names": list(taxonomy.class_names),
            "palette": [list(color) for color in taxonomy.palette],
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
