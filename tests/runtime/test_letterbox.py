"""Images into the size a network takes, and results back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from t2sda.runtime.letterbox import Frame, Letterbox, resize_maps, softmax

FILL = (1, 2, 3)
WHITE = 255


@pytest.mark.parametrize(
    ("size", "inner_size"),
    [
        ((50, 100), (50, 100)),  # fits
        ((100, 200), (50, 100)),
        ((50, 50), (50, 50)),
        ((200, 100), (50, 25)),  # portrait in landscape
        ((25, 25), (50, 50)),  # enlarged
        ((10, 1000), (1, 100)),
        ((1, 9000), (1, 100)),  # never thinner than a pixel
    ],
)
def test_as_large_as_it_fits(size: tuple[int, int], inner_size: tuple[int, int]) -> None:
    frame = Letterbox((50, 100), fill=FILL)(np.full((*size, 3), WHITE, np.uint8))
    assert frame.image.shape == (50, 100, 3)
    assert frame.inner_size == inner_size
    height, width = inner_size
    assert (frame.image[:height, :width] == WHITE).all()
    assert (frame.image[height:] == FILL).all()
    assert (frame.image[:, width:] == FILL).all()


def test_labels_come_back_without_the_padding() -> None:
    frame = Letterbox((50, 100), fill=FILL)(np.zeros((200, 100, 3), np.uint8))
    labels = np.full((50, 100), 9, np.uint8)
    labels[:50, :25] = 4
    labels[25:50, :25] = 5
    back = frame.labels_back(labels)
    assert back.shape == (200, 100)
    assert (back[:100] == 4).all()
    assert (back[100:] == 5).all()


@pytest.mark.parametrize(
    ("inner", "size"), [((21, 31), (32, 47)), ((21, 31), (8, 13))]
)  # no pixel between two
def test_labels_come_back_from_the_nearest_centre(
    inner: tuple[int, int], size: tuple[int, int]
) -> None:
    labels = np.random.default_rng(0).integers(0, 19, inner, dtype=np.uint8)
    frame = Frame(np.zeros((*inner, 3), np.uint8), inner, size)
    rows, columns = (
        [min(int((index + 0.5) * seen / own), seen - 1) for index in range(own)]
        for seen, own in zip(inner, size, strict=True)
    )
    assert np.array_equal(frame.labels_back(labels), labels[np.ix_(rows, columns)])


def test_logits_come_back_bilinearly() -> None:
    frame = Letterbox((2, 6), fill=FILL)(np.zeros((4, 4, 3), np.uint8))
    logits = np.full((1, 2, 6), 99, np.float32)
    logits[0, :, :2] = [[0, 1], [0, 1]]
    back = frame.maps_back(logits)
    # Centres of the four columns lie at -1/4, 1/4, 3/4, 5/4 of the two; outside is as the border.
    np.testing.assert_allclose(back, np.broadcast_to([0, 0.25, 0.75, 1], (1, 4, 4)))


def test_within_a_bound_nothing_is_padded() -> None:
    image = np.zeros((100, 300, 3), np.uint8)
    assert Letterbox(bound=(50, 100))(image).image.shape == (33, 100, 3)
    frame = Letterbox()(image)
    assert frame.image is image
    labels = np.arange(30000, dtype=np.uint8).reshape(100, 300)
    assert np.array_equal(frame.labels_back(labels), labels)


@pytest.mark.parametrize("size", [(37, 53), (14, 22), (9, 31), (1, 1), (200, 3)])
def test_maps_are_resized_as_torch_does(size: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).normal(size=(5, 28, 44)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(maps)[None], size, mode="bilinear")[0].numpy()
    np.testing.assert_allclose(resize_maps(maps, size), expected, atol=2e-5)


def test_softmax_of_large_logits_is_that_of_torch() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 19, 3, 4)).astype(np.float32) * 100
    expected = torch.from_numpy(logits).softmax(dim=1).numpy()
    np.testing.assert_allclose(softmax(logits, axis=1), expected, atol=1e-6)
