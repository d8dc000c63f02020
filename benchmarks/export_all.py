"""Every shipped model at full size: exported, checked, run in two runtimes, built by TensorRT-RTX.

Random weights: what is asked is whether the files run and agree. Prints a Markdown table of
operators and times; the operators of the files are what docs/deployment.md lists.

    python benchmarks/export_all.py --size 512 1024
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import onnx
import torch

import t2sda.builtin  # noqa: F401  (fills the registries)
from t2sda.config import load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.export.onnx import OPSET, export_onnx
from t2sda.export.tensorrt import EngineSettings, build_engine
from t2sda.export.verify import street_images
from t2sda.modeling.segmentor import build_segmentation_model
from t2sda.runtime.loading import load_model

CONFIGS = Path(__file__).parents[1] / "configs" / "models"


def main() -> int:
    """Print a row for each, and the operators of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs=2, type=int, default=[512, 1024])
    parser.add_argument("--only", nargs="*", default=[], help="names of configurations")
    args = parser.parse_args()
    size = (args.size[0], args.size[1])
    operators: Counter[str] = Counter()
    print("| model | export s | MB | labels unlike ONNX Runtime's in OpenVINO | engine MB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for config in sorted(CONFIGS.glob("*.yaml")):
        if not args.only or config.stem in args.only:
            print(row_of(config, size, operators), flush=True)
    print(f"\nopset {OPSET}; operators: {', '.join(sorted(operators))}")
    return 0


def row_of(config: Path, size: tuple[int, int], operators: Counter[str]) -> str:
    """Export and run one; raises UserError where something does not agree."""
    torch.manual_seed(0)
    cfg = load_config(str(config), ["MODEL.BACKBONE.WEIGHTS", ""])
    model = build_segmentation_model(cfg, CITYSCAPES_19.num_classes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        began = time.perf_counter()
        export_onnx(model, CITYSCAPES_19, path, image_size=size)
        seconds = time.perf_counter() - began
        operators.update(node.op_type for node in onnx.load(path).graph.node)
        image = street_images((1, *size), 0)[0]
        labels = [load_model(path, runtime).predict(image) for runtime in (None, "openvino")]
        changed = float((labels[0] != labels[1]).mean())
        engine = build_engine(path, EngineSettings("tensorrt-rtx", precision="fp32"))
        return (
            f"| {config.stem} | {seconds:.0f} | {path.stat().st_size / 1e6:.1f} | "
            f"{100 * changed:.3f} % | {len(engine.content) / 1e6:.1f} |"
        )


if __name__ == "__main__":
    sys.exit(main())
