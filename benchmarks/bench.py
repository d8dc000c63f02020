"""All benchmarks with a peer or a target, as one table: a number, its target, whether it is met.

    make bench
    python -m benchmarks.bench --quick --only "pull loss" start-up

Each benchmark is a script of its own, and is run as one, one after the other, with one thread. What
it prints is kept beside the table, in `OUTPUT/NAME.log`. Those that need a model are left out, and
named, without one. `--quick` takes few rounds of small inputs: enough to see that everything runs,
too little to compare by. On a machine that does other work, times in seconds mean nothing, and
ratios little.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ratios import Ratio, read_ratios
from t2sda.cli.common import ArgumentParser, run_command
from t2sda.errors import UserError
from t2sda.files import atomic_write, json_text, make_writable_dir
from t2sda.training.record import commit

MODEL, RUN = "--model", "--run"
SMALL_CROP = ("DATA.CROP_SIZE", "[64, 64]")


@dataclass(frozen=True)
class Script:
    """A benchmark.

    Attributes:
        module: below `benchmarks`.
        usual, quick: its arguments.
        needs: an option of this script, handed on; the benchmark is left out without it.
    """

    module: str
    usual: Sequence[str] = ()
    quick: Sequence[str] = ()
    needs: str | None = None


def _steps(config: str, rounds: str, *overrides: str) -> list[str]:
    return ["--config-file", config, "--rounds", rounds, *overrides]


SCRIPTS: Mapping[str, Script] = {
    "start-up": Script("startup", quick=("--rounds", "1")),
    "pull loss": Script("pull_loss", ("--step-crop", "256"), ("--rounds", "3")),
    "step of T2S-DA": Script(
        "train_step",
        _steps("quickstart.yaml", "10"),
        _steps("quickstart.yaml", "3", *SMALL_CROP),
    ),
    "step of source only": Script(
        "train_step",
        _steps("quickstart_source_only.yaml", "10"),
        _steps("quickstart_source_only.yaml", "3", *SMALL_CROP),
    ),
    "cost model": Script(
        "scaling",
        ("--configs", "quickstart.yaml", "quickstart_source_only.yaml"),
        ("--rounds", "1"),
    ),
    "networks": Script("networks", quick=("--rounds", "1")),
    "scoring": Script("evaluation", quick=("--rounds", "1")),
    "loader": Script("loader", quick=("--images", "4", "--samples", "3", "--rounds", "1")),
    "decoders": Script("decoders", quick=("--rounds", "3")),
    "drawn streets": Script("streets", quick=("--num-images", "20")),
    "import of weights": Script("import_weights"),
    "file to labels": Script(  # b5 and hrda take an hour
        "end_to_end", ("--only", "b0", "lite0"), ("--only", "b0", "--rounds", "1")
    ),
    "load_model": Script("load_time", quick=("--rounds", "1"), needs=MODEL),
    "infer on a folder": Script("infer_cores", quick=("--images", "20"), needs=MODEL),
    "infer on a panorama": Script("infer_memory", quick=("--width", "4000"), needs=MODEL),
    "inference": Script("inference", quick=("--rounds", "2"), needs=RUN),
}
POSITIONAL = ("load_time",)
"""Takes its model without an option's name."""


def command(argv: Sequence[str]) -> int:
    """Run them; returns 1 if one failed, 0 if all ran, whether targets are met or not."""
    args = _parser().parse_args(argv)
    unknown = [name for name in args.only if name not in SCRIPTS]
    if unknown:
        raise UserError(f"--only: no benchmark {', '.join(unknown)}; known: {', '.join(SCRIPTS)}")
    given = {MODEL: args.model, RUN: args.run}
    make_writable_dir(args.output, "--output")
    results: dict[str, list[Ratio] | str] = {}
    for name in args.only or SCRIPTS:
        script = SCRIPTS[name]
        if script.needs and given[script.needs] is None:
            results[name] = f"not run: give {script.needs}"
            continue
        print(f"{name} …", file=sys.stderr, flush=True)
        results[name] = measured(name, script, given, args.output, quick=args.quick)
    text = table(results, quick=args.quick)
    atomic_write(args.output / "bench.md", text)
    atomic_write(args.output / "bench.json", as_json(results, quick=args.quick))
    print(text, end="")
    return int(any(isinstance(each, str) and "failed" in each for each in results.values()))


def measured(
    name: str, script: Script, given: Mapping[str, str | None], output: Path, *, quick: bool
) -> list[Ratio] | str:
    """What a script measured, or what became of it instead."""
    stem = name.replace(" ", "_")
    ratios, log = output / f"{stem}.json", output / f"{stem}.log"
    ratios.unlink(missing_ok=True)
    words = [sys.executable, "-m", f"benchmarks.{script.module}", "--ratios", str(ratios)]
    if script.needs:
        words += [] if script.module in POSITIONAL else [script.needs]
        words.append(str(given[script.needs]))
    began = time.perf_counter()
    with log.open("w", encoding="utf-8") as lines:
        done = subprocess.run(
            [*words, *(script.quick if quick else script.usual)],
            stdout=lines,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": "1", **os.environ},
            check=False,
        )
    print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    if done.returncode:
        return f"failed, see {log}"
    try:
        return read_ratios(ratios)
    except (OSError, ValueError, TypeError):
        return f"failed: it left no ratios in {ratios}, see {log}"


def table(results: Mapping[str, list[Ratio] | str], *, quick: bool) -> str:
    """Markdown; a line for each ratio, and one for each benchmark that has none."""
    lines = [
        f"{'Quick look, not to compare by: ' if quick else ''}{conditions()}",
        "",
        "| what | value | target | met | figures |",
        "| --- | ---: | ---: | --- | --- |",
    ]
    for name, ratios in results.items():
        if isinstance(ratios, str):
            lines.append(f"| {name} | | | | {ratios} |")
            continue
        lines += [
            f"| {each.what} | {each.value:.2f} {each.unit} | {each.target} | {met(each)} "
            f"| {each.detail} |"
            for each in ratios
        ]
    counted = [each.met for own in results.values() if not isinstance(own, str) for each in own]
    met_count, missed = counted.count(True), counted.count(False)
    return "\n".join([*lines, "", f"{met_count} targets met, {missed} missed."]) + "\n"


def met(ratio: Ratio) -> str:
    """Empty without a target."""
    return {None: "", True: "yes", False: "**no**"}[ratio.met]


def as_json(results: Mapping[str, list[Ratio] | str], *, quick: bool) -> str:
    """The same for programs."""
    benchmarks = {
        name: own
        if isinstance(own, str)
        else [{**dataclasses.asdict(each), "met": each.met} for each in own]
        for name, own in results.items()
    }
    content = {"quick": quick, "conditions": conditions(), "benchmarks": benchmarks}
    return json_text(content, indent=1) + "\n"


def conditions() -> str:
    """Commit, machine and its load."""
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[1]
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    return (
        f"commit {(commit() or 'unknown')[:9]}, {platform.machine()}, {cores} cores, "
        f"{threads} thread(s), load of the last five minutes {load:.1f}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(prog="python -m benchmarks.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, small inputs")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="of the benchmarks")
    parser.add_argument("--output", type=Path, default=Path("output/bench"), metavar="FOLDER")
    parser.add_argument(MODEL, metavar="FILE", help="exported file, as of make quickstart")
    parser.add_argument(RUN, metavar="FOLDER", help="of streets_to_camvid/segformer_b0.yaml")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(command, sys.argv[1:]))
