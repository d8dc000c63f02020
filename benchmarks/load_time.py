"""What `load_model` of an exported file costs before its first label: imports and seconds.

    python -m benchmarks.load_time student.onnx [student.xml ...]

Each file is loaded in fresh processes; seconds are medians. The CPU's hold the start of Python.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.ratios import Ratio, add_ratios_argument, save_ratios

PROGRAM = """
import json, sys, time
began = time.perf_counter()
from t2sda import load_model
imported = time.perf_counter() - began
load_model(sys.argv[1])
loaded = time.perf_counter() - began
computed = time.process_time()
names = list(sys.modules)
heavy = "torch timm fvcore iopath rich matplotlib yaml onnx openvino onnxruntime".split()
print(json.dumps({
    "import s": imported,
    "import and load s": loaded,
    "CPU s": computed,
    "our modules": sum(name.split(".")[0] == "t2sda" for name in names),
    "modules": len(names),
    "heavy": [name for name in heavy if name in names],
}))
"""


def main() -> None:
    """One line a file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    add_ratios_argument(parser)
    args = parser.parse_args()
    rows = [{"file": path, **_measured(path, args.rounds)} for path in args.files]
    save_ratios(args.ratios, [_ratio(row) for row in rows])
    print(json.dumps(rows) if args.json else "\n".join(map(str, rows)))


def _ratio(row: dict[str, Any]) -> Ratio:
    detail = f"{row['our modules']} of our modules, {row['import and load s']:.2f} s wall"
    what = f"load_model of {Path(row['file']).name}"
    return Ratio(what, row["CPU s"], detail, unit="s of the CPU")


def _measured(path: str, rounds: int) -> dict[str, Any]:
    runs = [_load(path) for _ in range(rounds)]
    return {
        key: round(statistics.median(run[key] for run in runs), 3) if key.endswith(" s") else value
        for key, value in runs[0].items()
    }


def _load(path: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
