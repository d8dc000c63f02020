"""What was scored: a file by its content, and the entry that scores of it become."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from t2sda.evaluation.entries import Entry, Scores
from t2sda.runtime.digest import digest_of
from t2sda.runtime.predictor import Predictor


@dataclass(frozen=True)
class ModelFile:
    """A model's file as it was before it was scored.

    Attributes:
        path: of the file.
        digest: see `digest_of`.
    """

    path: Path
    digest: str

    @classmethod
    def of(cls, path: Path) -> ModelFile:
        """Read the file once, for its digest; raises UserError where a part of it is missing."""
        return cls(path, digest_of(path))

    def entry(self, scores: Scores, predictor: Predictor, folder: Path) -> Entry:
        """What a file of scores in `folder` says of them."""
        path, folder = self.path.resolve(), folder.resolve()
        iteration, branch = (predictor.origin.get(name) for name in ("iteration", "branch"))
        return Entry(
            model=str(path.relative_to(folder) if path.is_relative_to(folder) else path),
            digest=self.digest,
            iteration=iteration if isinstance(iteration, int) else None,
            branch=branch if isinstance(branch, str) else None,
            runtime=predictor.runtime,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            scores=scores,
        )
