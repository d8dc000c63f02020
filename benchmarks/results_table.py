"""The newest scores of one or more runs as Markdown tables, one for each dataset.

python benchmarks/results_table.py runs/source_only runs/t2sda
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

PREFIX = "evaluation/"


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    args = parser.parse_args()
    names = titles(args.runs)
    scores = {name: newest_scores(run) for name, run in zip(names, args.runs, strict=True)}
    for dataset in dict.fromkeys(name for found in scores.values() for name in found):
        print(f"\n**{dataset}**, IoU in %\n\n{table(dataset, scores)}")
    return 0


def titles(runs: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell the runs apart: `a/run` and `b/run`."""
    paths = [run.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise SystemExit("error: one run is given twice")
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        names = [str(Path(*path.parts[-count:])) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def newest_scores(run: Path) -> dict[str, dict[str, float | None]]:
    """By dataset, then by class name or score; the last evaluation in the run's metrics."""
    scores: dict[str, dict[str, float | None]] = {}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        found = {key: value for key, value in json.loads(line).items() if key.startswith(PREFIX)}
        for key, value in found.items():
            dataset, _, name = key.removeprefix(PREFIX).partition("/")
            scores.setdefault(dataset, {})[name] = value
    return scores


def table(dataset: str, scores: dict[str, dict[str, dict[str, float | None]]]) -> str:
    """Classes in rows, runs in columns."""
    runs = [run for run in scores if dataset in scores[run]]
    found = list(dict.fromkeys(name for run in runs for name in scores[run][dataset]))
    classes = [name for name in found if name.startswith("IoU/")]
    others = [name for name in found if name not in (*classes, "mIoU")]  # mIoU16, accuracy, …
    lines = ["| class | " + " | ".join(runs) + " |", "| --- |" + " ---: |" * len(runs)]
    for name in [*classes, "mIoU", *others]:
        cells = " | ".join(percent(scores[run][dataset].get(name)) for run in runs)
        bold = "**" if name == "mIoU" else ""
        lines.append(f"| {bold}{name.removeprefix('IoU/')}{bold} | {cells} |")
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """A dash for what has no value: a class that is nowhere, a score that a run lacks."""
    return "–" if value is None else f"{100 * value:.1f}"


if __name__ == "__main__":
    sys.exit(main())
