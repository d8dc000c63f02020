"""Pictures that need more memory than there is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from t2sda.errors import UserError

_SAID = (
    "out of memory",  # CUDA
    "can't alloc",  # PyTorch on a CPU, OpenVINO
    "not enough memory",  # PyTorch on Windows
    "alloc_failed",  # cuDNN, cuBLAS
    "broken promise",  # OpenVINO, where another thread was to build what this one needs
    "bad_alloc",  # OpenVINO, ONNX Runtime
    "failed to allocate",  # ONNX Runtime, OpenCV
    "cannot allocate memory",  # FFmpeg, the system
    "could not create a memory object",  # oneDNN
    "could not create a primitive",  # oneDNN, of its scratch memory
)


class TooLargeError(UserError):
    """A picture or video needs more memory than there is; others may need less."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a lack of memory is behind an error, which every library says in its own words."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _SAID)


@contextmanager
def named_if_too_large(name: object, advice: str) -> Iterator[None]:
    """A lack of memory in the block becomes a TooLargeError of `name`, with advice what to do."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TooLargeError(f"{name}: needs more memory than there is; {advice}") from None
