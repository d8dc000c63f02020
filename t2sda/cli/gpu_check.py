"""`t2sda gpu-check`: does everything that needs a GPU work here? One Markdown report."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from t2sda.cli import env
from t2sda.cli.common import ArgumentParser, load_components
from t2sda.data.catalog import open_dataset
from t2sda.errors import UserError
from t2sda.files import check_writable_file
from t2sda.runtime.loading import load_model

CONFIG = "quickstart.yaml"
PRECISIONS = ("fp32", "bf16", "fp16")
SIZES = {"cuda": ("[256, 512]", 20), "cpu": ("[64, 96]", 3)}
"""Crop and iterations of the short trainings: a GPU's are long enough to be timed."""


class Row(NamedTuple):
    """One check."""

    what: str
    outcome: str  # "ok", "FAILED", "skipped"
    detail: str


class Skipped(Exception):  # noqa: N818 - an outcome, not an error
    """The check cannot be made here; the message says why."""


def command(argv: Sequence[str]) -> int:
    """Run every check, write the report; returns 1 if one failed, else 0."""
    args = build_parser().parse_args(argv)
    load_components([])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sections = {
            "Training": _training_checks(folder, device),
            "Deployment": _deployment_checks(folder),
        }
        rows = {title: [_checked(*check) for check in checks] for title, checks in sections.items()}
    report = _report(device, rows)
    path = Path(args.output)
    check_writable_file(path, "--output")
    path.write_text(report, encoding="utf-8")
    print(f"\n{report}\nwritten to {path}")
    failed = [row for checked in rows.values() for row in checked if row.outcome == "FAILED"]
    return 1 if failed else 0


def build_parser() -> ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda gpu-check",
        description="Short trainings in every precision, with and without torch.compile, peak "
        "memory, export, TensorRT and ONNX Runtime on the GPU, in one Markdown report. Without a "
        "GPU it runs what it can and says what it skipped.",
    )
    parser.add_argument("--output", default="output/gpu-check.md", metavar="FILE")
    return parser


Check = tuple[str, Callable[[], str]]


def _training_checks(folder: Path, device: str) -> list[Check]:
    checks: list[Check] = []
    for compiled in (False, True):
        for precision in PRECISIONS:
            name = f"T2S-DA, {precision}{', torch.compile' if compiled else ''}"
            run = folder / f"{precision}{'_compiled' if compiled else ''}"
            checks.append((name, functools.partial(_train, run, device, precision, compiled)))
    return checks


def _train(run: Path, device: str, precision: str, compiled: bool) -> str:
    """A short run in a process of its own, so that its peak memory is its own."""
    if compiled and device == "cpu":
        raise Skipped("no GPU: compiling for a CPU takes minutes and says nothing about a GPU")
    crop, iterations = SIZES[device]
    began = time.perf_counter()
    result = subprocess.run(
        [
            *(sys.executable, "-m", "t2sda.cli.gpu_check", "train", "--config-file", CONFIG),
            *("--output-dir", str(run), "DEVICE", device, "DATA.CROP_SIZE", crop),
            *("SOLVER.MAX_ITER", str(iterations), "SOLVER.PRECISION", precision),
            *("SOLVER.COMPILE", str(compiled).lower(), "EVALUATION.PERIOD", "0"),
            *("LOGGING.PERIOD", "1", "LOGGING.TENSORBOARD", "false"),
            *("MODEL.BACKBONE.WEIGHTS", "", "SOLVER.BATCH_SIZE", "2"),
        ],
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise UserError((result.stderr.strip().splitlines() or ["no message"])[-1])
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    metrics = [json.loads(line) for line in lines]
    pace = float(np.median([line["seconds_per_iteration"] for line in metrics[1:]]))
    memory = result.stdout.strip().splitlines()[-1]
    return (
        f"{1000 * pace:.0f} ms an iteration, {memory}, last loss_source "
        f"{metrics[-1]['loss_source']:.3f}, {time.perf_counter() - began:.0f} s in all"
    )


def _deployment_checks(folder: Path) -> list[Check]:
    onnx_path = folder / "student.onnx"
    return [
        ("ONNX export, verified", lambda: _export(folder / "fp32", onnx_path)),
        ("ONNX Runtime, CPU", lambda: _run_onnx(onnx_path, "cpu")),
        ("ONNX Runtime, CUDA", lambda: _run_onnx(onnx_path, "cuda")),
        ("TensorRT, build and run", lambda: _run_tensorrt(onnx_path, "tensorrt")),
        ("TensorRT-RTX, build and run", lambda: _run_tensorrt(onnx_path, "tensorrt-rtx")),
    ]


def _export(run: Path, onnx_path: Path) -> str:
    from t2sda.cli import export

    export.command(["onnx", str(run), "--output", str(onnx_path), "--size", "256", "512"])
    return f"{onnx_path.stat().st_size / 1e6:.1f} MB"


def _run_onnx(onnx_path: Path, device: str) -> str:
    _require_file(onnx_path)
    if device == "cuda" and not torch.cuda.is_available():
        raise Skipped("no GPU")
    model = load_model(onnx_path, device=device)
    image = _image()
    return f"{_milliseconds(lambda: model.predict(image)):.1f} ms an image of 256x512"


def _run_tensorrt(onnx_path: Path, target: str) -> str:
    from t2sda.export.engines import export_engine
    from t2sda.export.tensorrt import EngineSettings, import_tensorrt

    _require_file(onnx_path)
    try:
        version = import_tensorrt(target).__version__
    except UserError as error:
        raise Skipped(str(error)) from None
    if target == "tensorrt" and not torch.cuda.is_available():
        raise Skipped(f"{version} is installed, but there is no GPU to build for")
    exported = export_engine(
        onnx_path, onnx_path.with_name(f"{target}.engine"), EngineSettings(target=target)
    )
    built = f"{version}: parsed and built, {len(exported.built.content) / 1e6:.1f} MB"
    if exported.report is None:
        raise Skipped(f"{built}; not run: no GPU")
    model, image = load_model(exported.path, device="cuda"), _image()
    return (
        f"{built}; {_milliseconds(lambda: model.predict(image)):.1f} ms, "
        f"{exported.report.changed:.2%} changed pixels"
    )


def _image() -> np.ndarray:
    return open_dataset("streets_hazy_val").load(0, with_label=False).image


def _milliseconds(action: Callable[[], object], rounds: int = 10) -> float:
    action()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))


def _require_file(path: Path) -> None:
    if not path.exists():
        raise Skipped("the export before it failed")


def _checked(what: str, check: Callable[[], str]) -> Row:
    print(f"{what} …", flush=True)
    try:
        return Row(what, "ok", check())
    except Skipped as reason:
        return Row(what, "skipped", str(reason))
    except Exception as error:  # a report lists every failure instead of ending at the first
        return Row(what, "FAILED", (str(error).splitlines() or [type(error).__name__])[0])


def _report(device: str, sections: dict[str, list[Row]]) -> str:
    lines = ["# GPU check", "", f"Device: **{device}**", "", "## Environment", ""]
    lines += ["| what | | detail |", "| --- | --- | --- |"]
    for finding in env.findings():
        lines.append(_cells(finding.what, "works" if finding.works else "-", finding.detail))
    for title, rows in sections.items():
        lines += ["", f"## {title}", "", "| check | outcome | detail |", "| --- | --- | --- |"]
        lines += [_cells(*row) for row in rows]
    return "\n".join(lines) + "\n"


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _train_and_tell_memory(argv: Sequence[str]) -> int:
    """What the child process runs: a training, then its peak memory on the last line."""
    import resource

    from t2sda.cli.main import main

    code = main(argv)
    if torch.cuda.is_available():
        print(f"peak {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB of GPU memory")
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak {peak:.0f} MiB of resident memory")
    return code


if __name__ == "__main__":
    sys.exit(_train_and_tell_memory(sys.argv[1:]))
