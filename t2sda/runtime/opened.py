"""A file as a runtime has opened it: what every runtime hands over, and what it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from .description import Description, Signature

Runner = Callable[[np.ndarray], np.ndarray]
"""A batch of images as the graph takes them -> one output; safe from several threads."""


@dataclass(frozen=True)
class LoadOptions:
    """How a file is opened; see `load_model`."""

    device: str = "cpu"
    threads: int = 0
    streams: int = 1
    description: Description = field(default_factory=Description)
    branch: str | None = None


@dataclass(frozen=True)
class OpenedFile:
    """A graph that is ready to run.

    Attributes:
        run: batches through it.
        properties: the metadata that lies in or beside the file, as text by key.
        signature: of its input and the output that counts; None where the runtime cannot say.
        max_batch_size: most images it takes at once; None: any number.
    """

    run: Runner
    properties: Mapping[str, str]
    signature: Signature | None = None
    max_batch_size: int | None = None
