"""The newest scores of one or more runs as Markdown tables, one for each dataset.

python benchmarks/results_table.py runs/source_only runs/t2sda
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

PREFIX = "evaluation/"


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    args = parser.parse_args()
    scores = {run.name: newest_scores(run) for run in args.runs}
    for dataset in dict.fromkeys(name for found in scores.values() for name in found):
        print(f"\n**{dataset}**, IoU in %\n\n{table(dataset, scores)}")
    return 0


def newest_scores(run: Path) -> dict[str, dict[str, float]]:
    """By dataset, then by class name or score; the last evaluation in the run's metrics."""
    scores: dict[str, dict[str, float]] = {}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        found = {key: value for key, value in json.loads(line).items() if key.startswith(PREFIX)}
        for key, value in found.items():
            dataset, _, name = key.removeprefix(PREFIX).partition("/")
            scores.setdefault(dataset, {})[name] = value
    return scores


def table(dataset: str, scores: dict[str, dict[str, dict[str, float]]]) -> str:
    """Classes in rows, runs in columns."""
    runs = [run for run in scores if dataset in scores[run]]
    classes = [name for name in scores[runs[0]][dataset] if name.startswith("IoU/")]
    lines = ["| class | " + " | ".join(runs) + " |", "| --- |" + " ---: |" * len(runs)]
    for name in [*classes, "mIoU", "accuracy"]:
        cells = " | ".join(f"{100 * scores[run][dataset][name]:.1f}" for run in runs)
        bold = "**" if name == "mIoU" else ""
        lines.append(f"| {bold}{name.removeprefix('IoU/')}{bold} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
