"""BatchNorm's running statistics of the target alone (AdaBN: Li et al., arXiv 1603.04779)."""

from __future__ import annotations

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.meta_arch.base import Reads, StudentPass
from t2sda.modeling.branch import Branch
from t2sda.registry import PASSES
from t2sda.structures import Step


@PASSES.register("target_statistics")
class TargetStatisticsPass(StudentPass):
    """Shows the student target images as they are, without a loss or a gradient.

    What it sees is all that its running statistics record, unless META_ARCH.BN_TRACK says
    otherwise, and those are what ships: the network is evaluated on such images, while the passes
    with a loss show it the source, and mixed or hidden images.
    """

    forward_of = "target image: backbone, head, for the running statistics; no gradient"
    records_alone = True

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """The target."""
        return Reads(fields={"target_image"})

    @torch.no_grad()
    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        """Returns nothing: there is no loss."""
        student.model.outputs(self.features(student, step.batch.image("target"), step))
        return {}
