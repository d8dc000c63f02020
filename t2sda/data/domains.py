"""Source and target samples by global position: load, resize, translate, crop, flip."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from fvcore.common.config import CfgNode
from torch.utils.data import Dataset

from t2sda.constants import IGNORE_INDEX
from t2sda.data import domain_settings as domain_settings  # declares DATA
from t2sda.data.class_statistics import check_has_labelled_pixels
from t2sda.data.datasets import SegmentationDataset
from t2sda.data.joined import source_dataset, target_dataset
from t2sda.data.parallel import Progress, unseen
from t2sda.data.rare_classes import RareClassSampler, WantedClass
from t2sda.data.replacements import Replacements
from t2sda.data.samplers import MixedSampler, sample_generator
from t2sda.data.samples import DomainSample, FailedSample, SourceSample, Style, TargetSample
from t2sda.data.source_crop import draw_source_crop
from t2sda.data.target_crop import check_target_labels, class_balanced_box
from t2sda.data.transforms import (
    Box,
    Resize,
    check_crop_fits,
    random_box,
    resize_image,
    resize_label,
)
from t2sda.data.translation.base import Translator, build_translator
from t2sda.data.translation.files import FilesTranslator
from t2sda.errors import UserError

logger = logging.getLogger(__name__)


class DomainPairs(Dataset):
    """Source and target crops by global sample position.

    Args:
        source: labelled.
        target: None without a target domain.
        translator: T(x^s); None where the method needs none.
        source_resize, target_resize: before cropping.
        crop_size: (height, width) of both domains' crops.
        max_class_share: see `random_box_by_label`.
        target_margins: (top, bottom, left, right) of the resized target image that do not count.
        seed: of the run; every draw follows from it and the position.
        rare_classes: draws the source images; None: in shuffled epochs, see `MixedSampler`.
        on_error: "stop" or "skip"; see `Replacements`.
        source_window: (height, width) of the window of the resized source that is translated and
            that the crop is cut out of; None: the whole image.
        source_scale, target_scale: (smallest, largest) random factor of the resize.
        target_labels: whether the target's labels are read as well.
        target_crop: "random" or "class_balanced", see `class_balanced_box`.
    Raises:
        UserError: if target labels are asked for that are not there or of other classes.
    Attributes:
        announce: called with the name of every file before it is read, and with "" at the end.
    """

    def __init__(
        self,
        source: SegmentationDataset,
        target: SegmentationDataset | None,
        *,
        translator: Translator | FilesTranslator | None,
        source_resize: Resize,
        target_resize: Resize,
        crop_size: tuple[int, int],
        max_class_share: float,
        target_margins: tuple[int, int, int, int],
        seed: int,
        rare_classes: RareClassSampler | None = None,
        on_error: str = "stop",
        source_window: tuple[int, int] | None = None,
        source_scale: tuple[float, float] = (1.0, 1.0),
        target_scale: tuple[float, float] = (1.0, 1.0),
        target_labels: bool = False,
        target_crop: str = "random",
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
        self.source_window = source_window
        self.source_scale = source_scale
        self.target_scale = target_scale
        self.target_labels = target_labels
        self.source_order = _order_of(source, seed, "source")
        self.target_order = _order_of(target, seed, "target") if target is not None else None
        self.target_crop = target_crop
        if target_labels or target_crop != "random":
            check_target_labels(source, target, for_crops=not target_labels)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, progress: Progress = unseen, *, target_labels: bool = False
    ) -> DomainPairs:
        """Open the datasets that the configuration names.

        Args:
            cfg: resolved.
            progress: shows what takes long.
            target_labels: whether a pass of the run reads `DomainBatch.target_label`.
        """
        source, target = source_dataset(cfg), target_dataset(cfg)
        reads_labels = target_labels or cfg.DATA.TARGET_CROP != "random"
        targets = target.members if target is not None and reads_labels else ()
        for member in (*source.members, *targets):
            if member.labelled:  # a target without labels is refused with what reads them
                check_has_labelled_pixels(member)
        warn_of_enlarged(source, cfg.DATA.SOURCE_SIZE, "DATA.SOURCE_SIZE")
        if target is not None:
            warn_of_enlarged(target, cfg.DATA.TARGET_SIZE, "DATA.TARGET_SIZE")
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
            source_window=cfg.DATA.SOURCE_WINDOW or None,
            source_scale=cfg.DATA.SOURCE_SCALE_RANGE,
            target_scale=cfg.DATA.TARGET_SCALE_RANGE,
            target_labels=target_labels,
            target_crop=cfg.DATA.TARGET_CROP,
        )

    def fingerprint(self) -> dict[str, list[dict[str, str | int]]]:
        """What the domains hold, by "source" and "target": of each dataset its name, the number of
        its images and a digest of their names. A resumed run compares it with that of its start.
        """
        domains = {"source": self.source, "target": self.target}
        return {
            domain: [member.fingerprint() for member in dataset.members]
            for domain, dataset in domains.items()
            if dataset is not None
        }

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
    ) -> tuple[TargetSample | None, Style | None, tuple[str, ...]]:
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

    def _target_sample(self, position: int, drawn_at: int) -> tuple[TargetSample, Style | None]:
        assert self.target is not None
        assert self.target_order is not None
        index = self.target_order.index_at(drawn_at)
        name, stored_size = self.target.name_of(index), self.target.size_of(index)
        self.announce(name)
        resize = self._scaled(self.target_resize, self.target_scale, position, "target")
        size = resize.size_for(stored_size)
        check_crop_fits(size, self.crop_size, name, _size_settings("TARGET", self.target_scale))
        flip = self._flips(position, "target")
        inside = valid_within_margins(size, self.target_margins, resize.factor)
        whole_label = None
        if self.target_labels or self.target_crop != "random":
            whole_label = resize_label(self.target.load_label(index), size)
        box = self._target_box(position, whole_label, inside)
        valid = _flipped(box.of(inside), flip)
        label = None
        if whole_label is not None and self.target_labels:
            label = _flipped(box.of(whole_label), flip)
        if not self._needs_style:
            image = self.target.load_image(index, resize, box)
            return TargetSample(_flipped(image, flip), valid, label), None
        whole = self.target.load_image(index, resize)
        style = Style(whole, name, self.target_resize.size_for(stored_size))
        return TargetSample(_flipped(box.of(whole), flip), valid, label), style

    def _target_box(self, position: int, label: np.ndarray | None, inside: np.ndarray) -> Box:
        """The crop; labels in the margins do not count for it."""
        generator = sample_generator(self.seed, position, "target crop")
        if self.target_crop == "random" or label is None:
            return random_box(inside.shape, self.crop_size, generator)
        counted = np.where(inside, label, np.uint8(IGNORE_INDEX))
        return class_balanced_box(counted, self.crop_size, self.max_class_share, generator)

    @property
    def _needs_style(self) -> bool:
        return self.translator is not None and self.translator.needs_target

    def _source_sample(self, position: int, drawn_at: int, style: Style | None) -> SourceSample:
        """Label first: the image is decoded once, when it is known which window of it is due."""
        index, train_id = self._source_draw(drawn_at)
        self.announce(self.source.name_of(index))
        label = self.source.load_label(index)
        if style is not None:
            unscaled = self.source_resize.size_for(label.shape)
            _check_style_is_large_enough(style, self.source_window or unscaled)
        resize = self._scaled(self.source_resize, self.source_scale, position, "source")
        size = resize.size_for(label.shape)
        self._check_source_window(size, self.source.name_of(index))
        label = resize_label(label, size)
        crop = draw_source_crop(
            label,
            self.crop_size,
            sample_generator(self.seed, position, "source crop"),
            outer_size=self.source_window,
            max_class_share=self.max_class_share,
            wanted=self._wanted(train_id, size),
        )
        flip = self._flips(position, "source")
        window = crop.inner.within(crop.outer)
        if self.translator is None:
            image = self.source.load_image(index, resize, window)
            return SourceSample(_flipped(image, flip), _flipped(window.of(label), flip), None)
        outer = self.source.load_image(index, resize, crop.outer)
        if isinstance(self.translator, FilesTranslator):
            name = self.source.relative_name(index)
            translated = self.translator.load(name, size, crop.outer)
        else:
            translated = self._translated(self.translator, position, outer, style)
        return SourceSample(
            _flipped(crop.inner.of(outer), flip),
            _flipped(window.of(label), flip),
            _flipped(crop.inner.of(translated), flip),
        )

    def _scaled(
        self, resize: Resize, scale_range: tuple[float, float], position: int, domain: str
    ) -> Resize:
        """The resize with the random factor that the sample has."""
        generator = sample_generator(self.seed, position, f"{domain} scale")
        return replace(resize, factor=generator.uniform(*scale_range))

    def _flips(self, position: int, domain: str) -> bool:
        """Whether a sample is mirrored: of a stream of its own, so in all methods alike, however
        often a crop is drawn anew.
        """
        return sample_generator(self.seed, position, f"{domain} flip").random() < 0.5

    def _check_source_window(self, size: tuple[int, int], name: str) -> None:
        setting = _size_settings("SOURCE", self.source_scale)
        if self.source_window is None:
            check_crop_fits(size, self.crop_size, name, setting)
        else:
            check_crop_fits(size, self.source_window, name, setting, "DATA.SOURCE_WINDOW")

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
        self, translator: Translator, position: int, image: np.ndarray, style: Style | None
    ) -> np.ndarray:
        generator = sample_generator(self.seed, position, "translation")
        if style is None:
            return translator(image, None, generator)
        return translator(image, resize_image(style.image, image.shape[:2]), generator)


def _to_nobody(_: str) -> None:
    pass


def valid_within_margins(
    size: tuple[int, int], margins: tuple[int, int, int, int], factor: float = 1.0
) -> np.ndarray:
    """(H, W) bool, False in the margins (top, bottom, left, right), which `factor` scales."""
    top, bottom, left, right = (round(factor * margin) for margin in margins)
    valid = np.zeros(size, dtype=bool)
    valid[top : max(size[0] - bottom, 0), left : max(size[1] - right, 0)] = True
    return valid


def warn_of_enlarged(dataset: SegmentationDataset, bound: tuple[int, ...], key: str) -> None:
    """Log a warning for packed sets that are resized to more pixels than were kept of them."""
    for member in dataset.members:
        if member.packed_size is None or not bound:
            continue
        with contextlib.suppress(UserError):  # of the image's file; whoever reads it says so
            stored = member.size_of(0)
            wanted = Resize((bound[0], bound[1])).size_for(stored)
            if any(new > old for new, old in zip(wanted, stored, strict=True)):
                packed = "x".join(map(str, member.packed_size))
                logger.warning(
                    "dataset '%s' was packed at %s, and %s enlarges it to %s: details of the "
                    "originals are lost; set %s to %s, or pack it at %s",
                    *(member.name, packed, key, "x".join(map(str, bound))),
                    *(key, list(member.packed_size), "x".join(map(str, bound))),
                )


def _order_of(dataset: SegmentationDataset, seed: int, domain: str) -> MixedSampler:
    lengths = [len(member) for member in dataset.members]
    return MixedSampler(lengths, dataset.weights, seed, domain)


def _check_style_is_large_enough(style: Style, window: tuple[int, int]) -> None:
    """Raise UserError if a target image is smaller than what is translated to its style."""
    height, width = style.size
    if window[0] > height or window[1] > width:
        raise UserError(
            f"{style.name}: {height}x{width} (height x width, after resizing) is smaller than the "
            f"{window[0]}x{window[1]} of the source that are translated to its style; set "
            f"DATA.SOURCE_WINDOW to [{min(height, window[0])}, {min(width, window[1])}], or "
            f"enlarge the target with DATA.TARGET_SIZE"
        )


def _size_settings(domain: str, scale_range: tuple[float, float]) -> str:
    scaled = f" or DATA.{domain}_SCALE_RANGE" if scale_range != (1.0, 1.0) else ""
    return f"DATA.{domain}_SIZE{scaled}"


def _flipped(window: np.ndarray, flip: bool) -> np.ndarray:
    return np.ascontiguousarray(window[:, ::-1] if flip else window)
