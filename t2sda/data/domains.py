"""Source and target samples by global position: load, resize, translate, crop, flip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor
from torch.utils.data import Dataset

from t2sda.config import SCHEMA, Field
from t2sda.data.catalog import open_dataset
from t2sda.data.datasets import SegmentationDataset
from t2sda.data.parallel import Progress, unseen
from t2sda.data.rare_classes import RareClassSampler, WantedClass
from t2sda.data.replacements import Replacements
from t2sda.data.samplers import ShuffledSampler, sample_generator
from t2sda.data.source_crop import draw_source_crop
from t2sda.data.transforms import (
    Resize,
    check_crop_fits,
    random_box,
    resize_image,
    resize_label,
)
from t2sda.data.translation.base import Translator, build_translator
from t2sda.errors import UserError
from t2sda.structures import DomainBatch

SCHEMA.declare(
    "DATASETS",
    {
        "SOURCE": Field("streets_clear_train", "labelled source dataset"),
        "TARGET": Field("", "unlabelled target dataset; empty: none is needed"),
        "FILES": Field((), "YAML files with datasets of your own, see docs/data.md", element=str),
    },
)
SCHEMA.declare(
    "DATA",
    {
        "SOURCE_SIZE": Field(
            (),
            "bound (height, width) that source images are resized to fit, ratio kept; empty: "
            "as they are",
            unit="pixels",
            low=1,
            element=int,
        ),
        "CROP_SIZE": Field(
            (512, 512), "training crop (height, width)", unit="pixels", low=1, length=2
        ),
        "MAX_CLASS_SHARE": Field(
            0.75,
            "a source crop in which one class has a larger share is drawn anew, up to 10 times",
            low=0.0,
            high=1.0,
            exclusive_low=True,
        ),
    },
)
SCHEMA.declare(
    "DATA",
    {
        "TARGET_SIZE": Field(
            (),
            "bound (height, width) that target images are resized to fit, ratio kept; empty: "
            "as they are",
            unit="pixels",
            low=1,
            element=int,
        ),
        "TARGET_MARGINS": Field(
            (0, 0, 0, 0),
            "rows and columns (top, bottom, left, right) of the resized target image where "
            "pseudo-labels do not count: rectification borders, the ego car",
            unit="pixels",
            low=0,
            length=4,
        ),
    },
    when=lambda cfg: bool(cfg.DATASETS.TARGET),
    when_text="DATASETS.TARGET is set",
)


@SCHEMA.check
def sizes_are_pairs(cfg: CfgNode) -> list[str]:
    """SOURCE_SIZE and TARGET_SIZE are empty or a height and a width."""
    sizes = {"SOURCE_SIZE": cfg.DATA.SOURCE_SIZE, "TARGET_SIZE": cfg.DATA.TARGET_SIZE}
    return [
        f"DATA.{name}: {value} has {len(value)} numbers; give (height, width), or () for none"
        for name, value in sizes.items()
        if len(value) not in (0, 2)
    ]


class SourceSample(NamedTuple):
    """A source crop before batching."""

    image: np.ndarray  # (h, w, 3) uint8
    label: np.ndarray  # (h, w) uint8
    translated: np.ndarray | None  # (h, w, 3) float32


class TargetSample(NamedTuple):
    """A target crop before batching."""

    image: np.ndarray  # (h, w, 3) uint8
    valid: np.ndarray  # (h, w) bool


@dataclass(frozen=True)
class FailedSample:
    """What a worker returns instead of a sample that a user's file prevents; see `collate`."""

    message: str


class DomainSample(NamedTuple):
    """What one position gives."""

    source: SourceSample
    target: TargetSample | None
    skipped: tuple[str, ...] = ()
    """Messages of the files in whose place others were taken."""


class DomainPairs(Dataset):
    """Source and target crops by global sample position.

    Args:
        source: labelled.
        target: images only; None without a target domain.
        translator: T(x^s); None where the method needs none.
        source_resize, target_resize: before cropping.
        crop_size: (height, width) of both domains' crops.
        max_class_share: see `random_box_by_label`.
        target_margins: (top, bottom, left, right) of the resized target image that do not count.
        seed: of the run; every draw follows from it and the position.
        rare_classes: draws the source images; None: all alike, in shuffled epochs.
        on_error: "stop" or "skip"; see `Replacements`.
    Attributes:
        announce: called with the name of every file before it is read, and with "" at the end.
    """

    def __init__(
        self,
        source: SegmentationDataset,
        target: SegmentationDataset | None,
        *,
        translator: Translator | None,
        source_resize: Resize,
        target_resize: Resize,
        crop_size: tuple[int, int],
        max_class_share: float,
        target_margins: tuple[int, int, int, int],
        seed: int,
        rare_classes: RareClassSampler | None = None,
        on_error: str = "stop",
    ) -> None:
        self.source = source
        self.target = target
        self.translator = translator
        self.source_resize = source_resize
        self.target_resize = target_resize
        self.crop_size = crop_size
        self.max_class_share = max_class_share
        self.target_margins = target_margins
        self.seed = seed
        self.rare_classes = rare_classes
        self.replacements = Replacements(on_error, seed)
        self.announce: Callable[[str], None] = _to_nobody
        self.source_order = ShuffledSampler(len(source), seed, "source")
        self.target_order = ShuffledSampler(len(target), seed, "target") if target else None

    @classmethod
    def from_config(cls, cfg: CfgNode, progress: Progress = unseen) -> DomainPairs:
        """Open the datasets that the configuration names; `progress` shows what takes long."""
        source = open_dataset(cfg.DATASETS.SOURCE)
        if not source.labelled:
            raise UserError(
                f"dataset '{source.name}' has no labels, so it cannot be DATASETS.SOURCE"
            )
        target = open_dataset(cfg.DATASETS.TARGET) if cfg.DATASETS.TARGET else None
        return cls(
            source,
            target,
            translator=build_translator(cfg),
            source_resize=Resize(cfg.DATA.SOURCE_SIZE or None),
            target_resize=Resize(cfg.DATA.TARGET_SIZE or None),
            crop_size=cfg.DATA.CROP_SIZE,
            max_class_share=cfg.DATA.MAX_CLASS_SHARE,
            target_margins=cfg.DATA.TARGET_MARGINS,
            seed=cfg.SEED,
            rare_classes=RareClassSampler.from_config(cfg, source, progress),
            on_error=cfg.DATA.ON_ERROR,
        )

    def __getitem__(self, position: int) -> DomainSample | FailedSample:
        """The samples at the global `position`, or the message of what a file prevented."""
        try:
            target, style, target_skipped = self._target_at(position)
            source, source_skipped = self.replacements.usable(
                position,
                "source",
                len(self.source),
                lambda drawn_at: self._source_sample(position, drawn_at, style),
            )
            return DomainSample(source, target, target_skipped + source_skipped)
        except UserError as error:
            return FailedSample(str(error))
        finally:
            self.announce("")

    def _target_at(
        self, position: int
    ) -> tuple[TargetSample | None, np.ndarray | None, tuple[str, ...]]:
        """The target crop, the whole image where the translator needs it, and what was skipped."""
        if self.target is None:
            return None, None, ()
        (sample, style), skipped = self.replacements.usable(
            position,
            "target",
            len(self.target),
            lambda drawn_at: self._target_sample(position, drawn_at),
        )
        return sample, style, skipped

    def _target_sample(
        self, position: int, drawn_at: int
    ) -> tuple[TargetSample, np.ndarray | None]:
        assert self.target is not None
        assert self.target_order is not None
        index = self.target_order.index_at(drawn_at)
        self.announce(self.target.name_of(index))
        size = self.target_resize.size_for(self.target.size_of(index))
        check_crop_fits(size, self.crop_size, self.target.name_of(index), "DATA.TARGET_SIZE")
        generator = sample_generator(self.seed, position, "target crop")
        box = random_box(size, self.crop_size, generator)
        flip = generator.random() < 0.5
        whole = self.target.load_image(index, self.target_resize) if self._needs_style else None
        image = (
            self.target.load_image(index, self.target_resize, box)
            if whole is None
            else box.of(whole)
        )
        valid = box.of(valid_within_margins(size, self.target_margins))
        return TargetSample(_flipped(image, flip), _flipped(valid, flip)), whole

    @property
    def _needs_style(self) -> bool:
        return self.translator is not None and self.translator.needs_target

    def _source_sample(
        self, position: int, drawn_at: int, style: np.ndarray | None
    ) -> SourceSample:
        """Label first: the image is decoded once, when it is known which window of it is due."""
        index, train_id = self._source_draw(drawn_at)
        self.announce(self.source.name_of(index))
        label = self.source.load_label(index)
        size = self.source_resize.size_for(label.shape)
        check_crop_fits(size, self.crop_size, self.source.name_of(index), "DATA.SOURCE_SIZE")
        label = resize_label(label, size)
        generator = sample_generator(self.seed, position, "source crop")
        crop = draw_source_crop(
            label,
            self.crop_size,
            generator,
            outer_size=None if style is None else _outer_size(size, style.shape[:2]),
            max_class_share=self.max_class_share,
            wanted=self._wanted(train_id, size),
        )
        flip = generator.random() < 0.5
        window = crop.inner.within(crop.outer)
        if self.translator is None:
            image = self.source.load_image(index, self.source_resize, window)
            return SourceSample(_flipped(image, flip), _flipped(window.of(label), flip), None)
        outer = self.source.load_image(index, self.source_resize, crop.outer)
        translated = self._translated(self.translator, position, outer, style)
        return SourceSample(
            _flipped(crop.inner.of(outer), flip),
            _flipped(window.of(label), flip),
            _flipped(crop.inner.of(translated), flip),
        )

    def _source_draw(self, position: int) -> tuple[int, int | None]:
        """Which source image is due, and the class it was drawn for."""
        if self.rare_classes is None:
            return self.source_order.index_at(position), None
        return self.rare_classes.draw_at(position)

    def _wanted(self, train_id: int | None, image_size: tuple[int, int]) -> WantedClass | None:
        if self.rare_classes is None or train_id is None:
            return None
        return self.rare_classes.wanted(train_id, image_size)

    def _translated(
        self, translator: Translator, position: int, image: np.ndarray, style: np.ndarray | None
    ) -> np.ndarray:
        if style is not None:
            style = resize_image(style, image.shape[:2])
        return translator(image, style, sample_generator(self.seed, position, "translation"))


def _to_nobody(_: str) -> None:
    pass


def valid_within_margins(size: tuple[int, int], margins: tuple[int, int, int, int]) -> np.ndarray:
    """(H, W) bool, False in the margins (top, bottom, left, right)."""
    top, bottom, left, right = margins
    valid = np.zeros(size, dtype=bool)
    valid[top : max(size[0] - bottom, 0), left : max(size[1] - right, 0)] = True
    return valid


def _outer_size(source_size: tuple[int, int], target_size: tuple[int, int]) -> tuple[int, int]:
    """The source window that is translated: as large as the target image, where it can be."""
    return min(source_size[0], target_size[0]), min(source_size[1], target_size[1])


def _flipped(window: np.ndarray, flip: bool) -> np.ndarray:
    return np.ascontiguousarray(window[:, ::-1] if flip else window)


def collate(samples: list[DomainSample | FailedSample]) -> DomainBatch | FailedSample:
    """Samples -> batch; one that failed stands for the whole batch, so that its message arrives.

    An exception of a worker would arrive wrapped in the text of its traceback.
    """
    for sample in samples:
        if isinstance(sample, FailedSample):
            return sample
    pairs = [sample for sample in samples if not isinstance(sample, FailedSample)]
    sources = [pair.source for pair in pairs]
    targets = [pair.target for pair in pairs if pair.target is not None]
    translated = [source.translated for source in sources if source.translated is not None]
    return DomainBatch(
        source_image=_images([source.image for source in sources]),
        source_label=torch.from_numpy(np.stack([source.label for source in sources])).long(),
        translated_image=_images(translated) if translated else None,
        target_image=_images([target.image for target in targets]) if targets else None,
        target_valid=(
            torch.from_numpy(np.stack([target.valid for target in targets])) if targets else None
        ),
    )


def _images(images: list[np.ndarray]) -> Tensor:
    """(h, w, 3) arrays -> (B, 3, h, w) contiguous."""
    return torch.from_numpy(np.stack([image.transpose(2, 0, 1) for image in images]))
