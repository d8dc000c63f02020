"""What Accept chooses, and what is refused before anything is decoded."""

from __future__ import annotations

import pytest

from t2sda.serving.answers import RefusedError, chosen_media_type

JSON, PNG, JPEG = "application/json", "image/png", "image/jpeg"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("image/png", PNG),
        ("IMAGE/JPEG", JPEG),
        ("image/*", PNG),
        ("image/*;q=0.5, image/png;q=0", JPEG),
        ("text/html, */*;q=0.1", JSON),
        ("application/json;q=0.2, image/jpeg;q=0.8", JPEG),
        ("image/jpeg;q=0.8, image/*;q=0.9", PNG),
    ],
)
def test_accept_chooses_by_weight_and_the_most_specific_range(accept: str, chosen: str) -> None:
    assert chosen_media_type(accept) == chosen


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "image/png;q=x", ";;;", "a" * 9000])
def test_what_cannot_be_given_is_refused_with_what_can(accept: str) -> None:
    with pytest.raises(RefusedError, match="image/png, image/jpeg") as found:
        chosen_media_type(accept)
    assert found.value.status == 406
    assert len(str(found.value)) < 400
