"""The page docs/results.md, from the results in benchmarks/results/.

    python -m benchmarks.results_page > docs/results.md
    python -m benchmarks.results_page photographs    # a benchmark's main rows alone, for README.md

`results_page.md` holds the text, with a place for each benchmark; `results/BENCHMARK.yaml` says
which rows a benchmark has, `results/BENCHMARK/*.json` are the runs (`collect_results` writes
them), and `results/BENCHMARK/analysis.json`, where it is there, is what `t2sda analyze` wrote about
them. Rows without a run are named as not run.
"""

from __future__ import annotations

import functools
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.result_statistics import (
    Blocks,
    Spread,
    class_iou,
    mean_iou,
    paired_difference,
    share_of_gap,
)
from benchmarks.stored_results import (
    FOLDER,
    ROOT,
    StoredResult,
    differences_to_now,
    read_results,
)
from t2sda.cli.common import load_components, run_command
from t2sda.errors import MissingFileError, UserError
from t2sda.training.sweep import Sweep, read_plugins, read_sweep

TEXT = Path(__file__).with_name("results_page.md")
PAPER = ROOT / "docs/reproducing.md"
NOTHING = "–"
SECONDS_OF_HOUR = 3600


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's rows and runs.

    Attributes:
        scored: its datasets, and how many images of each are drawn together.
        titles: of all rows, by the name of the run.
        paper: configuration of docs/reproducing.md, by the name of the run.
        main: names of the rows of the main table.
        source_only, baseline, method, oracle: names of the rows that others are compared with.
        runs: by name, in the order of the seeds.
        analysis: what `t2sda analyze` wrote; None: nothing.
    """

    scored: Blocks
    titles: Mapping[str, str]
    paper: Mapping[str, str]
    main: Sequence[str]
    source_only: str
    baseline: str
    method: str
    oracle: str | None
    runs: Mapping[str, Sequence[StoredResult]]
    analysis: Mapping[str, Any] | None

    @property
    def present(self) -> list[str]:
        """Names of the rows that have a run."""
        return [name for name in self.titles if name in self.runs]


def command(argv: Sequence[str]) -> int:
    """Print the page, or a benchmark's main rows; returns 0."""
    if len(argv) > 1:
        raise UserError("arguments: at most one is taken, the name of a benchmark")
    print(main_table(FOLDER / f"{argv[0]}.yaml") if argv else page().removesuffix("\n"))
    return 0


def page(folder: Path = FOLDER, text: str | None = None) -> str:
    """The text with each {BENCHMARK} replaced by its tables."""
    text = TEXT.read_text(encoding="utf-8") if text is None else text
    for path in sorted(folder.glob("*.yaml")):
        place = f"{{{path.stem}}}\n"
        if place not in text:
            raise UserError(f"{TEXT.name}: no line {{{path.stem}}}, so {path.name} is not shown")
        text = text.replace(place, tables(read_benchmark(path)))
    return text


def main_table(path: Path) -> str:
    """The main rows of a benchmark, without its classes; raises MissingFileError."""
    if not path.exists():
        raise MissingFileError(f"{path}: no such file; it lists the rows of a benchmark")
    benchmark = read_benchmark(path)
    scores = scores_of(benchmark)
    rows = [
        [
            benchmark.titles[name],
            str(scores[name].num_seeds),
            with_spread(scores[name]),
            difference(benchmark, name, benchmark.source_only),
            gap(benchmark, name),
        ]
        for name in benchmark.main
        if name in scores
    ]
    head = ["", "seeds", "mIoU", "less source only", "share of the gap"]
    return markdown(head, rows)


def scores_of(benchmark: Benchmark) -> dict[str, Spread]:
    """Mean IoU over the datasets and seeds, by the name of the run."""
    datasets = list(benchmark.scored)
    return {name: mean_iou(benchmark.runs[name], datasets) for name in benchmark.present}


def read_benchmark(path: Path) -> Benchmark:
    """A benchmark's rows and its runs.

    Raises:
        UserError: if there is a run that no row shows, or one without scores of a dataset.
    """
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    runs: dict[str, list[StoredResult]] = {}
    for result in read_results(path.with_suffix("")):
        runs.setdefault(result.name, []).append(result)
        missing = [name for name in given["scored"] if name not in result.scores]
        if result.name not in given["rows"] or missing:
            what = f"has no scores on {' '.join(missing)}" if missing else "is in no row"
            raise UserError(f"{path}: {path.stem}/{result.file_name} {what}")
    analysis = path.with_suffix("") / "analysis.json"
    rows = given["rows"].items()
    return Benchmark(
        scored=given["scored"],
        titles={name: row["title"] for name, row in rows},
        paper={name: row["paper"] for name, row in rows if "paper" in row},
        main=given["main"],
        source_only=given["source_only"],
        baseline=given["baseline"],
        method=given["method"],
        oracle=given.get("oracle"),
        runs=runs,
        analysis=json.loads(analysis.read_text("utf-8")) if analysis.exists() else None,
    )


def stale_results(folder: Path = FOLDER) -> list[str]:
    """A line for each result whose run is no longer what its sweep file says."""
    found = []
    sweep_of = functools.cache(_sweep)
    for path in sorted(folder.glob("*.yaml")):
        for result in read_results(path.with_suffix("")):
            try:
                reasons = differences_to_now(result, sweep_of(ROOT / result.sweep))
            except (MissingFileError, UserError) as error:
                reasons = [str(error)]
            found += [f"{path.stem}/{result.file_name}: {reason}" for reason in reasons]
    return found


def _sweep(file: Path) -> Sweep:
    load_components(read_plugins(file))
    return read_sweep(file)


def tables(benchmark: Benchmark) -> str:
    """All that is said of a benchmark's runs."""
    parts = [not_run(benchmark)]
    if benchmark.runs:
        parts += class_tables(benchmark)
        parts += [comparison(benchmark), paper_table(benchmark)]
        parts += [similarity_table(benchmark), caveats(benchmark), provenance(benchmark)]
    return "\n\n".join(filter(None, parts)) + "\n"


def class_tables(benchmark: Benchmark) -> list[str]:
    """IoU by class: of the mean of all datasets, then of each."""
    datasets = list(benchmark.scored)
    names = [name for name in benchmark.main if name in benchmark.runs]
    of_all = [("Mean of " + " and ".join(f"`{name}`" for name in datasets), datasets)]
    of_each = [(f"`{name}`", [name]) for name in datasets]
    return [
        f"**{title}**, IoU in %, mean ± standard deviation over seeds\n\n"
        + class_table(benchmark, names, chosen)
        for title, chosen in [*(of_all if len(datasets) > 1 else []), *of_each]
    ]


def class_table(benchmark: Benchmark, names: Sequence[str], datasets: Sequence[str]) -> str:
    """Classes in rows, methods in columns."""
    runs = [benchmark.runs[name] for name in names]
    classes = next(iter(benchmark.runs.values()))[0].scores[datasets[0]].iou
    rows = [[key, *(with_spread(class_iou(own, datasets, key)) for own in runs)] for key in classes]
    rows.append(["**mIoU**", *(with_spread(mean_iou(own, datasets)) for own in runs)])
    rows.append(["seeds", *(str(len(own)) for own in runs)])
    return markdown(["class", *(benchmark.titles[name] for name in names)], rows)


def comparison(benchmark: Benchmark) -> str:
    """Every row's mIoU, its differences with intervals, and its share of the gap."""
    others = [
        ("source only", benchmark.source_only),
        ("the baseline", benchmark.baseline),
        ("T2S-DA", benchmark.method),
    ]
    scores = scores_of(benchmark)
    rows = [
        [
            benchmark.titles[name],
            str(scores[name].num_seeds),
            with_spread(scores[name]),
            *(difference(benchmark, name, other) for _, other in others),
            gap(benchmark, name),
        ]
        for name in benchmark.present
    ]
    head = ["row", "seeds", "mIoU", *(f"less {title}" for title, _ in others), "share of the gap"]
    return (
        "**Differences** in points of mIoU"
        + (" (mean of the datasets)" if len(benchmark.scored) > 1 else "")
        + ", with the interval that 95 % of 10,000 paired resamples of blocks of images lie in; "
        "the gap is that from source only to the oracle\n\n" + markdown(head, rows)
    )


def difference(benchmark: Benchmark, name: str, other: str) -> str:
    """A row less another, with its interval and the seeds where they are fewer than the row's."""
    if name == other or other not in benchmark.runs:
        return NOTHING
    found = paired_difference(benchmark.runs[name], benchmark.runs[other], benchmark.scored)
    if found is None:
        return NOTHING
    low, high = (signed(value) for value in (found.low, found.high))
    num_seeds = len(benchmark.runs[name])
    few = "" if found.num_seeds == num_seeds else f"; {found.num_seeds} of {num_seeds} seeds"
    return f"{signed(found.value)} ({low} to {high}{few})"


def gap(benchmark: Benchmark, name: str) -> str:
    """How much of the way from source-only to the oracle a row goes."""
    ends = (benchmark.source_only, benchmark.oracle)
    if name in ends or not all(end in benchmark.runs for end in ends):
        return NOTHING
    assert benchmark.oracle is not None
    share = share_of_gap(
        benchmark.runs[name],
        benchmark.runs[benchmark.source_only],
        benchmark.runs[benchmark.oracle],
        list(benchmark.scored),
    )
    return NOTHING if math.isnan(share) else f"{share:.0%}".replace("-", "−")


def paper_table(benchmark: Benchmark) -> str:
    """The paper's rows beside ours: direction alone can be compared."""
    base = benchmark.baseline
    if base not in benchmark.runs or base not in benchmark.paper:
        return ""
    printed = paper_scores()
    rows = [
        [
            benchmark.titles[name],
            signed_or_nothing(_means_less(benchmark, name, base)),
            f"{printed[configuration]:.1f}",
            _less(printed[configuration], printed[benchmark.paper[base]]),
        ]
        for name, configuration in benchmark.paper.items()
        if name in benchmark.runs and name != base
    ]
    head = ["row", "here, less the baseline", "paper, mIoU", "paper, less its baseline"]
    title = (
        "**The paper's rows, for the direction only**: GTA5 to Cityscapes, other images, "
        "network and 40,000 steps"
    )
    return f"{title}\n\n{markdown(head, rows)}" if rows else ""


def paper_scores() -> dict[str, float]:
    """The first number that docs/reproducing.md gives for a configuration."""
    row = re.compile(r"^\| [^|]+ \| \[`([^`]+)`\][^|]+ \| (\d+\.\d)", re.MULTILINE)
    found: dict[str, float] = {}
    for configuration, number in row.findall(PAPER.read_text(encoding="utf-8")):
        found.setdefault(configuration, float(number))
    return found


def similarity_table(benchmark: Benchmark) -> str:
    """Cross-domain similarity of every class, as in Fig. 2 of the paper."""
    if benchmark.analysis is None:
        return ""
    runs = [run for run in benchmark.analysis["runs"] if "similarity" in run["per_class"]]
    columns = [run["per_class"]["similarity"] for run in runs]
    rows = [[key, *(fixed(own[key]) for own in columns)] for key in benchmark.analysis["classes"]]
    rows.append(["**mean**", *(fixed(run["mean"]["similarity"]) for run in runs)])
    domains = f"`{benchmark.analysis['source']}` and `{benchmark.analysis['target']}`"
    return (
        f"**Cross-domain similarity** of the features of every class, as in Fig. 2 of the paper, "
        f"between {domains}\n\n" + markdown(["class", *(run["name"] for run in runs)], rows)
    )


def caveats(benchmark: Benchmark) -> str:
    """What the numbers leave open, as far as it follows from them."""
    by_count: dict[int, list[str]] = {}
    for name in benchmark.present:
        by_count.setdefault(len(benchmark.runs[name]), []).append(benchmark.titles[name])
    lines = [
        "The intervals are about other stretches of the same recordings, with these seeds; "
        "standard deviations are about other seeds, on these images. Neither is about other places."
    ]
    if 1 in by_count:
        lines.append(f"One seed, so nothing is known of its spread: {'; '.join(by_count[1])}.")
    if 2 in by_count:
        lines.append(f"Two seeds, a poor estimate of the spread: {'; '.join(by_count[2])}.")
    if benchmark.oracle is None or benchmark.oracle not in benchmark.runs:
        lines.append("Without an oracle there is no gap to take a share of.")
    return "What cannot be concluded:\n\n" + "\n".join(f"- {line}" for line in lines)


def not_run(benchmark: Benchmark) -> str:
    """Rows that have no run."""
    names = [title for name, title in benchmark.titles.items() if name not in benchmark.runs]
    if len(names) == len(benchmark.titles):
        return "Not run yet."
    return f"Not run: {'; '.join(names)}." if names else ""


def provenance(benchmark: Benchmark) -> str:
    """Where every run comes from and what it cost."""
    rows = [
        [
            f"`{run.name}`",
            str(run.seed),
            f"`{run.config}`",
            str(run.iterations),
            f"{run.seconds / SECONDS_OF_HOUR:.1f}" + (" + killed" if run.killed else ""),
            NOTHING if run.peak_memory_mib is None else str(run.peak_memory_mib),
            run.machine.get("gpu") or f"{run.machine.get('processor')}",
            " ".join(f"`{commit[:9]}`" for commit in run.commits),
        ]
        for name in benchmark.present
        for run in benchmark.runs[name]
    ]
    head = ["run", "seed", "configuration", "steps", "hours", "memory (MiB)", "machine", "commit"]
    return f"<details><summary>Runs</summary>\n\n{markdown(head, rows)}\n\n</details>"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; all columns but the first are numbers."""
    lines = [" | ".join(row) for row in (head, *rows)]
    lines.insert(1, " | ".join(["---", *["---:"] * (len(head) - 1)]))
    return "\n".join(f"| {line} |" for line in lines)


def with_spread(value: Spread) -> str:
    """In %, with the standard deviation where there is one."""
    if math.isnan(value.mean):
        return NOTHING
    deviation = "" if math.isnan(value.deviation) else f" ± {100 * value.deviation:.1f}"
    return f"{100 * value.mean:.1f}{deviation}"


def signed(share: float) -> str:
    """Points, with their sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def signed_or_nothing(share: float | None) -> str:
    """Points, with their sign; a dash where there are none."""
    return NOTHING if share is None else signed(share)


def fixed(value: float | None) -> str:
    """Two decimals; a dash for what has no value."""
    return NOTHING if value is None else f"{value:.2f}"


def _less(value: float, other: float) -> str:
    return signed((value - other) / 100)


def _means_less(benchmark: Benchmark, name: str, other: str) -> float | None:
    """Of the seeds that both have."""
    found = paired_difference(benchmark.runs[name], benchmark.runs[other], benchmark.scored)
    return None if found is None else found.value


if __name__ == "__main__":
    sys.exit(run_command(command, sys.argv[1:]))
