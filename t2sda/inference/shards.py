"""One folder of results, made by several processes that know nothing of each other.

Each takes the images whose names fall to its share, and keeps its record in a folder of its own;
`merge` makes the record, legend and shares of the whole of them.

OUTPUT/NAME_KIND.png              results, as without shards
OUTPUT/shards/2-of-3/             record and summary of one shard
OUTPUT/shards/2-of-3/done.json    when it has come to its end
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from t2sda.data.taxonomies import Taxonomy
from t2sda.errors import UserError
from t2sda.files import atomic_write, is_regular_file, is_written_to, read_small_file
from t2sda.inference.shares import RECORD_NAME, SHARDS_NAME, Record, lines_of, remove_summary

DONE_NAME = "done.json"
MOST = 100_000
LARGEST_DONE = 1 << 30
_TEXT = re.compile(r"(?:(\d{1,9})?/(\d{1,9}))?")
_FOLDER = re.compile(r"([1-9]\d{0,8})-of-([1-9]\d{0,8})")


@dataclass(frozen=True, order=True)
class Shard:
    """`index` of `count`, from 1 on."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def takes(self, name: str) -> bool:
        """Whether an image is of this shard: by its name, so that others change nothing."""
        digest = hashlib.sha256(os.fsencode(name)).digest()
        return int.from_bytes(digest[:8]) % self.count == self.index - 1

    def folder(self, output_dir: Path) -> Path:
        """Of its record."""
        return output_dir / SHARDS_NAME / f"{self.index}-of-{self.count}"


def shard_called(text: str, environment: Mapping[str, str]) -> Shard:
    """The shard that "2/3" names; "/3" takes the index from the environment, "" both.

    The index is that of a Slurm array's task (`SLURM_ARRAY_TASK_ID`, whatever number the array
    begins with; a count that is written has to be that of its tasks) or of an indexed job's pod in
    Kubernetes (`JOB_COMPLETION_INDEX`, which knows no count).

    Raises:
        UserError: if it is none, or the environment does not say.
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise UserError(f"--shard {text[:60]}: write I/N with I from 1 to N, such as 2/3; or /N")
    own_index, own_count = _in_environment(environment)
    index = int(found[1]) if found[1] else own_index
    count = int(found[2]) if found[2] else own_count
    if not found[1] and own_count not in (None, count):
        raise UserError(
            f"--shard {text}: the Slurm array has {own_count} tasks, not {count}, so which of the "
            f"shards is its task {environment['SLURM_ARRAY_TASK_ID']} is not known; write I, such "
            f"as $SLURM_ARRAY_TASK_ID{text}"
        )
    if index is None or count is None:
        raise UserError(
            f"--shard {text or '(without a value)'}: {'I' if index is None else 'N'} of I/N is not "
            f"known: it is neither written nor in SLURM_ARRAY_TASK_ID, SLURM_ARRAY_TASK_COUNT or "
            f"JOB_COMPLETION_INDEX"
        )
    if not 1 <= index <= count <= MOST:
        raise UserError(f"--shard {index}/{count}: I goes from 1 to N, N to {MOST}")
    return Shard(index, count)


def _in_environment(environment: Mapping[str, str]) -> tuple[int | None, int | None]:
    def number(name: str) -> int | None:
        text = environment.get(name, "")
        return int(text) if text.isdecimal() else None

    task, pod = number("SLURM_ARRAY_TASK_ID"), number("JOB_COMPLETION_INDEX")
    if task is not None:
        step = number("SLURM_ARRAY_TASK_STEP") or 1
        index = (task - (number("SLURM_ARRAY_TASK_MIN") or 0)) // step + 1
        return index, number("SLURM_ARRAY_TASK_COUNT")
    return (None if pod is None else pod + 1), None


def check_beside(shard: Shard, output_dir: Path) -> None:
    """What holds before a shard writes: nobody writes the whole, and no shard is of another count.

    Raises:
        UserError: if that is not so.
    """
    if is_written_to(output_dir):
        raise UserError(f"{output_dir}: a run without --shard is writing there; wait for its end")
    others = sorted({other.count for other in _shards(output_dir)} - {shard.count})
    if others:
        raise UserError(
            f"{output_dir / SHARDS_NAME}: holds shards of {others[0]}, this one is of "
            f"{shard.count}; go on with {others[0]}, or choose another --output"
        )


def check_alone(output_dir: Path) -> None:
    """What holds before a run without `--shard` writes: no shard does.

    Raises:
        UserError: if one does.
    """
    for shard in _shards(output_dir):
        if is_written_to(shard.folder(output_dir)):
            raise UserError(
                f"{output_dir}: shard {shard} is in work there; wait for its end, or choose "
                f"another --output"
            )


def note_begin(folder: Path) -> None:
    """A shard is not finished from now on; its folder is held by `only_writer`."""
    (folder / DONE_NAME).unlink(missing_ok=True)


@dataclass(frozen=True)
class End:
    """What a shard came to.

    Attributes:
        names: of its images and videos.
        num_left_out: of them, as they could not be read.
        incomplete: pixels of every class of the videos that are damaged, by name: they are in no
            record, so that a resumed run does them again.
        taxonomy: of the model.
    """

    names: list[str]
    num_left_out: int
    incomplete: Mapping[str, list[int]]
    taxonomy: Taxonomy

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {
            "names": self.names,
            "left_out": self.num_left_out,
            "incomplete": self.incomplete,
            "taxonomy": self.taxonomy.name,
            "class_names": self.taxonomy.class_names,
            "palette": self.taxonomy.palette,
        }

    @classmethod
    def from_json(cls, content: Any) -> End:
        """Raises ValueError, TypeError or KeyError for what `to_json` does not write."""
        palette = tuple((red, green, blue) for red, green, blue in content["palette"])
        taxonomy = Taxonomy(content["taxonomy"], tuple(content["class_names"]), palette)
        names, num_left_out = content["names"], content["left_out"]
        incomplete = content["incomplete"]
        if not (
            isinstance(names, list)
            and type(num_left_out) is int
            and all(isinstance(name, str) for name in names)
            and all(len(counts) == taxonomy.num_classes for counts in incomplete.values())
        ):
            raise ValueError
        return cls(names, num_left_out, incomplete, taxonomy)


def note_end(folder: Path, end: End) -> None:
    """Write that a shard, whose record is in `folder`, came to its end."""
    atomic_write(folder / DONE_NAME, json.dumps(end.to_json()).encode("ascii"))


class Merged(NamedTuple):
    """What shards came to."""

    record: Record
    names: list[str]
    taxonomy: Taxonomy
    num_left_out: int
    num_incomplete: int


def finished_shards(output_dir: Path) -> list[Shard]:
    """All shards of a folder.

    Raises:
        UserError: if one is missing, in work, not finished, or of other settings.
    """
    shards = sorted(_shards(output_dir))
    if not shards:
        raise UserError(f"{output_dir}: holds no shards; `t2sda infer --shard I/N` makes them")
    expected = [Shard(index, shards[0].count) for index in range(1, shards[0].count + 1)]
    missing = [str(shard) for shard in expected if shard not in shards]
    if missing:
        raise UserError(f"{output_dir}: shards {', '.join(missing[:9])} are missing; run them")
    if shards != expected:
        strange = next(shard for shard in shards if shard not in expected)
        raise UserError(
            f"{strange.folder(output_dir)}: is none of the {shards[0].count} shards beside it; "
            f"remove what is not of this run"
        )
    first, *others = (_lines_of(shard, output_dir)[0] for shard in shards)
    for shard, settings in zip(shards[1:], others, strict=True):
        if settings != first:
            raise UserError(
                f"{shard.folder(output_dir)}: made with other settings or another model than shard "
                f"{shards[0]}; run it again as that one, without --resume"
            )
    return shards


def merge(output_dir: Path, shards: Sequence[Shard]) -> Merged:
    """The record of all shards together, written to the folder of the results.

    Args:
        output_dir: held by `only_writer`.
        shards: of `finished_shards`.
    """
    ends = [_end(shard, output_dir) for shard in shards]
    taxonomy = ends[0].taxonomy
    remove_summary(output_dir)
    lines = [_lines_of(shard, output_dir) for shard in shards]
    merged = [lines[0][0], *(line for own in lines for line in own[1:])]
    atomic_write(output_dir / RECORD_NAME, "".join(json.dumps(line) + "\n" for line in merged))
    record = Record(output_dir, lines[0][0]["settings"], True, taxonomy.num_classes)
    incomplete = {name: counts for end in ends for name, counts in end.incomplete.items()}
    record.finished.update(incomplete)
    names = sorted(name for end in ends for name in end.names)
    num_left_out = sum(end.num_left_out for end in ends)
    return Merged(record, names, taxonomy, num_left_out, len(incomplete))


def _lines_of(shard: Shard, output_dir: Path) -> list[dict[str, Any]]:
    """Of the record of a shard that came to its end: settings, then images."""
    end = _end(shard, output_dir)
    path = shard.folder(output_dir) / RECORD_NAME
    lines = lines_of(path)
    seen = {line["name"] for line in lines[1:]}.union(end.incomplete)
    num_due = len(end.names) - end.num_left_out
    if not lines or "settings" not in lines[0] or len(seen.intersection(end.names)) < num_due:
        raise UserError(f"{path}: is damaged; run shard {shard} with --resume")
    return lines


def _end(shard: Shard, output_dir: Path) -> End:
    folder = shard.folder(output_dir)
    if is_written_to(folder):
        raise UserError(f"{folder}: shard {shard} is still in work; wait for its end")
    path = folder / DONE_NAME
    if not is_regular_file(path):
        raise UserError(f"{folder}: shard {shard} did not come to its end; run it with --resume")
    try:
        return End.from_json(json.loads(read_small_file(path, LARGEST_DONE)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(f"{path}: is damaged; run shard {shard} with --resume") from None


def _shards(output_dir: Path) -> list[Shard]:
    found = (_FOLDER.fullmatch(path.name) for path in (output_dir / SHARDS_NAME).glob("*-of-*"))
    return [Shard(int(one[1]), int(one[2])) for one in found if one is not None]
