"""Training on labels that the target set carries: pseudo-labels made offline, or true ones."""

from t2sda.meta_arch.base import Reads, StudentPass
from t2sda.meta_arch.source_only import whole_batch_pixels
from t2sda.registry import PASSES


@PASSES.register("target_labelled")
class TargetLabelledPass(StudentPass):
    """Cross entropy on target images with the labels of their dataset."""

    @classmethod
    def reads(cls, cfg):
        return Reads(fields={"target_image", "target_label"})

    def forward(self, student, step):
        labels = step.batch.target_label
        features = self.features(student, step.batch.image("target"), step)
        loss = student.model.loss(features, labels, normalizer=whole_batch_pixels(labels))
        return {"loss_target_labelled": loss}
