"""What all passes on target images share: pseudo-labels' weight and strong augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import SCHEMA, Field
from t2sda.distributed import mean_over_ranks
from t2sda.losses.augmentation import JITTER_KINDS
from t2sda.losses.pseudo_labels import pseudo_label_quality, pseudo_label_quality_per_image
from t2sda.meta_arch.augmentations import JITTER_AND_BLUR, Augmentation, augmented
from t2sda.meta_arch.base import Reads, StudentPass, pass_classes
from t2sda.registry import AUGMENTATIONS
from t2sda.structures import TARGET_PROBS, Step, TeacherOutput

QUALITIES = ("batch", "image")


def reads_pseudo_labels(cfg: CfgNode) -> bool:
    """Whether some pass trains on the teacher's pseudo-labels."""
    return any(cls.uses_pseudo_labels for cls in pass_classes(cfg).values())


SCHEMA.declare(
    "SELF_TRAINING",
    {
        "PSEUDO_LABEL_THRESHOLD": Field(
            0.968,
            "δ_p: the share of target pixels at least this confident weighs the pseudo-labels",
            low=0.0,
            high=1.0,
        ),
        "QUALITY": Field(
            "batch",
            "that share is taken over the batch, one weight for all images, or over each image",
            choices=QUALITIES,
        ),
        "FLIP": Field(
            False,
            "the teacher also sees the target's mirror image, and its probabilities are the mean "
            "of both: one more forward of the teacher",
        ),
    },
    when=reads_pseudo_labels,
    when_text="META_ARCH.PASSES holds mixed or masked",
)
SCHEMA.declare(
    "STRONG_AUGMENTATION",
    {
        "NAME": Field(
            JITTER_AND_BLUR,
            "a registered augmentation of what the student sees of the target",
            choices=AUGMENTATIONS,
        ),
    },
    when=reads_pseudo_labels,
    when_text="META_ARCH.PASSES holds mixed or masked",
)


def _jitters_and_blurs(cfg: CfgNode) -> bool:
    strong = cfg.STRONG_AUGMENTATION.NAME if reads_pseudo_labels(cfg) else None
    return JITTER_AND_BLUR in (strong, cfg.SOURCE_AUGMENTATION.NAME)


SCHEMA.declare(
    "STRONG_AUGMENTATION",
    {
        "JITTER_KIND": Field(
            "legacy",
            "color jitter as kornia 0.5 has it (brightness added), or as torchvision, Pillow and "
            "newer kornia (multiplied)",
            choices=JITTER_KINDS,
        ),
        "JITTER_PROBABILITY": Field(0.8, "of color jitter in a batch", low=0.0, high=1.0),
        "JITTER_STRENGTH": Field(
            0.2, "largest change of brightness, contrast, saturation and hue", low=0.0, high=0.5
        ),
        "BLUR_PROBABILITY": Field(0.5, "of Gaussian blur in a batch", low=0.0, high=1.0),
    },
    when=_jitters_and_blurs,
    when_text="META_ARCH.PASSES holds mixed or masked, and STRONG_AUGMENTATION.NAME is "
    "jitter_and_blur, or SOURCE_AUGMENTATION.NAME is",
)


@dataclass(frozen=True)
class PseudoLabelWeight:
    """q of Eq. (S2): how far the teacher's pseudo-labels are trusted (docs/fidelity.md, B17).

    Args:
        threshold: δ_p.
        quality: "batch" or "image".
    """

    threshold: float
    quality: str = "batch"

    @classmethod
    def from_config(cls, cfg: CfgNode) -> PseudoLabelWeight:
        """Read SELF_TRAINING."""
        return cls(cfg.SELF_TRAINING.PSEUDO_LABEL_THRESHOLD, cfg.SELF_TRAINING.QUALITY)

    def __call__(self, confidence: Tensor) -> Tensor:
        """(B, H, W) confidence of this rank -> a scalar for the whole mini-batch, or (B,)."""
        if self.quality == "image":
            return pseudo_label_quality_per_image(confidence, self.threshold)
        return mean_over_ranks(pseudo_label_quality(confidence, self.threshold))


@dataclass(frozen=True)
class StrongAugmentation:
    """What a pass does to its images (docs/fidelity.md, A2).

    Args:
        augmentation: drawn for the images of all ranks.
        consumer: name of the stream of random numbers, so that no two passes draw alike.
    """

    augmentation: Augmentation
    consumer: str

    @classmethod
    def from_config(cls, cfg: CfgNode, consumer: str) -> StrongAugmentation:
        """Read STRONG_AUGMENTATION."""
        return cls(AUGMENTATIONS.get(cfg.STRONG_AUGMENTATION.NAME).from_config(cfg), consumer)

    def __call__(self, image: Tensor, step: Step) -> Tensor:
        """(b, 3, H, W) in [0, 255] -> float32 likewise."""
        return augmented(image, self.augmentation, step, self.consumer)


class PseudoLabelledPass(StudentPass):
    """A pass on strongly augmented target images with the teacher's pseudo-labels.

    Args:
        pseudo_label_weight: q.
        augmentation: of the images that the student sees; the teacher sees them clean.

    Attributes:
        augmentation_stream: of random numbers, one for each pass.
    """

    uses_pseudo_labels = True
    augmentation_stream: ClassVar[str]

    def __init__(
        self, pseudo_label_weight: PseudoLabelWeight, augmentation: StrongAugmentation
    ) -> None:
        super().__init__()
        self.pseudo_label_weight = pseudo_label_weight
        self.augmentation = augmentation

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """The target, and what the teacher makes of it."""
        return Reads(fields={"target_image", "target_valid"}, views={TARGET_PROBS})

    @staticmethod
    def taught(step: Step) -> tuple[TeacherOutput, Tensor]:
        """The teacher's output, and (b, H, W) bool: target pixels outside the margins."""
        assert step.teacher is not None
        assert step.batch.target_valid is not None
        return step.teacher, step.batch.target_valid
