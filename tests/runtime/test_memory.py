"""What runtimes say when memory is short."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from t2sda.errors import UserError
from t2sda.resources import is_out_of_memory
from t2sda.runtime.memory import TooLargeError, named_if_too_large


def raised_by(allocate: object) -> Exception:
    with pytest.raises(Exception) as error:  # noqa: PT011  (each library has its own)
        allocate()  # type: ignore[operator]
    return error.value


def test_errors_of_libraries_that_are_here() -> None:
    huge = 1 << 50
    for allocate in (
        lambda: np.empty(huge, np.uint8),
        lambda: torch.empty(huge, dtype=torch.uint8),
        lambda: cv2.copyMakeBorder(
            np.zeros((1, 1), np.uint8), 0, (1 << 31) - 2, 0, (1 << 31) - 2, cv2.BORDER_REPLICATE
        ),
    ):
        assert is_out_of_memory(raised_by(allocate))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        UserError("OpenVINO cannot run images of shape (1, 5000, 5000, 3): std::bad_alloc"),
        UserError(
            "ONNX Runtime cannot run images of shape (1, 2000, 2000, 3): [ONNXRuntimeError] : 1 "
            ": FAIL : Non-zero status code returned while running Conv node. Status Message: "
            "Failed to allocate memory for requested buffer of size 64000000"
        ),
    ],
)
def test_errors_as_they_were_seen(error: Exception) -> None:
    with (
        pytest.raises(TooLargeError, match="a.png: needs more memory than there is; use less"),
        named_if_too_large("a.png", "use less"),
    ):
        raise error


def test_other_errors_stay() -> None:
    error = RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")
    with pytest.raises(RuntimeError) as found, named_if_too_large("a.png", "use less"):
        raise error
    assert found.value is error
