"""Where a run goes on from, and what may have changed since then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from t2sda.engine.checkpoint import checkpoints_in
from t2sda.errors import UserError

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
