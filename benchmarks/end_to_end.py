"""From street images of 1024 x 2048 to label files on the disk, beside a loop over transformers.

    make bench    # or, with FAST_MALLOC of the Makefile set:
    python -m benchmarks.end_to_end [--only b0 lite0 b5 hrda] [--rounds 3]

Decoding, copies, network and writing of one image after another on all cores, and images a second
overlapped, as `t2sda benchmark --end-to-end` prints them: SegFormer-B0, efficientnet-lite0 with the
light head and MiT-B5 see the image whole; B0 and B5 also slide, windows of 1024 x 1024 in steps of
512, as HRDA does by itself. The peer opens, prepares, segments and saves one image after another,
as transformers' documentation does, with SegFormer-B0 of the same size. Weights are random: speed
does not depend on them. Exports are made in the output folder where they are not there yet.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.inference import UNTRAINED, peer_of
from benchmarks.ratios import Ratio, add_ratios_argument, save_ratios
from t2sda.cli.benchmark_files import load_job, table_of
from t2sda.cli.common import ArgumentParser, load_components, run_command
from t2sda.config import load_config
from t2sda.data.parallel import num_cores
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.engine.metrics import standard_console
from t2sda.export.end_to_end import Breakdown, Job, Load, break_down, street_files
from t2sda.export.onnx import export_onnx
from t2sda.export.openvino import export_openvino
from t2sda.modeling.segmentor import SegmentationModel, build_segmentation_model
from t2sda.runtime.loading import load_model
from t2sda.runtime.predictor import FilePredictor, Predictor

SIZE = (1024, 2048)
WINDOW, STEP = (1024, 1024), (512, 512)
NETWORKS = {
    "b0": ("segformer_mit_b0", "SegmentationModel"),
    "lite0": ("light", "SegmentationModel"),
    "b5": ("segformer_mit_b5", "SegmentationModel"),
    "hrda": ("segformer_mit_b0", "HRDA"),
}
"""Of `configs/models`, and `MODEL.NAME`. HRDA is B0's: with B5 it takes some 4 TFLOP an image."""
WHOLE, SLIDING = ("b0", "lite0", "b5"), ("b0", "b5", "hrda")
"""Two whole images at once in ONNX Runtime take B5 21 GB; by windows its authors evaluate it."""
NUM_FILES = 4
LEAST = 2.0
"""Times as many images a second as the peer."""


def command(argv: Sequence[str]) -> int:
    """Export, measure, print; returns 0."""
    args = _parser().parse_args(argv)
    load_components([])
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        files = street_files(Path(folder), SIZE, NUM_FILES)
        for name in args.only:
            found += [break_down(job) for job in jobs(name, output, files, args.rounds)]
        peer = peer_seconds(files, args.rounds) if "b0" in args.only else None
    standard_console().print(table_of(found))
    print(f"other processes kept up to {max(one.other_load for one in found):.2f} cores busy")
    if peer is not None:
        print(f"transformers, one image after another: {1 / peer:.2f} images a second")
        save_ratios(args.ratios, ratios_of(found, peer))
    return 0


def jobs(name: str, output: Path, files: tuple[Path, ...], rounds: int) -> list[Job]:
    """A network on whole images and by windows, in ONNX Runtime and OpenVINO, also in bfloat16."""
    cores, model = num_cores(), untrained(name)
    made: list[Job] = []

    def add(path: Path, runtime: str, load: Load, suffix: str = "") -> None:
        made.append(Job(path.name + suffix, load, runtime, files, rounds, cores))

    if name in WHOLE:
        onnx = exported(model, output / f"{name}.onnx", SIZE, slides=False)
        if name != "b5":
            add(onnx, "onnxruntime", partial(load_job, str(onnx), "onnxruntime", "cpu", None, ()))
        for precision in ("fp32", "bf16"):
            xml = output / f"{name}_{precision}.xml"
            if not xml.exists():
                export_openvino(onnx, xml, precision=precision, tolerance=UNTRAINED[precision])
            add(xml, "openvino", partial(load_job, str(xml), "openvino", "cpu", None, ()))
    if name in SLIDING:
        window = exported(model, output / f"{name}_window.onnx", WINDOW, slides=True)
        add(window, "onnxruntime", partial(load_sliding, str(window)), ", sliding")
    return made


def exported(model: SegmentationModel, path: Path, size: tuple[int, int], *, slides: bool) -> Path:
    """A graph of one size, made where it is missing; of logits where windows are averaged."""
    if not path.exists():
        kind: Any = "logits" if slides else "labels"
        export_onnx(model, CITYSCAPES_19, path, image_size=size, output_kind=kind)
    return path


def load_sliding(path: str, threads: int, streams: int) -> Predictor:
    """A file of one window's logits, slid over the image."""
    load_components([])
    model = load_model(path, "onnxruntime", "cpu", threads=threads, streams=streams)
    assert isinstance(model, FilePredictor)
    metadata = dataclasses.replace(model.metadata, window_step=STEP)
    return FilePredictor(model.path, model.run, metadata, runtime="onnxruntime", max_batch_size=1)


def untrained(name: str) -> SegmentationModel:
    """One of `NETWORKS` with random weights, in evaluation mode."""
    torch.manual_seed(0)
    config, model = NETWORKS[name]
    path = Path(__file__).parents[1] / "configs" / "models" / f"{config}.yaml"
    cfg = load_config(str(path), ["MODEL.BACKBONE.WEIGHTS", "", "MODEL.NAME", model])
    return build_segmentation_model(cfg, CITYSCAPES_19.num_classes).eval()


def peer_seconds(files: Sequence[Path], rounds: int) -> float:
    """Seconds an image of the plain loop: Pillow, image processor, network, argmax, PNG."""
    peer = peer_of(untrained("b0"))
    from transformers import SegformerImageProcessor

    processor = SegformerImageProcessor(do_resize=False)
    torch.set_num_threads(num_cores())
    target = files[0].with_name("peer.png")
    seconds = []
    for _ in range(1 + rounds):
        for file in files:
            began = time.perf_counter()
            image = Image.open(file).convert("RGB")
            inputs = processor(images=image, return_tensors="pt")
            with torch.inference_mode():
                outputs = peer(**inputs)
            (labels,) = processor.post_process_semantic_segmentation(outputs, [image.size[::-1]])
            Image.fromarray(labels.numpy().astype(np.uint8)).save(target)
            seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[len(files) :]))


def ratios_of(found: Sequence[Breakdown], peer: float) -> list[Ratio]:
    """Images a second of B0, overlapped, beside the peer's."""
    ratios = []
    for one in found:
        if one.job.name.startswith("b0") and "sliding" not in one.job.name:
            what = f"file to labels on disk beside transformers, {one.job.name}: times as many"
            detail = f"{1 / one.overlapped:.2f} images a second, transformers {1 / peer:.2f}"
            target = LEAST if one.job.name == "b0.onnx" else None
            ratios.append(Ratio(what, peer / one.overlapped, detail, at_least=target))
    return ratios


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(prog="benchmarks.end_to_end", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", default="output/bench/end_to_end", metavar="DIR")
    add_ratios_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(command, sys.argv[1:]))
