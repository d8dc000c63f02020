"""Images that need more memory than there is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from t2sda.errors import UserError
from t2sda.resources import is_out_of_memory


class TooLargeError(UserError):
    """An image or video needs more memory than there is; others may need less."""


@contextmanager
def named_if_too_large(name: object, advice: str) -> Iterator[None]:
    """A lack of memory in the block becomes a TooLargeError of `name`, with advice what to do."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TooLargeError(f"{name}: needs more memory than there is; {advice}") from None
