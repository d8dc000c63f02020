"""The analysis of a run: its figures, its memory, and the features that it reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from t2sda.analysis import study as study_module
from t2sda.analysis.classes import Classes
from t2sda.analysis.features import FeatureReader
from t2sda.analysis.study import PARTS, RunStudy, StudySettings
from t2sda.data.datasets import Sample
from t2sda.data.taxonomies import CITYSCAPES_19, ClassGroup
from t2sda.engine.checkpoint import Checkpoint, load_checkpoint, resolve_checkpoint
from t2sda.errors import UserError
from t2sda.losses.sampling import labels_on_grid
from t2sda.meta_arch.base import build_meta_arch
from t2sda.runtime.checkpoints import model_of_checkpoint
from t2sda.structures import IGNORE_INDEX, TARGET_PROBS, DomainBatch, RandomStreams, Step
from tests.analysis.conftest import T2SDA_SETTINGS, Noise
from tests.deployed import write_checkpoint
from tests.references import discriminability as reference

CPU = torch.device("cpu")


def checkpoint_of(run: Path) -> Checkpoint:
    return load_checkpoint(resolve_checkpoint(run))


def study_of(run: Path, *, images: int = 3, **settings: Any) -> RunStudy:
    data = (Noise("here", images), Noise("there", images + 1))
    return RunStudy("a run", checkpoint_of(run), data, StudySettings(**settings), CPU)


def silent(indices: Sequence[int], what: str) -> Iterable[int]:
    return indices


def numbers_held(value: object, seen: set[int] | None = None) -> int:
    """How many numbers an object holds in tensors and arrays, however deep."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        return value.numel()
    if isinstance(value, np.ndarray):
        return value.size
    if isinstance(value, dict):
        return sum(numbers_held(item, seen) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(numbers_held(item, seen) for item in value)
    return numbers_held(vars(value), seen) if hasattr(value, "__dict__") else 0


def test_memory_does_not_grow_with_the_images(
    t2sda_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is added up holds as many numbers after 40 images as after 20, and no image stays."""
    kept: list[object] = []
    for name in ("ClassSums", "ClassSample", "Discrimination", "PseudoLabelScores"):
        made = getattr(study_module, name)

        def keeping(*args: Any, made: Any = made) -> Any:
            kept.append(made(*args))
            return kept[-1]

        monkeypatch.setattr(study_module, name, keeping)
    sizes = []
    for images in (20, 40):
        kept.clear()
        study = study_of(t2sda_run, images=images, pixels_per_class=4)
        study.run(silent)
        assert len(kept) == 6, "sums and a sample a domain, distances, pseudo-labels"
        sizes.append([numbers_held(item) for item in kept])
        for dataset in study.data.values():
            assert dataset.most_alive <= 2, "an image, and the one before it"  # type: ignore[attr-defined]
    assert sizes[0] == sizes[1]


def test_the_figures_are_those_of_all_cells_at_once(t2sda_run: Path) -> None:
    study = study_of(t2sda_run)
    found = study.run(silent).per_class
    of_domain = []
    for dataset in study.data.values():
        cells = [study.read(dataset.load(index)) for index in range(len(dataset))]
        features = torch.cat([item.embeddings for item in cells]).numpy()
        labels = torch.cat([item.labels for item in cells]).numpy()
        of_domain.append(reference.members(features, labels, 19))
    source, target = of_domain
    for index in range(19):
        both = source[index] and target[index]
        centers = [np.mean(own[index], axis=0) for own in of_domain if both]
        similarity = reference.cosine(*centers) if both else np.nan
        for key, expected in (
            ("similarity", similarity),
            ("center_distance", reference.center_distance(target, index)),
            ("pixel_distance", reference.pixel_distance(target, index)),
        ):
            np.testing.assert_allclose(found[key][index], expected, rtol=1e-9, err_msg=key)
    assert found["similarity"].isfinite().sum() == 6


def test_all_parts_have_their_figures(t2sda_run: Path, source_run: Path) -> None:
    with_teacher = study_of(t2sda_run, parts=PARTS).run(silent)
    without = study_of(source_run, parts=PARTS).run(silent)
    only = {"pseudo_label_coverage", "pseudo_label_accuracy", "pseudo_label_accuracy_of_all"}
    assert set(with_teacher.per_class) - set(without.per_class) == only
    assert with_teacher.threshold == 0.968
    assert without.quality is None
    assert with_teacher.num_images == {"source": 3, "target": 4}


def test_parts_that_are_not_asked_for_are_not_computed(t2sda_run: Path) -> None:
    study = study_of(t2sda_run, parts=("distances",))
    found = study.run(silent)
    assert set(found.per_class) == {
        *("target_cells", "center_distance", "pixel_distance", "cells_without_ratio"),
    }
    assert found.num_images == {"target": 4}


def test_images_are_evenly_spaced_where_they_are_limited() -> None:
    assert StudySettings(max_images=3).indices(Noise("here", 9)) == [0, 4, 8]
    assert StudySettings(max_images=30).indices(Noise("here", 2)) == [0, 1]


@pytest.mark.parametrize("kind", ["encoder", "projector"])
def test_features_stand_by_the_class_at_their_cells_centre(t2sda_run: Path, kind: str) -> None:
    checkpoint = checkpoint_of(t2sda_run)
    model = model_of_checkpoint(checkpoint)
    read = FeatureReader.of(checkpoint, model, kind, CPU)
    sample = Noise("here", 1).load(0)
    found = read(sample)
    assert found.embeddings.shape == (6, read.channels)
    assert sample.label is not None
    spec = model.feature_specs[-1]
    labels = labels_on_grid(torch.from_numpy(sample.label)[None], spec)
    assert torch.equal(found.labels, labels.flatten().long())
    image = torch.from_numpy(sample.image.transpose(2, 0, 1).copy())[None]
    deepest = model.features(image).deepest
    expected = deepest if kind == "encoder" else read.branch.embed(model.features(image))
    torch.testing.assert_close(found.embeddings, expected[0].flatten(1).T.detach())


def test_images_of_odd_sizes_are_continued_without_labels(source_run: Path) -> None:
    checkpoint = checkpoint_of(source_run)
    read = FeatureReader.of(checkpoint, model_of_checkpoint(checkpoint), "encoder", CPU)
    whole = Noise("here", 1).load(0)
    assert whole.label is not None
    cut = Sample("cut", whole.image[:49, :75], whole.label[:49, :75])
    found = read(cut)
    assert len(found.labels) == 6, "2 x 3 cells of 32 pixels"
    # test_resnet's cells have their centres at their first pixels: all lie within 49 x 75.
    assert torch.equal(found.labels, read(whole).labels)
    narrow = read(Sample("narrow", whole.image[:, :64], whole.label[:, :64]))
    assert len(narrow.labels) == 4


@pytest.mark.parametrize("norm", ["batch", "running"])
def test_the_teacher_says_what_it_said_in_training(norm: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, *T2SDA_SETTINGS, "META_ARCH.TEACHER_NORM", norm)
    study = study_of(tmp_path)
    checkpoint = checkpoint_of(tmp_path)
    meta_arch = build_meta_arch(checkpoint.cfg, CITYSCAPES_19)
    meta_arch.load_state_dict(checkpoint.meta_arch)
    sample = study.data["target"].load(0)
    image = torch.from_numpy(sample.image.transpose(2, 0, 1).copy())[None]
    assert sample.label is not None
    batch = DomainBatch(image, torch.from_numpy(sample.label)[None].long(), image.float(), image)
    with torch.no_grad():
        output = meta_arch.train().teach(Step(0, 0, batch, RandomStreams(0, 0, 0)))
    assert output is not None
    assert study.teacher is not None
    for _ in range(2):  # nothing is recorded
        found = study.teacher.probabilities(sample.image)
        np.testing.assert_allclose(found, output[TARGET_PROBS][0], rtol=1e-4, atol=1e-6)


def test_groups_of_classes_are_one_class() -> None:
    groups = tuple(
        ClassGroup(name, ids) for name, ids in (("ground", (0, 1)), ("rest", tuple(range(2, 19))))
    )
    classes = Classes.of(CITYSCAPES_19, groups)
    assert classes.names == ("ground", "rest")
    assert classes.colors[0] == CITYSCAPES_19.palette[0]
    merged = classes.merged(np.array([0, 1, 2, 18, 255], dtype=np.uint8))
    assert merged.tolist() == [0, 0, 1, 1, 255]


def test_an_unlabelled_set_is_refused(source_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noise, "labelled", False)
    with pytest.raises(UserError, match="'here' has no labels"):
        study_of(source_run)


def test_a_set_of_ignored_pixels_is_said(source_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Noise.load

    def all_ignored(dataset: Noise, index: int, with_label: bool = True) -> Sample:
        sample = load(dataset, index, with_label)
        assert sample.label is not None
        return Sample(sample.name, sample.image, np.full_like(sample.label, IGNORE_INDEX))

    monkeypatch.setattr(Noise, "load", all_ignored)
    with pytest.raises(UserError, match="'there': no labelled pixel is in the 4 images"):
        study_of(source_run, parts=("distances",)).run(silent)


def test_a_projector_that_was_not_trained_is_said(source_run: Path) -> None:
    with pytest.raises(UserError, match="SourceOnly trains no projector; .*--features encoder"):
        study_of(source_run, features="projector")
