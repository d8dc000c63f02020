"""Centroids, their similarity, CCD and PDD: by hand, and against loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from t2sda.analysis.centroids import ClassSums, centroid_similarity
from t2sda.analysis.distances import Discrimination
from tests.references import discriminability as reference

NUM_CLASSES, CHANNELS = 5, 7


def analyzed(images: list[tuple[Tensor, Tensor]], num_classes: int) -> Discrimination:
    """Both passes over images of (N, D) features and (N,) labels."""
    sums = ClassSums(num_classes, images[0][0].shape[1])
    for features, labels in images:
        sums.add(features, labels)
    distances = Discrimination(sums.centroids)
    for features, labels in images:
        distances.add(features, labels)
    return distances


def random_images(seed: int) -> list[tuple[Tensor, Tensor]]:
    """Four images of cells of classes 0 to 3 and 255; class 4 is nowhere."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for cells in (30, 1, 50, 17):
        labels = torch.randint(0, 5, (cells,), generator=generator)
        features = torch.rand(cells, CHANNELS, generator=generator) + 0.4 * labels[:, None]
        images.append((features, torch.where(labels == 4, 255, labels)))
    return images


def test_two_classes_by_hand() -> None:
    # μ = (2, 0) and (2, 2), 4 apart when squared; the mean squared distances to them are 1 and 2.
    features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [1.0, 1.0], [3.0, 3.0]])
    found = analyzed([(features, torch.tensor([0, 0, 1, 1]))], 2)
    torch.testing.assert_close(found.center_distances(), torch.tensor([1 / 4, 2 / 4]).double())
    # The cosine to the own centroid is 1, to the other one cos 45°.
    expected = torch.full((2,), 1 - math.sqrt(2), dtype=torch.float64)
    torch.testing.assert_close(found.pixel_distances(), expected)
    assert found.left_out.tolist() == [0, 0]


@pytest.mark.parametrize("seed", [0, 1])
def test_distances_are_those_of_loops_over_pixels(seed: int) -> None:
    images = random_images(seed)
    found = analyzed(images, NUM_CLASSES)
    features, labels = (torch.cat(parts).numpy() for parts in zip(*images, strict=True))
    of_class = reference.members(features, labels, NUM_CLASSES)
    for index in range(NUM_CLASSES):
        for values, loop in (
            (found.center_distances(), reference.center_distance),
            (found.pixel_distances(), reference.pixel_distance),
        ):
            np.testing.assert_allclose(values[index], loop(of_class, index), rtol=1e-12)
    assert math.isnan(found.center_distances()[4])


def test_similarity_is_the_cosine_of_centroids() -> None:
    domains = [random_images(seed) for seed in (2, 3)]
    centroids = []
    for images in domains:
        sums = ClassSums(NUM_CLASSES, CHANNELS)
        for image in images:
            sums.add(*image)
        centroids.append(sums.centroids)
    found = centroid_similarity(*centroids)
    means = []
    for images in domains:
        features, labels = (torch.cat(parts).numpy() for parts in zip(*images, strict=True))
        of_class = reference.members(features, labels, NUM_CLASSES)
        means.append([np.mean(own, axis=0) for own in of_class[:4]])
    expected = [reference.cosine(*pair) for pair in zip(*means, strict=True)]
    np.testing.assert_allclose(found[:4], expected, rtol=1e-12)
    assert math.isnan(found[4]), "absent from both"


def test_similarity_by_hand() -> None:
    source = torch.tensor([[2.0, 0.0], [0.0, 3.0]]).double()
    target = torch.tensor([[1.0, 1.0], [0.0, -1.0]]).double()
    expected = torch.tensor([math.cos(math.pi / 4), -1.0]).double()
    torch.testing.assert_close(centroid_similarity(source, target), expected)


def test_a_ratio_without_denominator_is_left_out_and_counted() -> None:
    # The cosines of (0, 1) to the others, (1, 1) and (1, -1), sum to 0; of (1, 0) they do not.
    centroids = torch.tensor([[1.0, 1e-3], [1.0, 1.0], [1.0, -1.0]])
    distances = Discrimination(centroids)
    distances.add(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0]))
    assert distances.left_out.tolist() == [1, 0, 0]
    own = 1 / math.sqrt(1 + 1e-6)
    assert distances.pixel_distances()[0].item() == pytest.approx(1 - own / math.sqrt(2))


def test_classes_with_one_centroid_have_no_center_distance() -> None:
    features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 0.0], [0.0, 5.0]])
    found = analyzed([(features, torch.tensor([0, 0, 1, 2]))], 3).center_distances()
    assert found.isnan().tolist() == [True, True, False]
    assert found[2] == 0


def test_a_class_that_is_alone_has_no_distances() -> None:
    found = analyzed([(torch.rand(4, 3), torch.zeros(4, dtype=torch.int64))], 2)
    assert found.center_distances().isnan().all()
    assert found.pixel_distances().isnan().all()
    assert found.left_out.tolist() == [4, 0]
