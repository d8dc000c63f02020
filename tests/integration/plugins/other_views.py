"""A pass that asks the teacher for views of its own: the source, and a mirrored target."""

from t2sda.meta_arch.base import Reads, StudentPass
from t2sda.registry import PASSES
from t2sda.structures import View


def mirrored_target(batch):
    return batch.image("target").flip(-1)


SOURCE = View("source", "probs")
MIRRORED = View(mirrored_target, "probs")


@PASSES.register("consistency")
class ConsistencyPass(StudentPass):
    """The student agrees with the teacher's mirrored view of the target, and on the source."""

    @classmethod
    def reads(cls, cfg):
        return Reads(fields={"target_image"}, views={SOURCE, MIRRORED})

    def forward(self, student, step):
        losses = {}
        expected = {"source": step.teacher[SOURCE], "target": step.teacher[MIRRORED].flip(-1)}
        for domain, probs in expected.items():
            features = self.features(student, step.batch.image(domain), step)
            found = student.model.logits(features).softmax(dim=1)
            losses[f"loss_consistency_{domain}"] = (found - probs).square().mean()
        return losses
