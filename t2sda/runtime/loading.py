"""`load_model`: one interface to a trained network, whatever file it is in.

from t2sda import load_model
model = load_model("student.onnx")
labels = model.predict("street.jpg")  # (H, W) uint8 train ids
"""

from __future__ import annotations

from pathlib import Path

from t2sda.errors import UserError

from .description import Description
from .opened import LoadOptions
from .predictor import PathLike, Predictor
from .runtimes import RUNTIMES, runtime_for

DEVICES = ("auto", "cpu", "cuda")


def load_model(
    path: PathLike,
    runtime: str | None = None,
    device: str | None = None,
    *,
    threads: int = 0,
    streams: int = 1,
    description: Description | None = None,
    branch: str = "student",
) -> Predictor:
    """A trained network, ready to label images.

    Args:
        path: a checkpoint, a run's folder (its newest checkpoint), an ONNX file, an OpenVINO IR
            (`.xml`), a TensorRT engine (`.engine`), or what a runtime of your own runs.
        runtime: a name of RUNTIMES: "torch", "onnxruntime", "openvino", "tensorrt" or
            "tensorrt-rtx"; by default the one that the file is made for.
        device: "cpu", "cuda", or "auto" for the GPU where there is one that works; what is asked
            for by name is used, or an error. By default engines run on "cuda", all else on "cpu".
        threads: of a CPU within one image; 0: one a core. For torch it is the whole process's.
        streams: calls from several threads that OpenVINO runs at the same time; the other
            runtimes run as many as come.
        description: of a file that `t2sda export` did not write.
        branch: "student" or "teacher", of a checkpoint.

    Raises:
        MissingFileError: if there is nothing at `path`.
        UserError: if it is none of these, is damaged or not as it was written, or the runtime or
            device does not fit or work.
    """
    path = Path(path)
    chosen = runtime_for(path, runtime)
    device = device or RUNTIMES[chosen].default_device
    if device not in DEVICES:
        raise UserError(f"device '{device}': unknown; one of {', '.join(DEVICES)}")
    options = LoadOptions(device, threads, streams, description or Description(), branch)
    return RUNTIMES[chosen].load(path, options, chosen)
