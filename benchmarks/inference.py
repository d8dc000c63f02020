"""Inference of one image on a CPU, beside Hugging Face's eager float32 with the same weights.

From a uint8 image to its full-size uint8 labels, batch 1. The peer is `transformers`'
SegFormer-B0 with the weights of our checkpoint, under the same allocator settings: set them before
Python starts, to what FAST_MALLOC in the Makefile holds (they halve the peer's time); what is not
set is printed.
Exports are made in the output folder where they are not there yet. The share of the peak is that of
a float32 matrix product of PyTorch's, measured in the same run, that the operations of the network
(multiply and add count as two, attention included) need in the measured time; above 1 where a
runtime computes in bf16 or int8.

    python benchmarks/inference.py --run runs/segformer_b0 --calibration camvid_train
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ratios import Ratio, add_ratios_argument, save_ratios
from t2sda.cli.benchmark import load_candidate, table_of
from t2sda.cli.common import load_components, run_command
from t2sda.cli.export import command as export
from t2sda.config import load_config
from t2sda.data.catalog import open_dataset
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.data.transforms import resize_image
from t2sda.engine.metrics import standard_console
from t2sda.evaluation.evaluator import evaluate
from t2sda.export.latency import Candidate, Comparison, Segment, Task, compare_latency
from t2sda.export.onnx import export_onnx
from t2sda.export.openvino import export_openvino
from t2sda.export.verify import TOLERANCES, street_images
from t2sda.images import read_image
from t2sda.inference.sources import find_sources
from t2sda.modeling.segmentor import SegmentationModel, build_segmentation_model
from t2sda.runtime.checkpoints import model_of_checkpoint, open_checkpoint
from t2sda.runtime.loading import load_model

MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
OTHERS = {"DAFormer, MiT-B5": "daformer_mit_b5", "DeepLabV2, ResNet-101": "deeplabv2_r101"}
"""Timed with random weights: their speed does not depend on them."""
LEAST, LEAST_AMX, LEAST_ONNX = 2.5, 7.5, 2.0
"""How many times as fast as the peer: the best file without and with AMX, float32 ONNX."""
UNTRAINED = {"fp32": TOLERANCES["fp32"], "bf16": TOLERANCES["bf16"]._replace(changed=1.0)}
"""Random weights hardly prefer one class to another, so bf16 rounding may change any label."""


def main(argv: list[str] | None = None) -> int:
    """Export, time, compare, print."""
    args = _parser().parse_args(argv)
    load_components([])
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    size = (args.size[0], args.size[1])
    files = exports(args, output, size)
    task = Task(size, 1)
    candidates = [
        Candidate(
            "SegFormer-B0", partial(load_peer, args.run), "transformers", args.threads, (task,)
        ),
        *(_contender(path, runtime, args.threads, task) for path, runtime in files),
    ]
    _say_conditions(args)
    comparison = compare_latency(candidates, args.rounds)
    console = standard_console()
    console.print(table_of(comparison))
    console.print(f"other processes kept {comparison.other_load:.2f} cores busy", highlight=False)
    print_changed(args, files)
    save_ratios(args.ratios, ratios_of(comparison))
    model = model_of_checkpoint(open_checkpoint(Path(args.run)))
    peak = matmul_peak(args.threads)
    print(f"float32 matrix product: {peak / 1e9:.0f} GFLOP/s on {args.threads} threads")
    operations = operations_of(model, size)
    print(f"SegFormer-B0: {operations / 1e9:.1f} GFLOP an image")
    for result in comparison.results:
        share = operations / (result.percentile(50) / 1000) / peak
        print(f"{result.candidate.name}, {result.candidate.runtime}: {share:.2f} of it")
    if args.evaluate:
        print_scores(args, files)
    if args.others:
        print_others(args, output, task, peak)
    return 0


def ratios_of(comparison: Comparison) -> list[Ratio]:
    """How many times as fast as the peer, which comes first, the files are."""
    peer, *others = comparison.results
    of_peer = peer.percentile(50)
    found = []
    for result in others:
        own, name = result.percentile(50), result.candidate.name
        what = f"inference beside Hugging Face, {Path(name).name} in {result.candidate.runtime}"
        detail = f"{own:.0f} ms, Hugging Face {of_peer:.0f} ms"
        target = LEAST_ONNX if Path(name).name == "fp32.onnx" else None
        found.append(Ratio(f"{what}: times as fast", of_peer / own, detail, at_least=target))
    best = max(found[1:], key=lambda ratio: ratio.value)  # the first is no file: the run itself
    target = LEAST_AMX if "amx_tile" in Path("/proc/cpuinfo").read_text() else LEAST
    what = "inference, best file beside Hugging Face: times as fast"
    return [Ratio(what, best.value, best.what, at_least=target), *found]


def exports(
    args: argparse.Namespace, output: Path, size: tuple[int, int]
) -> list[tuple[Path, str]]:
    """(file, runtime) of everything that is timed; files that are missing are made."""
    run, sides = args.run, ("--size", str(size[0]), str(size[1]))
    onnx = output / "fp32.onnx"
    calibration = ("--calibration", args.calibration, "--num-calibration", "12")
    wanted: dict[Path, tuple[str, ...]] = {
        onnx: ("onnx", run, *sides),
        output / "fp16.onnx": ("onnx", run, *sides, "--precision", "fp16"),
        output / "ov_fp32.xml": ("openvino", str(onnx)),
        output / "ov_bf16.xml": ("openvino", str(onnx), "--precision", "bf16"),
    }
    if args.calibration:
        int8 = output / "int8.onnx"
        wanted[int8] = ("onnx", run, *sides, "--precision", "int8", *calibration)
        wanted[output / "ov_int8.xml"] = ("openvino", str(int8), "--precision", "int8")
    for path, words in wanted.items():
        if not path.exists() and run_command(export, [*words, "--output", str(path)]):
            raise SystemExit(2)
    named = [(path, "openvino" if path.suffix == ".xml" else "onnxruntime") for path in wanted]
    return [(Path(run), "torch"), *named]


def _contender(path: Path, runtime: str, threads: int, task: Task) -> Candidate:
    load = partial(load_candidate, str(path), runtime, "cpu", threads, None, ())
    return Candidate(path.name, load, runtime, threads, (task,))


def load_peer(run: str) -> Segment:
    """Hugging Face's SegFormer with our weights, as its users call it: eager, float32."""
    load_components([])
    model = model_of_checkpoint(open_checkpoint(Path(run)))
    peer = peer_of(model)

    @torch.inference_mode()
    def segment(images: list[np.ndarray]) -> object:
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
        logits = peer((batch - model.pixel_mean) / model.pixel_std).logits
        logits = torch.nn.functional.interpolate(
            logits, batch.shape[-2:], mode="bilinear", align_corners=False
        )
        return logits.argmax(dim=1).to(torch.uint8).numpy()

    street = street_images((1, 128, 256), 0)
    expected = model(torch.from_numpy(street).permute(0, 3, 1, 2)).argmax(dim=1)
    same = torch.from_numpy(np.asarray(segment([street[0]]))) == expected
    assert same.float().mean() > 0.999, "the peer has other weights than ours"
    return segment


def print_changed(args: argparse.Namespace, files: list[tuple[Path, str]]) -> None:
    """Share of pixels with another label than the checkpoint's, on the images asked for."""
    size = (args.size[0], args.size[1])  # of the files: another would compare resizing as well
    found = find_sources(args.images, Path(os.devnull))
    images = [resize_image(read_image(item.path), size) for item in found.sources]
    reference = load_model(args.run)
    expected = [reference.predict(image) for image in images]
    for path, runtime in files[1:]:
        model = load_model(path, runtime)
        shares = [
            float((model.predict(image) != labels).mean())
            for image, labels in zip(images, expected, strict=True)
        ]
        print(f"{path.name}: {100 * statistics.mean(shares):.3f} % other labels than PyTorch's")


def print_scores(args: argparse.Namespace, files: list[tuple[Path, str]]) -> None:
    """MIoU on a labelled set, and size on the disk, of everything that is timed."""
    dataset = open_dataset(args.evaluate)
    for path, runtime in files:
        model = load_model(path, runtime, threads=args.threads)
        score = evaluate(model, dataset).reported.mean_iou
        print(f"{path.name}, {runtime}: mIoU {100 * score:.2f}, {size_of(path) / 1e6:.1f} MB")


def size_of(path: Path) -> int:
    """Bytes; of an IR with its weights, of a run the student's float32 weights."""
    if path.is_dir():
        model = model_of_checkpoint(open_checkpoint(path))
        return sum(4 * tensor.numel() for tensor in model.state_dict().values())
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if path.suffix == ".xml" else 0)


def operations_of(model: SegmentationModel, size: tuple[int, int]) -> float:
    """Floating-point operations of an image: a multiplication and an addition are two."""
    # Attention as plain products: the counter does not know the fused kernels of a CPU.
    with (
        torch.inference_mode(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        model(torch.zeros(1, 3, *size))
    return float(counter.get_total_flops())


def matmul_peak(threads: int, side: int = 4096) -> float:
    """FLOP/s of a float32 matrix product, the best of five."""
    torch.set_num_threads(threads)
    left, right = torch.rand(side, side), torch.rand(side, side)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - began)
    return 2 * side**3 / min(times)


def print_others(args: argparse.Namespace, output: Path, task: Task, peak: float) -> None:
    """The large networks: float32 in PyTorch and ONNX Runtime, float32 and bf16 in OpenVINO."""
    for title, config in OTHERS.items():
        model = untrained(config)
        files = other_files(model, config, output, task.size)
        candidates = [
            Candidate(title, partial(load_untrained, config), "torch", args.threads, (task,)),
            *(_contender(path, runtime, args.threads, task) for path, runtime in files),
        ]
        comparison = compare_latency(candidates, rounds=max(args.rounds // 5, 2), calls=1)
        standard_console().print(table_of(comparison))
        operations = operations_of(model, task.size)
        for result in comparison.results:
            share = operations / (result.percentile(50) / 1000) / peak
            print(f"{result.candidate.name}: {operations / 1e9:.0f} GFLOP, {share:.2f} of the peak")


def other_files(
    model: SegmentationModel, config: str, output: Path, size: tuple[int, int]
) -> list[tuple[Path, str]]:
    """(file, runtime), made where they are missing."""
    onnx = output / f"{config}_fp32.onnx"
    if not onnx.exists():
        export_onnx(model, CITYSCAPES_19, onnx, image_size=size)
    files = [(onnx, "onnxruntime")]
    for precision in ("fp32", "bf16"):
        path = output / f"{config}_ov_{precision}.xml"
        if not path.exists():
            export_openvino(onnx, path, precision=precision, tolerance=UNTRAINED[precision])
        files.append((path, "openvino"))
    return files


def untrained(config: str) -> SegmentationModel:
    """A shipped model with random weights, in evaluation mode."""
    torch.manual_seed(0)
    cfg = load_config(f"models/{config}.yaml", ["MODEL.BACKBONE.WEIGHTS", ""])
    return build_segmentation_model(cfg, CITYSCAPES_19.num_classes).eval()


def load_untrained(config: str) -> Segment:
    """Eager PyTorch."""
    load_components([])
    model = untrained(config)

    @torch.inference_mode()
    def segment(images: list[np.ndarray]) -> object:
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        return model(batch).argmax(dim=1).to(torch.uint8).numpy()

    return segment


def peer_of(model: SegmentationModel) -> Any:
    """Transformers' SegFormer-B0 with the weights of ours, strictly."""
    from t2sda.modeling.backbones.timm_import import import_timm

    import_timm()  # a torchvision that cannot be loaded keeps transformers from importing too
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    settings: dict[str, Any] = {"num_labels": model.num_classes, "decoder_hidden_size": 256}
    peer = SegformerForSemanticSegmentation(SegformerConfig(**settings))
    state: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("pixel_"):
            continue
        if ".attn.kv." in name:
            for part, half in zip(("k_proj", "v_proj"), tensor.chunk(2), strict=True):
                state[peer_name(name.replace("attn.kv", f"attention.{part}"))] = half
        else:
            state[peer_name(name)] = tensor
    peer.load_state_dict(state)
    return peer.eval()


def peer_name(name: str) -> str:
    """What transformers calls a tensor of ours."""
    for pattern, replacement in PEER_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


PEER_NAMES = (
    (r"^backbone\.(patch_embed|block|norm)(\d)", lambda m: _stage(m[1], int(m[2]))),
    (r"patch_embeddings\.norm", "patch_embeddings.layer_norm"),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"attn\.q\.", "attention.q_proj."),
    (r"attn\.proj\.", "attention.o_proj."),
    (r"attn\.sr\.", "attention.sequence_reduction.sequence_reduction."),
    (r"attn\.norm\.", "attention.sequence_reduction.layer_norm."),
    (r"^head\.linear_c", "decode_head.linear_projections"),
    (r"^head\.linear_fuse\.conv", "decode_head.linear_fuse"),
    (r"^head\.linear_fuse\.bn", "decode_head.batch_norm"),
    (r"^head\.linear_pred", "decode_head.classifier"),
)


def _stage(part: str, number: int) -> str:
    theirs = {"patch_embed": "patch_embeddings", "block": "blocks", "norm": "layer_norm"}
    return f"segformer.stages.{number - 1}.{theirs[part]}"


def _say_conditions(args: argparse.Namespace) -> None:
    missing = [name for name in MALLOC if name not in os.environ]
    print(f"{args.threads} threads, {args.size[0]}x{args.size[1]}, {args.rounds} rounds of 3 calls")
    print(f"allocator: {'glibc default; not set: ' + ', '.join(missing) if missing else 'tuned'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="of configs/streets_to_camvid/segformer_b0")
    parser.add_argument("--output", default="output/inference", help="folder for the exports")
    parser.add_argument("--calibration", help="dataset or folder; without it no int8 is timed")
    parser.add_argument("--evaluate", metavar="DATASET", help="labelled set to score all on")
    parser.add_argument("--images", default="docs/demo", help="to compare labels on")
    parser.add_argument("--size", nargs=2, type=int, default=[512, 1024])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--others", action="store_true", help="also the large networks")
    add_ratios_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
