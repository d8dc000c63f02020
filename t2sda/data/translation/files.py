"""Source images that were translated beforehand: by CycleGAN, a diffusion model, or by hand."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from fvcore.common.config import CfgNode

from t2sda.config import SCHEMA, Field
from t2sda.data.transforms import Box
from t2sda.errors import MissingFileError, UserError
from t2sda.files import is_folder, is_missing, user_path
from t2sda.images import read_image
from t2sda.registry import TRANSLATORS

ENDINGS = (".png", ".jpg", ".jpeg")


def reads_files(cfg: CfgNode) -> bool:
    """Whether translated images come from files."""
    return TRANSLATORS.is_a(cfg.TRANSLATION.NAME, FilesTranslator)


SCHEMA.declare(
    "TRANSLATION",
    {
        "ROOT": Field(
            "",
            "folder of translated source images: each has its source image's path below that one's "
            "root, ending in .png, .jpg or .jpeg, and any size of the same ratio",
        )
    },
    when=reads_files,
    when_text="TRANSLATION.NAME is Files",
)


@SCHEMA.check
def files_have_a_root(cfg: CfgNode) -> str | None:
    """Files are looked for somewhere."""
    if not reads_files(cfg) or cfg.TRANSLATION.ROOT:
        return None
    return "TRANSLATION.ROOT: empty; name the folder of the translated source images"


@TRANSLATORS.register("Files")
class FilesTranslator:
    """Takes the translated image from a file.

    Args:
        root: of the files.
    Raises:
        UserError: if it is no folder.
    """

    needs_target: ClassVar[bool] = False

    def __init__(self, root: Path) -> None:
        if not is_folder(root):
            raise UserError(f"TRANSLATION.ROOT: {root} is no folder; give that of the images")
        self.root = root

    @classmethod
    def from_config(cls, cfg: CfgNode) -> FilesTranslator:
        """Read TRANSLATION."""
        return cls(user_path(cfg.TRANSLATION.ROOT, "TRANSLATION.ROOT"))

    def load(self, name: str, size: tuple[int, int], window: Box) -> np.ndarray:
        """A window of the translated image, at the size of the resized source image.

        Args:
            name: of the source image, below its dataset's root.
            size: (height, width) of the source image as it was resized.
            window: of it.
        Returns:
            (h, w, 3) float32 in [0, 255].
        Raises:
            MissingFileError: if there is no file for the image.
            UserError: if it is damaged, or of another ratio than the source image.
        """
        path = self._path(name)

        def source_size(own: tuple[int, int]) -> tuple[int, int]:
            if abs(own[0] * size[1] / (own[1] * size[0]) - 1) > 0.02:
                raise UserError(
                    f"{path}: is {own[0]}x{own[1]} (height x width), of another ratio than its "
                    f"source image, {size[0]}x{size[1]}; translate whole images"
                )
            return size

        return window.of(read_image(path, source_size)).astype(np.float32)

    def _path(self, name: str) -> Path:
        parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..")]
        plain = self.root.joinpath(*parts)
        paths = [plain.with_suffix(ending) for ending in ENDINGS]
        for path in paths:
            if not is_missing(path):
                return path
        raise MissingFileError(
            f"source image {name} has no translated one; expected {paths[0]} (or .jpg, .jpeg), "
            f"below TRANSLATION.ROOT"
        )
