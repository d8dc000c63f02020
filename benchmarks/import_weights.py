"""What importing a published MiT-B5 checkpoint costs: seconds, and memory beside its size.

`python -m benchmarks.import_weights`. Random weights under the published names; the student alone
as such checkpoints are published, and a whole one with teacher, ImageNet network and optimizer.
Each import is a process of its own; memory is the peak of the process, Python and torch included.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2sda.config import load_config
from t2sda.modeling.segmentor import build_segmentation_model

CONFIG = "models/daformer_mit_b5.yaml"
MIB = 1 << 20
_IMPORT = """
import sys, time
start = time.perf_counter()
import t2sda.builtin
from t2sda.cli.main import main
imported = time.perf_counter()
code = main(["weights", "import", sys.argv[1], "--output", sys.argv[2]])
print(f"{imported - start} {time.perf_counter() - imported}", file=sys.stderr)
sys.exit(code)
"""


def main() -> None:
    """Print a table."""
    print("| checkpoint | MiB | s, Python's imports | s, the rest | peak MiB | peak / size |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("student", _student()), ("whole", _whole())):
            path = Path(folder) / f"{name}.pth"
            torch.save(content, path)
            size = path.stat().st_size / MIB
            starting, rest, peak = _measured(path, Path(folder) / "imported.pth")
            print(
                f"| {name} | {size:.0f} | {starting:.1f} | {rest:.1f} | {peak:.0f} "
                f"| {peak / size:.2f} |"
            )


def _measured(path: Path, output: Path) -> tuple[float, float, float]:
    """Seconds of imports and of the rest, and peak memory in MiB."""
    with subprocess.Popen(
        [sys.executable, "-c", _IMPORT, str(path), str(output)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = process.stderr.read().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit("\n".join(lines))
    starting, rest = map(float, lines[-1].split())
    return starting, rest, usage.ru_maxrss / 1024


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
