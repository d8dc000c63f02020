"""Windows, mirrored and scaled images beside slow references."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from t2sda.data.transforms import resize_image
from t2sda.errors import UserError
from t2sda.evaluation.entries import Protocol
from t2sda.evaluation.views import Views, protocol_for
from t2sda.runtime.letterbox import Letterbox
from tests.evaluation.predictors import Formula

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)


def resized(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    tensor = torch.from_numpy(np.ascontiguousarray(maps))[None].double()
    return F.interpolate(tensor, size, mode="bilinear", align_corners=False)[0].numpy()


def softmax(maps: np.ndarray) -> np.ndarray:
    return torch.from_numpy(maps).softmax(dim=0).numpy()


def slow_slide(
    model: Formula, image: np.ndarray, window: tuple[int, int], step: tuple[int, int]
) -> np.ndarray:
    """Sum and count over windows, of which the last of a row ends at the border."""
    height, width = image.shape[:2]
    total, count = np.zeros((4, height, width)), np.zeros((height, width))
    for row in range(max(height - window[0] + step[0] - 1, 0) // step[0] + 1):
        for column in range(max(width - window[1] + step[1] - 1, 0) // step[1] + 1):
            bottom = min(row * step[0] + window[0], height)
            right = min(column * step[1] + window[1], width)
            top, left = max(bottom - window[0], 0), max(right - window[1], 0)
            total[:, top:bottom, left:right] += model.formula(image[top:bottom, left:right])
            count[top:bottom, left:right] += 1
    return total / count


def check(views: Views, expected: np.ndarray) -> None:
    """Labels are exact but for ties within rounding, confidences to float32's."""
    found = views(IMAGE)
    assert found.confidence is not None
    ordered = np.sort(expected, axis=0)
    sure = ordered[-1] - ordered[-2] > 1e-5
    assert sure.mean() > 0.99
    assert (found.labels == expected.argmax(axis=0))[sure].all()
    np.testing.assert_allclose(found.confidence, ordered[-1], atol=2e-6)
    plain = Views(views._whole, views.protocol)(IMAGE)
    assert plain.confidence is None
    assert (plain.labels == found.labels).all()


def test_logits_are_averaged_where_windows_overlap() -> None:
    model = Formula()
    protocol = protocol_for(model, window=(32, 48), step=(20, 30))
    expected = softmax(slow_slide(model, IMAGE, (32, 48), (20, 30)))
    check(Views(model, protocol, with_confidence=True), expected)


def test_a_predictor_is_slid_as_its_run_slid_it_unless_asked_otherwise() -> None:
    model = Formula()
    model.scored_window, model.scored_step = (32, 48), (20, 30)
    assert protocol_for(model) == Protocol(None, (32, 48), (20, 30))
    expected = softmax(slow_slide(model, IMAGE, (32, 48), (20, 30)))
    check(Views(model, protocol_for(model), with_confidence=True), expected)
    assert protocol_for(model, step=(16, 16)) == Protocol(None, (32, 48), (16, 16))
    assert protocol_for(model, window=(30, 30)) == Protocol(None, (30, 30), (20, 20))
    model.scored_step = None
    assert protocol_for(model) == Protocol(None, (32, 48), (22, 32))


def test_whole_images_come_back_bilinearly_before_the_argmax() -> None:
    """A11: resized to fit the bound, logits back to the label's resolution, argmax there."""
    model = Formula(letterbox=Letterbox(bound=(48, 64)))
    protocol = protocol_for(model)
    assert protocol == Protocol(image_size=(48, 64))
    small = resize_image(IMAGE, (38, 64))
    expected = softmax(resized(model.formula(small), (60, 100)))
    check(Views(model, protocol, with_confidence=True), expected)


def test_softmax_is_averaged_over_mirrored_and_scaled_windowed_images() -> None:
    model = Formula()
    protocol = protocol_for(
        model, image_size=(48, 80), window=(40, 40), flip=True, scales=(1.0, 1.5)
    )
    assert protocol.step == (27, 27)
    views = []
    for size in ((48, 80), (72, 120)):
        seen = resize_image(IMAGE, size)
        for turn in (1, -1):
            maps = slow_slide(model, seen[:, ::turn], (40, 40), (27, 27))[..., ::turn]
            views.append(softmax(resized(maps, (60, 100))))
    check(Views(model, protocol, with_confidence=True), np.mean(views, axis=0))


def test_one_window_over_all_is_the_whole_image() -> None:
    model = Formula()
    whole = Views(model, protocol_for(model))(IMAGE).labels
    for window in ((60, 100), (200, 300)):
        windowed = Views(model, protocol_for(model, window=window))(IMAGE).labels
        assert (windowed == whole).all()


def test_a_predictor_keeps_its_own_size() -> None:
    model = Formula(letterbox=Letterbox(bound=(48, 64)))
    Views(model, protocol_for(model, image_size=(24, 32)))(IMAGE)
    assert model.letterbox.bound == (48, 64)
    fixed = Formula(letterbox=Letterbox(size=(48, 64)))
    assert protocol_for(fixed).image_size == (48, 64)
    assert protocol_for(fixed, window=(48, 64)) == Protocol(None, (48, 64), (32, 43))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": (8, 8)}, "there is no window to move"),
        ({"window": (16, 16), "step": (8, 17)}, "step 8 17 is larger than window 16 16"),
        ({"scales": (1.0, 1.0)}, "empty or lists one twice"),
        ({"scales": ()}, "empty or lists one twice"),
        ({"scales": (0.0,)}, "0.0 is no factor"),
        ({"scales": (1e-9,)}, "1e-09 is no factor"),
        ({"scales": (16.1,)}, "16.1 is no factor"),
        ({"scales": (float("nan"),)}, "nan is no factor"),
    ],
)
def test_options_that_contradict_each_other_are_named(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        protocol_for(Formula(), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (24, 32)}, "image size 24 32: the model takes images of 48x64 only"),
        ({"window": (24, 32)}, "use a window of 48 64"),
        ({"scales": (0.5, 1.0)}, "takes images of 48x64 only; export --dynamic, or use windows"),
    ],
)
def test_what_a_graph_of_one_size_cannot_do_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        protocol_for(Formula(letterbox=Letterbox(size=(48, 64))), **options)


def test_a_protocol_is_compared_by_value() -> None:
    protocol = protocol_for(Formula(), scales=[1])
    assert protocol == Protocol()
    assert hash(protocol) == hash(dataclasses.replace(Protocol(), scales=(1.0,)))
