"""A sample whose file cannot be used: the run stops, or another sample takes its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from t2sda.config import SCHEMA, Field
from t2sda.data.samplers import sample_generator
from t2sda.data.taxonomies import LabelIdError
from t2sda.errors import MissingFileError, UnreadableFileError, UserError

SCHEMA.declare(
    "DATA",
    {
        "ON_ERROR": Field(
            "stop",
            "what to do about a file that is damaged, missing or holds unknown label ids: `stop` "
            "with its name, or `skip` it: another sample, drawn from the seed and the position, "
            "takes its place, and it is reported and counted",
            choices=("stop", "skip"),
        )
    },
)

REPLACEMENT_TRIES = 10
"""How many samples in a row may be unusable before the run stops under `skip` as well."""

UNUSABLE = (UnreadableFileError, MissingFileError, LabelIdError)
"""What a file is to blame for, and not a setting."""

Made = TypeVar("Made")


class Replacements:
    """Finds a usable sample for every position; the same one for any number of workers.

    Args:
        on_error: "stop" or "skip".
        seed: of the run.
    """

    def __init__(self, on_error: str, seed: int) -> None:
        self.on_error = on_error
        self.seed = seed

    def usable(
        self, position: int, domain: str, num_images: int, make: Callable[[int], Made]
    ) -> tuple[Made, tuple[str, ...]]:
        """What `make` makes of the position, or of the first usable one drawn in its place.

        Args:
            position: global sample position.
            domain: "source" or "target", which draw their replacements independently.
            num_images: of the domain; replacements are drawn from one epoch.
            make: from the position at which an image is drawn to the sample.
        Returns:
            What was made, and the messages of the files that were skipped on the way.
        Raises:
            UserError: of the first file under "stop"; after REPLACEMENT_TRIES files under "skip".
        """
        skipped: list[str] = []
        drawn_at = position
        while True:
            try:
                return make(drawn_at), tuple(skipped)
            except UNUSABLE as error:
                if self.on_error == "stop":
                    raise
                skipped.append(str(error))
            if len(skipped) > REPLACEMENT_TRIES:
                raise UserError(
                    f"DATA.ON_ERROR skip: {len(skipped)} {domain} samples in a row cannot be used, "
                    f"the last because of {skipped[-1]}"
                )
            generator = sample_generator(
                self.seed, position, f"{domain} replacement {len(skipped)}"
            )
            drawn_at = int(generator.integers(num_images))
