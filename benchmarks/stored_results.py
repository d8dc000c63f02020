"""Results that are kept: one small JSON a run in `benchmarks/results/BENCHMARK/`.

A file holds what the page docs/results.md says of a run, and the pixel counts of every image, so
that intervals follow from the files alone. `collect_results` writes them, `results_page` reads
them, and `differences_to_now` says whether a run's configuration is still what it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2sda.config import config_to_mapping
from t2sda.config.schema import flat_items
from t2sda.errors import UserError
from t2sda.evaluation.entries import Counts, ImageCounts, Protocol, Scores
from t2sda.files import atomic_write, json_text, read_small_file
from t2sda.training.resuming import HARMLESS_CHANGES
from t2sda.training.sweep import Sweep, SweepRun

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).with_name("results")
FORMAT = "t2sda result 1"
MAX_BYTES = 200_000


@dataclass(frozen=True)
class StoredScores:
    """Scores on one dataset, in the classes that are reported.

    Attributes:
        protocol: how images reached the network, in words.
        iou: by class, as shares of 1; None for a class that is neither there nor predicted.
        mean_iou, accuracy: as shares of 1.
        images: by name, in the order of the dataset: labelled pixels by true class, by predicted
            class, and by class where both agree.
    """

    protocol: str
    iou: dict[str, float | None]
    mean_iou: float
    accuracy: float
    images: dict[str, tuple[Counts, Counts, Counts]]

    def as_scores(self, dataset: str) -> Scores:
        """With the reported classes as the classes; for `t2sda.evaluation.bootstrap`."""
        iou = {name: float("nan") if share is None else share for name, share in self.iou.items()}
        return Scores(
            dataset=dataset,
            num_images=len(self.images),
            protocol=Protocol(),
            classes=tuple(iou),
            confusion=(),
            iou=iou,
            class_accuracy={},
            accuracy=self.accuracy,
            mean_iou=self.mean_iou,
            images=tuple(ImageCounts(name, *counts) for name, counts in self.images.items()),
        )


@dataclass(frozen=True)
class StoredResult:
    """What is kept of a run.

    Attributes:
        name: of the run in its sweep file; with a grid's values.
        seed: of the run.
        sweep: its sweep file, below the repository's root.
        config: the configuration that the sweep file names.
        config_hash: of `settings`.
        command: that trains it.
        settings: by dotted key, all of its own that numbers follow from.
        commits: of the source tree, one for each change between the times it was started.
        machine, versions: as run.json has them, of the last start.
        started, ended: ISO 8601.
        seconds: of all times that it ran to its end or was stopped; what a kill cost is not in it.
        killed: how often it was killed.
        peak_memory_mib, peak_gpu_memory_mib: the most of all starts; None where it is not known.
        iterations: steps that were trained.
        checkpoint: sha256:… of the scored file.
        scores: by dataset.
        needs: by name, settings of the runs that it started from as far as they are not its own;
            empty where that was not kept.
    """

    name: str
    seed: int
    sweep: str
    config: str
    config_hash: str
    command: str
    settings: dict[str, Any]
    commits: list[str]
    machine: dict[str, Any]
    versions: dict[str, str]
    started: str
    ended: str | None
    seconds: float
    killed: int
    peak_memory_mib: int | None
    peak_gpu_memory_mib: int | None
    iterations: int
    checkpoint: str
    scores: dict[str, StoredScores]
    needs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """In the folder of its benchmark."""
        return f"{self.name}.seed_{self.seed}.json"


def name_of(run: SweepRun) -> str:
    """Without its seed."""
    return run.name.partition("/")[0]


def settings_of(run: SweepRun) -> dict[str, Any]:
    """What a run's numbers follow from, by dotted key, as JSON has it."""
    settings = flat_items(config_to_mapping(run.cfg))
    kept = {key: value for key, value in settings if not key.startswith(HARMLESS_CHANGES)}
    return json.loads(json_text(kept))


def runs_before(run: SweepRun, sweep: Sweep) -> list[SweepRun]:
    """What a run needs, and what that needs, in the order of the sweep."""
    names = set(run.needs)
    for other in reversed(sweep.runs):  # whoever needs another comes behind it
        if other.name in names:
            names |= set(other.needs)
    return [other for other in sweep.runs if other.name in names]


def config_hash(settings: Mapping[str, Any]) -> str:
    """The same for the same settings, in whatever order."""
    text = json.dumps(settings, sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def differences_to_now(result: StoredResult, sweep: Sweep) -> list[str]:
    """What is otherwise in the sweep file of today than when the run was trained.

    Settings that did not exist then are left out: what a new one does by default is what was done
    before.
    """
    wanted = (result.name, result.seed)
    run = next((run for run in sweep.runs if (name_of(run), run.cfg.SEED) == wanted), None)
    if run is None:
        return [f"{result.sweep} has no run {result.name} of seed {result.seed}"]
    if config_hash(result.settings) != result.config_hash:
        return ["`settings` are not those of `config_hash`"]
    found = _changes(result.settings, settings_of(run))
    now = {needed.name: settings_of(needed) for needed in runs_before(run, sweep)}
    for name, own in result.needs.items():
        if name not in now:
            found.append(f"it does not start from {name} any more")
        else:
            changes = _changes(result.settings | own, now[name])
            found += [f"{name}, from which it starts: {change}" for change in changes]
    if run.command != result.command:
        found.append(f"command: was {result.command!r}, is {run.command!r}")
    return found


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{key}: was {value!r}, is {now.get(key)!r}"
        for key, value in then.items()
        if now.get(key, KeyError) != value
    ]


def write_result(folder: Path, result: StoredResult) -> Path:
    """Write its file, a line for each field.

    Raises:
        UserError: if it gets too large to be committed.
    """
    fields: dict[str, Any] = {"format": FORMAT, **dataclasses.asdict(result)}
    lines = [f"{json.dumps(key)}: {json_text(value)}" for key, value in fields.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    path = folder / result.file_name
    if len(text) > MAX_BYTES:
        raise UserError(
            f"{path}: would have {len(text)} bytes, more than {MAX_BYTES}; choose fewer datasets "
            f"with --data"
        )
    atomic_write(path, text)
    return path


def read_result(path: Path) -> StoredResult:
    """The result in a file; raises UserError if it is none."""
    try:
        fields = json.loads(read_small_file(path, MAX_BYTES))
        if fields.pop("format") != FORMAT:
            raise ValueError(f"no '{FORMAT}' mark")
        scores = {name: _scores(item) for name, item in fields.pop("scores").items()}
        return StoredResult(**fields, scores=scores)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}: not a kept result ({error}); write it with benchmarks.collect_results"
        ) from None


def read_results(folder: Path) -> list[StoredResult]:
    """All results of a benchmark, in the order of their names and seeds.

    Raises:
        UserError: if a file is none, or has not the name of its run: a copy would count as a seed.
    """
    results = []
    for path in folder.glob("*.seed_*.json"):
        result = read_result(path)
        if path.name != result.file_name:
            raise UserError(f"{path}: holds what belongs into {result.file_name}; delete one")
        results.append(result)
    return sorted(results, key=lambda result: (result.name, result.seed))


def _scores(item: Mapping[str, Any]) -> StoredScores:
    images = {
        name: (tuple(true), tuple(predicted), tuple(right))
        for name, (true, predicted, right) in item["images"].items()
    }
    return StoredScores(**{**item, "images": images})
