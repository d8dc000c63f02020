"""Datasets given as YAML files: `DATASETS.FILES`, and what such a file may hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fvcore.common.config import CfgNode

from t2sda.config.errors import shown
from t2sda.config.yaml_text import Tree, read_section
from t2sda.data.catalog import DATASETS, DatasetSpec, OpensDataset, register_dataset
from t2sda.data.dataset_classes import CLASS_KEYS, taxonomy_of
from t2sda.data.dataset_keys import DatasetKeys
from t2sda.data.relabelled import RelabelledSpec, labels_folder
from t2sda.data.taxonomies import ClassGroup, Taxonomy
from t2sda.errors import UserError
from t2sda.registry import nearest_first

REQUIRED = ("name", "root", "images")
OPTIONAL = (
    *("labels", "stems", "splits", "unlabelled", "label_format", "groups"),
    *(*CLASS_KEYS, "class_pixels", "packed_size"),
)
RELABELLED = ("name", "images_of", "labels")
"""All that is needed of a set with another one's images; only classes may be added."""
SPLIT = "{split}"


def register_dataset_files(paths: Iterable[str]) -> None:
    """Register the datasets of every file; one that is registered already as it is stays.

    Raises:
        MissingFileError: if there is no such file.
        UserError: if it cannot be used, or a name is taken by another dataset.
    """
    for path in paths:
        for spec in read_dataset_file(Path(path)):
            if spec.name not in DATASETS:
                register_dataset(spec)
            elif DATASETS.get(spec.name) != spec:
                raise UserError(
                    f"{path}: a dataset called '{spec.name}' is registered already, "
                    f"{DATASETS.get(spec.name).location}; give this one another name"
                )


def check_datasets_known(cfg: CfgNode) -> None:
    """Raise UserError for a dataset of a configuration that nothing knows; none is opened."""
    own = {spec.name for file in cfg.DATASETS.FILES for spec in read_dataset_file(Path(file))}
    for name in (*cfg.DATASETS.SOURCE, *cfg.DATASETS.TARGET, *cfg.EVALUATION.DATASETS):
        if name not in own:
            DATASETS.get(name)


def read_dataset_file(path: Path) -> Sequence[OpensDataset]:
    """The dataset of a YAML file, or one for each of its splits, called NAME_SPLIT.

    A relative root is also looked for beside the file, and there first.

    Raises:
        MissingFileError: if there is no such file.
        UserError: if it cannot be used; the message names file, line and remedy.
    """
    hint = "a pattern that begins with * or { needs quotes"
    reader = _Reader(path, read_section(path, "dataset file", REQUIRED, hint))
    try:
        return [reader.relabelled()] if reader.is_relabelled else reader.specs()
    except UserError as error:  # a taxonomy or a spec does not know what file it is made of
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from None


class _Reader:
    """One file's keys, checked and turned into specs."""

    def __init__(self, path: Path, tree: Tree) -> None:
        self.keys = DatasetKeys(path, tree)
        self.is_relabelled = "images_of" in tree
        required: tuple[str, ...] = RELABELLED if self.is_relabelled else REQUIRED
        optional = CLASS_KEYS if self.is_relabelled else OPTIONAL
        for key in tree:
            if key not in (*required, *optional):
                near = nearest_first(key, [*required, *optional])[0]
                raise self.keys.error(key, f"unknown key; nearest known: {near}")
        for key in required:
            if key not in tree:
                raise UserError(f"{path}: `{key}` is missing; a dataset file needs it")

    def specs(self) -> list[DatasetSpec]:
        """One dataset, or one a split."""
        keys = self.keys
        if "splits" not in keys:
            if "unlabelled" in keys:
                raise keys.error("unlabelled", "has no effect without `splits`; leave out `labels`")
            return [self._spec(None, labelled="labels" in keys)]
        if not any(SPLIT in str(keys.value(key)) for key in ("images", "stems")):
            raise keys.error("splits", f"neither `images` nor `stems` has {SPLIT}")
        splits = keys.texts("splits", keys.value("splits"))
        unlabelled = self._unlabelled(splits)
        return [
            self._spec(split, labelled="labels" in keys and split not in unlabelled)
            for split in splits
        ]

    def relabelled(self) -> RelabelledSpec:
        """Images of another dataset, with labels of a folder beside the file."""
        keys = self.keys
        folder = labels_folder(keys.text("labels"), keys.path.parent)
        taxonomy = taxonomy_of(keys, "ids")
        return RelabelledSpec(keys.text("name"), keys.text("images_of"), folder, taxonomy)

    def _unlabelled(self, splits: list[str]) -> list[str]:
        """Those of the splits that have no labels."""
        named = self.keys.texts("unlabelled", self.keys.value("unlabelled", []))
        for name in named:
            if name not in splits:
                near = nearest_first(name, splits)[0]
                raise self.keys.error("unlabelled", f"no split '{name}'; nearest: {near}")
        if named and "labels" not in self.keys:
            raise self.keys.error("unlabelled", "has no effect without `labels`; delete it")
        return named

    def _spec(self, split: str | None, labelled: bool) -> DatasetSpec:
        """The dataset; of a split, {split} is replaced by it."""
        keys = self.keys

        def pattern(key: str) -> str:
            text = keys.text(key)
            return text.replace(SPLIT, split) if split is not None else text

        label_format = keys.text("label_format") if "label_format" in keys else "ids"
        taxonomy = taxonomy_of(keys, label_format)
        return DatasetSpec(
            name=keys.text("name") + (f"_{split}" if split is not None else ""),
            root=keys.text("root"),
            images=self._images(split),
            labels=pattern("labels") if labelled else None,
            taxonomy=taxonomy,
            stems=pattern("stems") if "stems" in keys else None,
            class_groups=self._groups(taxonomy),
            label_format=label_format,
            beside=str(keys.path.parent.absolute()),
            class_pixels=pattern("class_pixels") if "class_pixels" in keys else None,
            packed_size=keys.size("packed_size") if "packed_size" in keys else None,
        )

    def _images(self, split: str | None) -> str | tuple[str, ...]:
        """A folder or pattern, or a list of them."""
        value = self.keys.value("images")
        patterns = self.keys.texts("images", value) if isinstance(value, list) else [value]
        if not all(isinstance(pattern, str) and pattern for pattern in patterns):
            raise self.keys.error("images", f"found {shown(value)}; must be text, or a list of it")
        if split is not None:
            patterns = [pattern.replace(SPLIT, split) for pattern in patterns]
        return tuple(patterns) if isinstance(value, list) else patterns[0]

    def _groups(self, taxonomy: Taxonomy) -> tuple[ClassGroup, ...]:
        """`groups`: name to class names; every class is in exactly one."""
        if "groups" not in self.keys:
            return ()
        groups, names = [], taxonomy.class_names
        for name, members in self.keys.section("groups").items():
            wanted = self.keys.class_list("groups", names, members)
            groups.append(ClassGroup(name, tuple(names.index(member) for member in wanted)))
        counted = [train_id for group in groups for train_id in group.train_ids]
        wrong = [name for index, name in enumerate(names) if counted.count(index) != 1]
        if wrong:
            raise self.keys.error("groups", f"'{wrong[0]}' must be in exactly one group")
        return tuple(groups)
