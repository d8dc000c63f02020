"""What a machine runs out of: memory, shared memory, open files; named, with what to change."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from t2sda.errors import UserError

_OUT_OF_MEMORY = (
    "out of memory",  # CUDA
    "can't alloc",  # PyTorch on a CPU, OpenVINO
    "not enough memory",  # PyTorch on Windows
    "alloc_failed",  # cuDNN, cuBLAS
    "broken promise",  # OpenVINO, where another thread was to build what this one needs
    "bad_alloc",  # OpenVINO, ONNX Runtime
    "failed to allocate",  # ONNX Runtime, OpenCV
    "cannot allocate memory",  # FFmpeg, the system
    "memoryerror",  # Python, NumPy: of a loader process torch passes on the text alone
    "could not create a memory object",  # oneDNN
    "could not create a primitive",  # oneDNN, of its scratch memory
)
_OUT_OF_FILES = ("too many open files", "items of ancdata")  # the latter where a file is received
_SHARED_MEMORY = ("</torch_", "shared memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a lack of memory is behind an error, which every library says in its own words."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)


def is_out_of_files(error: BaseException) -> bool:
    """Whether a process has as many files open as it may."""
    text = str(error).lower()
    number = error.errno if isinstance(error, OSError) else None
    return number in (errno.EMFILE, errno.ENFILE) or any(words in text for words in _OUT_OF_FILES)


def shortage(error: BaseException) -> str | None:
    """What training ran out of and what to change; None if something else is wrong."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[-1] if lines[0].startswith("Caught ") else lines[0]  # torch, of a loader process
    if is_out_of_files(error):
        return (
            f"too many open files ({text}); raise the limit (`ulimit -n 65536` before the run), or "
            f"set a smaller DATA.NUM_WORKERS"
        )
    if any(words in str(error).lower() for words in _SHARED_MEMORY):
        return (
            f"shared memory is full ({text}); enlarge /dev/shm (docker: --shm-size), or set a "
            f"smaller DATA.NUM_WORKERS"
        )
    if is_out_of_memory(error):
        return (
            f"not enough memory ({text}); set a smaller SOLVER.BATCH_SIZE or DATA.CROP_SIZE, a "
            f"larger SOLVER.ACCUMULATION, SOLVER.PRECISION bf16 on a GPU, or a smaller "
            f"DATA.NUM_WORKERS where the machine's own memory is short"
        )
    return None


@contextmanager
def named_shortages() -> Iterator[None]:
    """What runs out in the block becomes a UserError that says what to change."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        message = shortage(error)
        if message is None:
            raise
        raise UserError(message) from None
