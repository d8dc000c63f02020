"""`load_model`: one interface to a trained network, whatever file it is in.

from t2sda import load_model
model = load_model("student.onnx")
labels = model.predict("street.jpg")  # (H, W) uint8 train ids
"""

from __future__ import annotations

from pathlib import Path

from .description import Description
from .devices import check_device
from .opened import LoadOptions
from .predictor import PathLike, Predictor
from .runtimes import RUNTIMES, runtime_for


def load_model(
    path: PathLike,
    runtime: str | None = None,
    device: str | None = None,
    *,
    threads: int = 0,
    streams: int = 1,
    description: Description | None = None,
    branch: str | None = None,
) -> Predictor:
    """A trained network, ready to label images.

    Args:
        path: a checkpoint, a run's folder (its newest checkpoint), an ONNX file, an OpenVINO IR
            (`.xml`), a TensorRT engine (`.engine`), or what a runtime of your own runs.
        runtime: a name of RUNTIMES: "torch", "onnxruntime", "openvino", "tensorrt" or
            "tensorrt-rtx"; by default the one that the file is made for.
        device: "cpu", "cuda", "cuda:N" for a certain GPU, or "auto" for the GPU where there is one
            that works; what is asked for by name is used, or an error. By default engines run on
            "cuda", all else on "cpu".
        threads: of a CPU within one image; 0: one a core. For torch it is the whole process's.
        streams: calls from several threads that OpenVINO runs at the same time; the other
            runtimes run as many as come.
        description: of a file that `t2sda export` did not write.
        branch: "student" or "teacher"; by default the student of a checkpoint, and of an exported
            file the one that it holds.

    Raises:
        MissingFileError: if there is nothing at `path`.
        UserError: if it is none of these, is damaged or not as it was written, holds another
            branch, or the runtime or device does not fit or work.
    """
    path = Path(path)
    chosen = runtime_for(path, runtime)
    device = device or RUNTIMES[chosen].default_device
    check_device(device)
    options = LoadOptions(device, threads, streams, description or Description(), branch)
    return RUNTIMES[chosen].load(path, options, chosen)
