"""What importing a published MiT-B5 checkpoint costs: seconds, and memory beside its size.

`python -m benchmarks.import_weights`. Random weights under the published names; the student alone
as such checkpoints are published, and a whole one with teacher, ImageNet network and optimizer.
Each import is a process of its own: time without the imports of Python, memory with all of them.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.ratios import Ratio, add_ratios_argument, save_ratios
from t2sda.config import load_config
from t2sda.modeling.segmentor import build_segmentation_model

CONFIG = "models/daformer_mit_b5.yaml"
MIB = 1 << 20
MEMORY, SECONDS = 2.2, 5.0
"""What an import may take, as a multiple of the file and in seconds."""
PROGRAM = """
import json, sys, time
import t2sda.builtin
from t2sda.cli.main import main
clocks = time.perf_counter, time.process_time
before = [clock() for clock in clocks]
code = main(["weights", "import", sys.argv[1], "--output", sys.argv[2]])
spent = [clock() - start for clock, start in zip(clocks, before)]
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([*spent, int(status["VmHWM"].split()[0]) / 1024]), file=sys.stderr)
sys.exit(code)
"""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_ratios_argument(parser)
    args = parser.parse_args()
    ratios = []
    print("| checkpoint | MiB | s | s of the CPU | peak MiB | peak / size |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("student", _student()), ("whole", _whole())):
            path = Path(folder) / f"{name}.pth"
            torch.save(content, path)
            size = path.stat().st_size / MIB
            wall, cpu, peak = _measured(path, Path(folder) / "imported.pth")
            print(
                f"| {name} | {size:.0f} | {wall:.1f} | {cpu:.1f} | {peak:.0f} | {peak / size:.2f} |"
            )
            what = f"import of a published MiT-B5, {name}"
            detail = f"{peak:.0f} MiB for {size:.0f} MiB"
            ratios += [
                Ratio(f"{what}: memory / size", peak / size, detail, at_most=MEMORY),
                Ratio(
                    f"{what}: s of the CPU", cpu, f"{wall:.1f} s wall", at_most=SECONDS, unit="s"
                ),
            ]
    save_ratios(args.ratios, ratios)


def _measured(path: Path, output: Path) -> list[float]:
    """Seconds, seconds of the CPU, and peak memory in MiB, after Python's imports."""
    arguments = [sys.executable, "-c", PROGRAM, str(path), str(output)]
    run = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return json.loads(run.stderr.splitlines()[-1])


def _student() -> dict[str, Any]:
    return {"meta": {"iter": 40000}, "state_dict": _network("model.")}


def _whole() -> dict[str, Any]:
    state = _network("model.") | _network("ema_model.") | _network("imnet_model.")
    moments = {
        number: {"step": 40000, "exp_avg": tensor.clone(), "exp_avg_sq": tensor.clone()}
        for number, tensor in enumerate(_network("model.").values())
    }
    return {"meta": {"iter": 40000}, "state_dict": state, "optimizer": {"state": moments}}


def _network(prefix: str) -> dict[str, Tensor]:
    cfg = load_config(CONFIG, ["MODEL.BACKBONE.WEIGHTS="])
    return {
        prefix + re.sub(r"^head\.", "decode_head.", name): tensor
        for name, tensor in build_segmentation_model(cfg, 19).state_dict().items()
        if not name.startswith("pixel_")
    }


if __name__ == "__main__":
    import t2sda.builtin  # noqa: F401  (fills the registries)

    main()
