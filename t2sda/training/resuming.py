"""Where a run goes on from, and what may have changed since then."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from fvcore.common.config import CfgNode

from t2sda.config import changed_keys
from t2sda.data.taxonomies import Taxonomy
from t2sda.engine.checkpoint import (
    Checkpoint,
    check_hook_state,
    checkpoints_in,
    load_weights_,
)
from t2sda.engine.hooks import Hook
from t2sda.engine.optim import STUDENT, Owner, load_optimizers_
from t2sda.engine.precision import Precision
from t2sda.errors import UserError
from t2sda.meta_arch.base import MetaArch

logger = logging.getLogger(__name__)

Fingerprint = Mapping[str, Sequence[Mapping[str, str | int]]]
"""See `DomainPairs.fingerprint`."""
HARMLESS_CHANGES = (
    *("OUTPUT_DIR", "PLUGINS", "DATA.NUM_WORKERS"),
    *("LOGGING.", "CHECKPOINT.", "EVALUATION."),
)
"""Settings that a resumed run may change without changing its numbers."""


def check_folder(output_dir: Path, resume: bool) -> Path | None:
    """The checkpoint that a run in the folder goes on from.

    Raises:
        UserError: if the folder holds a run already and `resume` is not set.
    """
    found = checkpoints_in(output_dir)
    if found and not resume:
        raise UserError(
            f"{output_dir} holds a run already ({found[-1].name}); continue it with --resume "
            f"(resume=True in Python), or choose another folder with --output-dir"
        )
    return found[-1] if found else None


def check_same_classes(checkpoint: Checkpoint, taxonomy: Taxonomy) -> None:
    """Raise UserError if a checkpoint's classes are not those of this run."""
    if checkpoint.taxonomy.class_names != taxonomy.class_names:
        raise UserError(
            f"{checkpoint.path}: trained with the classes of '{checkpoint.taxonomy.name}', but "
            f"this run has those of '{taxonomy.name}'; use datasets of the same classes"
        )


def restore_(
    checkpoint: Checkpoint,
    steps: int,
    meta_arch: MetaArch,
    owners: Sequence[Owner],
    hooks: Mapping[str, Hook],
    precision: Precision,
) -> None:
    """Load the state of everything that a checkpoint holds.

    Args:
        checkpoint: of the same run, as read.
        steps: of the student's optimizer until then.
        meta_arch, owners, hooks, precision: of the run, as built; hooks by name.
    Raises:
        UserError: if a state does not fit what it is of.
    """
    load_weights_(meta_arch, checkpoint.meta_arch, checkpoint.path)
    states = {STUDENT: checkpoint.optimizer, **checkpoint.pass_optimizers}
    try:
        load_optimizers_(owners, states, steps, checkpoint.num_skipped)
    except UserError as error:
        raise UserError(f"{checkpoint.path}: {error}") from None
    for name, state in checkpoint.hooks.items():
        if name in hooks:
            check_hook_state(hooks[name], name, state, checkpoint.path)
            hooks[name].load_state_dict(state)
    precision.load_scale(checkpoint.scaler)


def warn_of_changes(checkpoint: Checkpoint, cfg: CfgNode, data: Fingerprint) -> None:
    """Log a warning of settings and data that make a resumed run end elsewhere."""
    changes = [
        f"{key} was {old}, is {new}"
        for key, old, new in changed_keys(checkpoint.cfg, cfg)
        if not key.startswith(HARMLESS_CHANGES)
    ]
    changes += changed_data(checkpoint.data, data)
    if changes:
        logger.warning(
            "the resumed run will differ from an uninterrupted one: %s", "; ".join(changes)
        )


def changed_data(old: Fingerprint, new: Fingerprint) -> list[str]:
    """How the datasets of a domain differ from those that a checkpoint was trained on."""
    changes = []
    for domain in sorted(old.keys() & new.keys()):
        before = {str(item["name"]): item for item in old[domain]}
        now = {str(item["name"]): item for item in new[domain]}
        for name in sorted(before.keys() & now.keys()):  # other names: a changed setting
            if before[name] != now[name]:
                changes.append(
                    f"the {domain} '{name}' had {before[name]['images']} images, has "
                    f"{now[name]['images']}"
                    f"{', of other names' if before[name]['images'] == now[name]['images'] else ''}"
                )
    return changes
