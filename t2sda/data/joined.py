"""The datasets of a domain: one, or several that are drawn from by weight."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from fvcore.common.config import CfgNode

from t2sda.config import SCHEMA, Field
from t2sda.data.catalog import open_dataset
from t2sda.data.datasets import Sample, SegmentationDataset
from t2sda.data.taxonomies import Taxonomy
from t2sda.data.transforms import AS_STORED, Box, Resize
from t2sda.errors import UserError

SCHEMA.declare(
    "DATASETS",
    {
        "SOURCE": Field(
            ("streets_clear_train",), "labelled source dataset, or several", one_or_several=True
        ),
        "TARGET": Field(
            (),
            "target dataset, or several; labels are not needed; empty: none",
            element=str,
            one_or_several=True,
        ),
        "FILES": Field((), "YAML files with datasets of your own, see docs/data.md", element=str),
    },
)
SCHEMA.declare(
    "DATASETS",
    {
        "SOURCE_WEIGHTS": Field(
            (),
            "how often each of DATASETS.SOURCE is drawn, in any unit; empty: every image alike, so "
            "larger datasets more often",
            low=0.0,
            exclusive_low=True,
            element=float,
        )
    },
    when=lambda cfg: len(cfg.DATASETS.SOURCE) > 1,
    when_text="DATASETS.SOURCE names several datasets",
)
SCHEMA.declare(
    "DATASETS",
    {
        "TARGET_WEIGHTS": Field(
            (),
            "how often each of DATASETS.TARGET is drawn, as DATASETS.SOURCE_WEIGHTS",
            low=0.0,
            exclusive_low=True,
            element=float,
        )
    },
    when=lambda cfg: len(cfg.DATASETS.TARGET) > 1,
    when_text="DATASETS.TARGET names several datasets",
)


@SCHEMA.check
def datasets_are_named_once_and_weighted(cfg: CfgNode) -> list[str]:
    """A source is there, no dataset is listed twice, and each has a weight or none has."""
    problems = [] if cfg.DATASETS.SOURCE else ["DATASETS.SOURCE: empty; name a labelled dataset"]
    domains = {
        "SOURCE": (cfg.DATASETS.SOURCE, cfg.DATASETS.SOURCE_WEIGHTS),
        "TARGET": (cfg.DATASETS.TARGET, cfg.DATASETS.TARGET_WEIGHTS),
    }
    for domain, (names, weights) in domains.items():
        if len(set(names)) < len(names):
            problems.append(
                f"DATASETS.{domain}: {', '.join(names)} lists a name twice; list each once and say "
                f"how often it is drawn with DATASETS.{domain}_WEIGHTS"
            )
        if weights and len(weights) != len(names):
            problems.append(
                f"DATASETS.{domain}_WEIGHTS: {len(weights)} for the {len(names)} datasets of "
                f"DATASETS.{domain}; give one for each"
            )
    return problems


class JoinedDataset(SegmentationDataset):
    """Several datasets of the same classes, numbered through.

    Args:
        members: in order.
        weights: how often each is drawn; empty: every image alike.
        setting: that names them, for messages.
    Raises:
        UserError: if their classes differ.
    """

    def __init__(
        self, members: Sequence[SegmentationDataset], weights: Sequence[float], setting: str
    ) -> None:
        for member in members[1:]:
            check_same_classes(members[0], member, setting)
        self.name = joined_name([member.name for member in members], weights)
        self.taxonomy = members[0].taxonomy
        self.class_groups = members[0].class_groups
        self.weights = tuple(weight / sum(weights) for weight in weights)
        self._members = tuple(members)
        self._offsets = [0, *itertools.accumulate(map(len, members))]

    @property
    def members(self) -> tuple[SegmentationDataset, ...]:
        """The datasets that it joins."""
        return self._members

    @property
    def image_shares(self) -> np.ndarray | None:
        """(N,) how often every image is drawn, summing to 1; None: all alike."""
        if not self.weights:
            return None
        members = zip(self._members, self.weights, strict=True)
        return np.concatenate([np.full(len(member), w / len(member)) for member, w in members])

    def __len__(self) -> int:
        return self._offsets[-1]

    @property
    def labelled(self) -> bool:
        """Whether all have labels."""
        return all(member.labelled for member in self._members)

    def name_of(self, index: int) -> str:
        """As its dataset says."""
        member, own = self._at(index)
        return member.name_of(own)

    def relative_name(self, index: int) -> str:
        """As its dataset says."""
        member, own = self._at(index)
        return member.relative_name(own)

    def size_of(self, index: int) -> tuple[int, int]:
        """As its dataset says."""
        member, own = self._at(index)
        return member.size_of(own)

    def load(self, index: int, with_label: bool = True) -> Sample:
        """The sample of the dataset that `index` falls into."""
        member, own = self._at(index)
        return member.load(own, with_label)

    def load_image(
        self, index: int, resize: Resize = AS_STORED, window: Box | None = None
    ) -> np.ndarray:
        """The image of the dataset that `index` falls into."""
        member, own = self._at(index)
        return member.load_image(own, resize, window)

    def load_label(self, index: int) -> np.ndarray:
        """The label of the dataset that `index` falls into."""
        member, own = self._at(index)
        return member.load_label(own)

    def class_pixels(self, index: int) -> np.ndarray:
        """The counts of the dataset that `index` falls into."""
        member, own = self._at(index)
        return member.class_pixels(own)

    def label_identity(self) -> Iterator[str]:
        """That of one after the other."""
        for member in self._members:
            yield from member.label_identity()

    def _at(self, index: int) -> tuple[SegmentationDataset, int]:
        number = bisect_right(self._offsets, index) - 1
        return self._members[number], index - self._offsets[number]


def source_dataset(cfg: CfgNode) -> SegmentationDataset:
    """Open what DATASETS.SOURCE names; raises UserError if one of it has no labels."""
    dataset = _open(cfg.DATASETS.SOURCE, cfg.DATASETS.SOURCE_WEIGHTS, "DATASETS.SOURCE")
    for member in dataset.members:
        if not member.labelled:
            raise UserError(
                f"dataset '{member.name}' has no labels, so it cannot be DATASETS.SOURCE"
            )
    return dataset


def source_taxonomy(cfg: CfgNode) -> Taxonomy:
    """The classes of DATASETS.SOURCE, which are those of the model."""
    return source_dataset(cfg).taxonomy


def target_dataset(cfg: CfgNode) -> SegmentationDataset | None:
    """Open what DATASETS.TARGET names; None where it is empty."""
    if not cfg.DATASETS.TARGET:
        return None
    return _open(cfg.DATASETS.TARGET, cfg.DATASETS.TARGET_WEIGHTS, "DATASETS.TARGET")


def joined_name(names: Sequence[str], weights: Sequence[float] = ()) -> str:
    """For example gta5_train, or gta5_train (70 %) + synthia_train (30 %)."""
    shares = [f" ({100 * weight / sum(weights):.3g} %)" for weight in weights] or [""] * len(names)
    return " + ".join(f"{name}{share}" for name, share in zip(names, shares, strict=True))


def check_same_classes(
    first: SegmentationDataset, other: SegmentationDataset, setting: str
) -> None:
    """Raise UserError if the classes of two datasets differ, in names or order."""
    if first.taxonomy.class_names == other.taxonomy.class_names:
        return
    a, b = first.taxonomy, other.taxonomy
    differing = next(
        (i for i, (x, y) in enumerate(zip(a.class_names, b.class_names, strict=False)) if x != y),
        min(a.num_classes, b.num_classes),
    )
    shown = " and ".join(
        f"'{dataset.name}' has {_class_at(dataset.taxonomy, differing)}"
        for dataset in (first, other)
    )
    raise UserError(
        f"{setting}: the datasets '{first.name}' (taxonomy '{a.name}', {a.num_classes} classes) "
        f"and '{other.name}' ('{b.name}', {b.num_classes}) have different classes: as class "
        f"{differing} {shown}; use datasets of the same classes in the same order"
    )


def _class_at(taxonomy: Taxonomy, train_id: int) -> str:
    names = taxonomy.class_names
    return f"'{names[train_id]}'" if train_id < len(names) else "none"


def _open(names: Sequence[str], weights: Sequence[float], setting: str) -> SegmentationDataset:
    datasets = [open_dataset(name) for name in names]
    return datasets[0] if len(datasets) == 1 else JoinedDataset(datasets, weights, setting)
