"""A branch of the mean teacher: the segmentation model, and the projector where one is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from t2sda.errors import UserError
from t2sda.modeling.normalization import WholeBatchNorm2d
from t2sda.modeling.segmentor import Features, SegmentationModel
from t2sda.structures import FeatureSpec


class Branch(nn.Module):
    """Student or teacher: h, f and g of the paper.

    Args:
        model: backbone h and head f; this is what is evaluated, exported and shipped.
        projector: g; None where no pass asks for embeddings.
        level: of the backbone's pyramid, which the projector reads.
    """

    def __init__(
        self, model: SegmentationModel, projector: nn.Module | None = None, level: int = -1
    ) -> None:
        super().__init__()
        self.model = model
        self.projector = projector
        self.level = level - len(model.feature_specs) if level >= 0 else level  # -1: the deepest

    @property
    def embedding_spec(self) -> FeatureSpec:
        """Grid of the embeddings; the channels are those of the level that the projector reads."""
        return self.model.feature_specs[self.level]

    def embed(self, features: Features) -> Tensor:
        """Features of an image -> embeddings g(h(x)), (B, D, h, w) of the projector's level.

        Raises:
            UserError: if the projector reads a level, and the model's record has the deepest alone.
        """
        assert self.projector is not None, "this branch was built without a projector"
        if self.level == -1:
            return self.projector(features.deepest)
        if not hasattr(features, "levels"):
            raise UserError(
                f"MODEL.PROJECTOR.LEVEL: not the coarsest, but MODEL.NAME "
                f"{type(self.model).__name__} gives no other; set MODEL.PROJECTOR.LEVEL to -1"
            )
        return self.projector(features.levels[self.level])


@contextmanager
def batch_statistics_untracked(module: nn.Module) -> Iterator[None]:
    """Within it, BatchNorm in training mode normalises by the batch but records nothing."""
    norms = [
        norm
        for norm in module.modules()
        if isinstance(norm, (nn.BatchNorm2d, WholeBatchNorm2d)) and norm.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
