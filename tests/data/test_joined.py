"""Several datasets as one domain: who is drawn how often, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from t2sda.config import ConfigError, load_config
from t2sda.data.catalog import DATASETS, DatasetSpec, DrawnStreetsSpec
from t2sda.data.class_statistics import class_frequencies
from t2sda.data.domains import DomainPairs
from t2sda.data.joined import JoinedDataset, joined_name, source_dataset, target_dataset
from t2sda.data.rare_classes import RareClassSampler
from t2sda.data.samplers import MixedSampler, ShuffledSampler
from t2sda.errors import UserError

CLEAR = DrawnStreetsSpec("clear", "clear", 1, num_images=3, image_size=(64, 96))
HAZY = DrawnStreetsSpec("hazy", "hazy", 2, num_images=5, image_size=(64, 96))


def joined(*weights: float) -> JoinedDataset:
    return JoinedDataset([CLEAR.open(), HAZY.open()], weights, "DATASETS.SOURCE")


def test_images_are_numbered_through() -> None:
    both, clear, hazy = joined(), CLEAR.open(), HAZY.open()
    assert len(both) == 8
    for index, (member, own) in {0: (clear, 0), 2: (clear, 2), 3: (hazy, 0), 7: (hazy, 4)}.items():
        assert both.name_of(index) == member.name_of(own)
        assert both.size_of(index) == member.size_of(own)
        np.testing.assert_array_equal(both.load(index).image, member.load(own).image)
        np.testing.assert_array_equal(both.load_image(index), member.load_image(own))
        np.testing.assert_array_equal(both.load_label(index), member.load_label(own))
        np.testing.assert_array_equal(both.class_pixels(index), member.class_pixels(own))


def test_without_weights_an_epoch_shows_every_image_once() -> None:
    sampler = MixedSampler([3, 5], (), seed=0, consumer="source")
    assert sorted(sampler.index_at(position) for position in range(8, 16)) == list(range(8))


def test_one_dataset_is_drawn_as_it_is_alone() -> None:
    alone, sampler = ShuffledSampler(6, 1, "source"), MixedSampler([6], (), 1, "source")
    assert [sampler.index_at(i) for i in range(20)] == [alone.index_at(i) for i in range(20)]


def test_weights_say_how_often_a_dataset_is_drawn_and_its_images_come_alike() -> None:
    sampler = MixedSampler([3, 5], (0.7, 0.3), seed=0, consumer="source")
    counts = np.bincount([sampler.index_at(i) for i in range(6000)], minlength=8) / 6000
    expected = [0.7 / 3] * 3 + [0.3 / 5] * 5
    np.testing.assert_allclose(counts, expected, atol=0.025)  # 4.5 standard errors of the largest


def test_a_weighted_draw_follows_from_the_position_alone() -> None:
    forwards = [MixedSampler([3, 5], (0.5, 0.5), 3, "target").index_at(i) for i in range(30)]
    again = MixedSampler([3, 5], (0.5, 0.5), 3, "target")
    assert [again.index_at(i) for i in reversed(range(30))] == forwards[::-1]


def test_rare_classes_are_drawn_over_the_union_by_weight() -> None:
    # Two classes: the first set has 90 + 10 pixels an image, the second 40 + 60.
    pixels = np.array([[90, 10, 0]] * 3 + [[40, 60, 0]] * 5)

    def sampler(*weights: float) -> RareClassSampler:
        options = {"temperature": 1.0, "min_pixels": 5, "min_share": 0.0, "crop_factor": 0.5}
        return RareClassSampler(pixels, joined(*weights), seed=0, **options)  # type: ignore[arg-type]

    def probabilities(first: float) -> np.ndarray:
        """P(c) where `first` is the share of images of the first set."""
        frequencies = np.array([first * 0.9 + (1 - first) * 0.4, first * 0.1 + (1 - first) * 0.6])
        exponentials = np.exp(1 - frequencies)
        return exponentials / exponentials.sum()

    np.testing.assert_allclose(sampler().probabilities, probabilities(3 / 8))
    weighted = sampler(3, 1)  # any unit
    np.testing.assert_allclose(weighted.probabilities, probabilities(0.75))
    drawn = [weighted.draw_at(position).image_index for position in range(4000)]
    counts = np.bincount(drawn, minlength=8) / 4000
    np.testing.assert_allclose(counts, [0.25] * 3 + [0.05] * 5, atol=0.03)  # 4 standard errors


def test_names_show_the_shares() -> None:
    assert joined().name == "clear + hazy"
    assert joined(7, 3).name == "clear (70 %) + hazy (30 %)"
    assert joined_name(["gta5_train"]) == "gta5_train"


def test_other_classes_are_refused_by_name(harbour: DatasetSpec) -> None:
    names = harbour.taxonomy.class_names
    other = replace(
        harbour.taxonomy,
        name="harbour_classes",
        class_names=(*names[:4], "quay", *names[5:]),
        subsets={},
        things=(),
    )
    with pytest.raises(
        UserError,
        match=r"DATASETS.SOURCE: .*'clear' .*'harbour' \('harbour_classes', 19\) have different "
        rf"classes: as class 4 'clear' has '{names[4]}' and 'harbour' has 'quay'",
    ):
        JoinedDataset(
            [CLEAR.open(), replace(harbour, taxonomy=other).open()], (), "DATASETS.SOURCE"
        )


@pytest.fixture
def both_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for spec in (CLEAR, HAZY):
        monkeypatch.setitem(DATASETS._components, spec.name, spec)


@pytest.mark.usefixtures("both_registered")
@pytest.mark.parametrize(
    ("words", "names", "weights"),
    [
        (["DATASETS.SOURCE", "clear"], ("clear",), ()),
        (["DATASETS.SOURCE=[clear, hazy]"], ("clear", "hazy"), ()),
        (
            ["DATASETS.SOURCE", "[clear, hazy]", "DATASETS.SOURCE_WEIGHTS", "[3, 1]"],
            ("clear", "hazy"),
            (0.75, 0.25),
        ),
    ],
)
def test_a_source_is_one_name_or_several(
    words: list[str], names: tuple[str, ...], weights: tuple[float, ...]
) -> None:
    cfg = load_config(None, words)
    assert names == cfg.DATASETS.SOURCE
    dataset = source_dataset(cfg)
    assert tuple(member.name for member in dataset.members) == names
    assert dataset.weights == weights
    assert target_dataset(cfg) is None


@pytest.mark.usefixtures("both_registered")
def test_pairs_are_drawn_from_all_datasets_of_both_domains() -> None:
    names = "[clear, hazy]"
    words = ["DATASETS.SOURCE", names, "DATASETS.TARGET", names, "DATASETS.TARGET_WEIGHTS", "[4,1]"]
    cfg = load_config(
        None,
        [*words, "META_ARCH.PASSES", "[source, entropy]", "DATA.CROP_SIZE", "[32, 48]"],
    )
    pairs = DomainPairs.from_config(cfg)
    seen: list[str] = []
    pairs.announce = seen.append
    for position in range(16):
        pairs[position]
    assert {name.split("_")[0] for name in seen if name} == {"clear", "hazy"}
    prints = pairs.fingerprint()
    assert [part["name"] for part in prints["source"]] == ["clear", "hazy"]
    assert [part["images"] for part in prints["target"]] == [3, 5]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["DATASETS.SOURCE", "[]"], "DATASETS.SOURCE: empty; name a labelled dataset"),
        (["DATASETS.SOURCE", "[a, a]"], "lists a name twice"),
        (
            ["DATASETS.SOURCE", "[a, b]", "DATASETS.SOURCE_WEIGHTS", "[1, 2, 3]"],
            "DATASETS.SOURCE_WEIGHTS: 3 for the 2 datasets of DATASETS.SOURCE",
        ),
        (["DATASETS.SOURCE_WEIGHTS", "[2]"], "only used when DATASETS.SOURCE names several"),
    ],
)
def test_lists_that_contradict_themselves_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        load_config(None, words)


def test_an_unlabelled_source_is_named(
    harbour: DatasetSpec, monkeypatch: pytest.MonkeyPatch, both_registered: None
) -> None:
    bare = replace(harbour, name="bare", labels=None)
    monkeypatch.setitem(DATASETS._components, "bare", bare)
    with pytest.raises(UserError, match="dataset 'bare' has no labels"):
        source_dataset(load_config(None, ["DATASETS.SOURCE", "[clear, bare]"]))


def test_shares_of_images_weigh_the_frequencies() -> None:
    shares = joined(1, 1).image_shares
    assert shares is not None
    np.testing.assert_allclose(shares, [1 / 6] * 3 + [1 / 10] * 5)
    pixels = np.array([[10, 0, 0]] * 3 + [[0, 10, 0]] * 5)
    np.testing.assert_allclose(class_frequencies(pixels * shares[:, None]), [0.5, 0.5])
