"""SePiCo: moments are those of all values so far, and losses those of the equation."""

from __future__ import annotations

import pytest
import torch

from t2sda.config import ConfigError, load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.losses.distribution import distribution_contrast, majority_labels
from t2sda.losses.numerics import l2_normalize
from t2sda.meta_arch.base import build_meta_arch
from t2sda.meta_arch.sepico import ClassMoments
from tests.meta_arch.conftest import METHODS, TINY, config_of, step_of
from tests.training import noise_batch


def test_moments_are_those_of_all_values_of_all_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    moments, values, labels = ClassMoments(4, 3), [], []
    for step in range(6):
        values.append(torch.randn(50, 3, generator=generator))
        labels.append(torch.randint(0, 3, (50,), generator=generator))
        labels[-1][:5] = 255
        if step < 3:
            labels[-1][labels[-1] == 2] = 0  # class 2 comes late, class 3 never
        moments.update_(values[-1], labels[-1], last=step % 2 == 1)
    means, variances = moments.shared()
    every, of = torch.cat(values).double(), torch.cat(labels)
    for index in range(3):
        own = every[of == index]
        torch.testing.assert_close(means[index].double(), own.mean(dim=0), rtol=1e-5, atol=1e-6)
        expected = own.var(dim=0, unbiased=False)
        torch.testing.assert_close(variances[index].double(), expected, rtol=1e-4, atol=1e-6)
    assert means[3].isnan().all()


@pytest.mark.parametrize("start", [0, 1])
def test_losses_are_means_over_cells_with_a_label_and_begin_when_they_should(start: int) -> None:
    torch.manual_seed(0)
    keys = ["SEPICO.START", str(start), "SEPICO.TEMPERATURE", "0.5", "SEPICO.WEIGHT", "0.25"]
    meta_arch = build_meta_arch(config_of("SePiCo", *keys), CITYSCAPES_19).eval()
    batch = noise_batch(2, num_classes=3)
    batch.source_label[:, :40] = 1
    batch.target_valid[:, :8] = False  # type: ignore[index]
    step = step_of(batch)
    with torch.no_grad():
        step.teacher = meta_arch.teach(step)
        found = {name: meta_arch(name, step) for name in ("source_contrast", "target_contrast")}
        pseudo_labels = step.teacher.pseudo_labels.where(batch.target_valid, 255)  # type: ignore[union-attr, arg-type]
        moments = meta_arch.passes["source_contrast"].moments.shared()
    for domain, labels in (("source", batch.source_label), ("target", pseudo_labels)):
        loss = found[f"{domain}_contrast"][f"loss_{domain}_contrast"]
        if start:
            assert loss == 0
            continue
        with torch.no_grad():
            student = meta_arch.student
            embeddings = student.embed(student.model.features(batch.image(domain)))
        cells = majority_labels(labels, 19, tuple(embeddings.shape[-2:])).flatten()  # type: ignore[arg-type]
        rows = l2_normalize(embeddings.movedim(1, -1).flatten(0, 2))
        known = ~moments[0, :, 0].isnan()
        losses = distribution_contrast(rows, cells, *moments.nan_to_num(), known, 0.5)
        counted = (cells < 19) & known[cells.clamp(max=18)]
        expected = 0.25 * losses.sum() / max(int(counted.sum()), 1)
        torch.testing.assert_close(loss, expected)
        assert domain == "target" or loss > 0


def test_the_target_pass_needs_the_moments() -> None:
    keys = ["META_ARCH.NAME", "SePiCo", *TINY, *METHODS["SePiCo"][:4]]
    with pytest.raises(ConfigError, match="target_contrast reads 'class_moments', which no pass"):
        load_config(None, [*keys, "META_ARCH.PASSES", "[source, mixed, target_contrast]"])
