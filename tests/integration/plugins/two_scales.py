"""A model of two scales: the whole image at half size, and details at full size.

Students see the details of one random box; the teacher and evaluation slide over all of them.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import interpolate

from t2sda.losses.segmentation import cross_entropy
from t2sda.modeling.segmentor import Features, SegmentationModel
from t2sda.registry import MODELS

DETAIL_WEIGHT = 0.1


@dataclass
class TwoScaleFeatures:
    """Of the image at half size, and of every box of it at full size."""

    context: Features
    details: list[Features]
    boxes: list[tuple[slice, slice]]
    size: tuple[int, int]

    @property
    def deepest(self):
        return self.context.deepest


@MODELS.register()
class TwoScales(SegmentationModel):
    """In a box, the mean of both scales; outside, the context alone."""

    @property
    def feature_specs(self):
        return tuple(spec.shown_at(0.5) for spec in super().feature_specs)

    def features(self, image, generator=None):
        height, width = image.shape[-2:]
        size = (height // 2, width // 2)
        if generator is None:
            boxes = [box(y, x, size) for y in (0, height - size[0]) for x in (0, width - size[1])]
        else:
            y, x = (
                int(torch.randint(side - length + 1, (), generator=generator))
                for side, length in zip((height, width), size, strict=True)
            )
            boxes = [box(y, x, size)]
        details = [SegmentationModel.features(self, image[..., y, x]) for y, x in boxes]
        return TwoScaleFeatures(super().features(halved(image)), details, boxes, (height, width))

    def logits(self, features):
        fused = resized(super().logits(features.context), features.size)
        for detail, (rows, columns) in zip(features.details, features.boxes, strict=True):
            fused[..., rows, columns] = (fused[..., rows, columns] + super().logits(detail)) / 2
        return fused

    def loss(self, features, labels, weight=None, normalizer=None):
        loss = cross_entropy(self.logits(features), labels, weight, normalizer)
        for detail, (rows, columns) in zip(features.details, features.boxes, strict=True):
            inside = None if weight is None else weight[..., rows, columns]
            logits = SegmentationModel.logits(self, detail)
            own = cross_entropy(logits, labels[..., rows, columns], inside, normalizer)
            loss = loss + DETAIL_WEIGHT * own
        return loss

    def deepest_features(self, image, backbone):
        return super().deepest_features(halved(image), backbone)


def box(y, x, size):
    return slice(y, y + size[0]), slice(x, x + size[1])


def halved(image):
    return resized(image.float(), (image.shape[-2] // 2, image.shape[-1] // 2))


def resized(image, size):
    return interpolate(image, size, mode="bilinear", align_corners=False)
