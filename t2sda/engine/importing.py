"""Weights that others trained, turned into a checkpoint of ours: every tensor accounted for."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import load_config
from t2sda.data.taxonomies import Taxonomy
from t2sda.engine.checkpoint import checkpoint_content, save_checkpoint
from t2sda.engine.checkpoint_validation import in_range, is_finite
from t2sda.errors import UserError
from t2sda.modeling.meta_device import on_meta_device
from t2sda.modeling.segmentor import SegmentationModel, build_segmentation_model
from t2sda.weights.formats import BRANCHES, FORMATS, OTHER_PARTS, WeightFormat, recognised
from t2sda.weights.parts import Assembly, assemble
from t2sda.weights.published import WeightFile
from t2sda.weights.strict import is_counter

_SHOWN = 3
SEED = 0
"""Of a head that a file lacks."""


@dataclass(frozen=True)
class Network:
    """One network of a file.

    Attributes:
        file: that it is in.
        branch: one of BRANCHES; a file with one network has a student alone.
        layout: of its names.
        state: its tensors, by the names that the layout knows.
        prefix: what stands before these names in the file.
        beside: the file's other tensors, and why they are none of this network.
    """

    file: WeightFile
    branch: str
    layout: WeightFormat
    state: dict[str, Tensor]
    prefix: str
    beside: dict[str, str]


@dataclass(frozen=True)
class Row:
    """What became of a tensor: `used_as` names of ours, or `left_out` for a reason."""

    name: str
    shape: tuple[int, ...]
    used_as: tuple[str, ...] = ()
    left_out: str = ""

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        became = f"used as {', '.join(self.used_as)}" if self.used_as else f"not: {self.left_out}"
        return f"{self.name} ({shape}) {became}"


@dataclass(frozen=True)
class Imported:
    """A network of ours with the tensors of a file.

    Attributes:
        network: that it was.
        cfg: resolved; MODEL describes it.
        taxonomy: of its classes.
        tensors: by the names of a SegmentationModel, all of them.
        rows: one for every tensor of the file.
        added: names of ours that the file does not hold, and where they come from.
    """

    network: Network
    cfg: CfgNode
    taxonomy: Taxonomy
    tensors: dict[str, Tensor]
    rows: list[Row]
    added: dict[str, str]

    @property
    def provenance(self) -> dict[str, str]:
        """What a checkpoint says about its source."""
        return {
            "file": self.network.file.path.name,
            "sha256": self.network.file.sha256,
            "format": self.network.layout.name,
            "branch": self.network.branch,
            "licence": self.network.layout.licence,
        }


def network_of(file: WeightFile, branch: str = "student") -> Network:
    """The network that `branch` names.

    Raises:
        UserError: if there is none, or its layout is unknown.
    """
    prefixes = {
        name: prefix
        for name, prefix in BRANCHES.items()
        if any(key.startswith(prefix) for key in file.tensors)
    }
    if branch not in prefixes and (prefixes or branch != "student"):
        raise UserError(
            f"{file.path}: holds no {branch}, but {', '.join(prefixes) or 'one network alone'}"
        )
    prefix = prefixes.get(branch, "")
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in file.tensors.items()
        if name.startswith(prefix)
    }
    reasons = {
        prefix: f"the {name}; --branch {name} imports it"
        for name, prefix in prefixes.items()
        if name != branch
    } | OTHER_PARTS
    strange = [name for name, tensor in state.items() if not _is_plain(tensor)]
    if strange:
        raise UserError(f"{file.path}: {_counted('sparse, quantized or without content', strange)}")
    others = [name for name in file.tensors if not name.startswith(prefix)]
    beside = {
        name: why
        for name in others
        for beginning, why in reasons.items()
        if name.startswith(beginning)
    }
    unknown = [name for name in others if name not in beside]
    if unknown:
        raise UserError(f"{file.path}: {_counted('belong to no network', unknown)}")
    names = list(state)
    layout = recognised(state.keys())
    while layout is None and (common := _common_beginning(state)):
        prefix += common
        state = {name.removeprefix(common): tensor for name, tensor in state.items()}
        layout = recognised(state.keys())
    if layout is None:
        raise UserError(
            f"{file.path}: {len(state)} tensors ({', '.join(names[:_SHOWN])}, …) in no known "
            f"layout; known are: {'; '.join(layout.name for layout in FORMATS)}"
        )
    return Network(file, branch, layout, state, prefix, beside)


def _common_beginning(names: Collection[str]) -> str:
    """The part up to a first dot that all names have, such as "module."; "" if there is none."""
    beginnings = {name.partition(".")[0] + "." for name in names}
    (beginning,) = beginnings if len(beginnings) == 1 else ("",)
    return beginning if all(len(name) > len(beginning) for name in names) else ""


def import_network(
    network: Network,
    taxonomy: Taxonomy,
    config_file: str | None = None,
    overrides: Sequence[str] = (),
) -> Imported:
    """Put the tensors of a file into a network of ours.

    Args:
        network: of the file.
        taxonomy: of its classes.
        config_file: whose MODEL it is to be; None: what the tensors show.
        overrides: KEY VALUE pairs.

    Raises:
        UserError: naming the tensors that are missing, unknown, of another shape or not finite.
    """
    layout, path = network.layout, network.file.path
    try:
        assembly = assemble(network.state, layout.place)
        found = {} if config_file is not None else layout.settings(assembly.tensors)
        cfg = _config(network, found, config_file, overrides)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    model = _built(cfg, layout, taxonomy)
    assembly = _by_own_names(assembly, model)
    own = model.state_dict()
    rows, unexplained = _rows(network, assembly, model, own.keys())
    tensors = {
        name: _converted(tensor, own[name])
        for name, tensor in assembly.tensors.items()
        if name in own
    }
    added = _added(layout, model, own, tensors)
    tensors |= {name: tensor for name, (tensor, _) in added.items()}
    problems = {
        "that nothing explains": [*unexplained, *_incomplete(assembly, network.prefix)],
        "missing": _missing(own.keys(), tensors, assembly),
        **_unfit(tensors, own, assembly),
    }
    found_wrong = [_counted(what, names) for what, names in problems.items() if names]
    if found_wrong:
        raise UserError(
            f"{path}: {layout.name}: {'; '.join(found_wrong)}. Is the file complete, of this "
            f"network, and of {taxonomy.name}'s {taxonomy.num_classes} classes (--taxonomy)?"
        )
    why = {name: reason for name, (_, reason) in added.items()}
    return Imported(network, cfg, taxonomy, {name: tensors[name] for name in own}, rows, why)


def write_imported(imported: Imported, output: Path) -> None:
    """The checkpoint, whole or not at all."""
    state = {f"student.model.{name}": tensor for name, tensor in imported.tensors.items()}
    content = checkpoint_content(imported.cfg, imported.taxonomy, iteration=0)
    empty = ("optimizer", "pass_optimizers", "hooks", "scaler", "data")
    parts: dict[str, Any] = {name: {} for name in empty}
    save_checkpoint(
        output, {**content, **parts, "meta_arch": state, "provenance": imported.provenance}
    )


def _config(
    network: Network,
    found: Mapping[str, Any],
    config_file: str | None,
    overrides: Sequence[str],
) -> CfgNode:
    settings = {**found, **network.layout.exact, "MODEL.BACKBONE.WEIGHTS": ""}
    said = {word.partition("=")[0] for word in overrides}
    for key, choices in network.layout.asked.items():
        if config_file is None and key not in said:
            raise UserError(f"{network.layout.name}: give {key}, {choices}")
    pairs = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return load_config(config_file, [*pairs, *overrides])


def _built(cfg: CfgNode, layout: WeightFormat, taxonomy: Taxonomy) -> SegmentationModel:
    """The network; without memory or random numbers if the file fills it."""
    if layout.has_head:
        with on_meta_device():
            return build_segmentation_model(cfg, taxonomy.num_classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return build_segmentation_model(cfg, taxonomy.num_classes)


def _by_own_names(assembly: Assembly, model: SegmentationModel) -> Assembly:
    """Names of timm's networks as its `features_only` forms have them."""
    names = {
        f"backbone.{theirs}": f"backbone.{ours}"
        for theirs, ours in model.backbone.published_names().items()
        if ours is not None
    }
    return Assembly(
        {names.get(name, name): tensor for name, tensor in assembly.tensors.items()},
        {names.get(name, name): sources for name, sources in assembly.sources.items()},
        assembly.incomplete,
    )


def _rows(
    network: Network, assembly: Assembly, model: SegmentationModel, own: AbstractSet[str]
) -> tuple[list[Row], list[str]]:
    """What became of every tensor of the file; the names of those that nothing explains."""
    used: dict[str, list[str]] = defaultdict(list)
    strange: set[str] = set()
    for target, sources in assembly.sources.items():
        for source in sources:
            used[source].append(target)
        if target not in own:
            strange.update(sources)
    without = {
        f"backbone.{theirs}"
        for theirs, ours in model.backbone.published_names().items()
        if ours is None
    }
    rows, unexplained = [], []
    for full_name, tensor in network.file.tensors.items():
        name = full_name.removeprefix(network.prefix)
        row = Row(full_name, tuple(tensor.shape))
        if full_name in network.beside:
            row = replace(row, left_out=network.beside[full_name])
        elif name in used and name not in strange:
            row = replace(row, used_as=tuple(used[name]))
        elif is_counter(name) and _statistics_of(used[name]) & own:
            row = replace(row, left_out="a count of steps, which this network does not keep")
        elif why := _why_left_out(name, used[name], network.layout, without):
            row = replace(row, left_out=why)
        elif used[name]:
            unexplained.append(full_name)
        rows.append(row)
    return rows, unexplained


def _why_left_out(
    name: str, targets: Sequence[str], layout: WeightFormat, without: Collection[str]
) -> str | None:
    if targets and all(target in without for target in targets):
        return "of the classifier or a level, which this backbone does not have"
    return layout.why_left_out(name)


def _statistics_of(counters: Sequence[str]) -> set[str]:
    """Names of the variances that belong to the counters of BatchNorms."""
    return {f"{name.rpartition('.')[0]}.running_var" for name in counters}


def _incomplete(assembly: Assembly, prefix: str) -> list[str]:
    return [
        f"{prefix}{name} (the other part of {target} is not there)"
        for target, names in assembly.incomplete.items()
        for name in names
    ]


def _missing(own: Collection[str], tensors: Collection[str], assembly: Assembly) -> list[str]:
    """Names that the file lacks, in its own words where a neighbour there shows them."""
    everything = {**assembly.sources, **assembly.incomplete}
    there = {source for sources in everything.values() for source in sources}
    missing = []
    for name in own:
        if name in tensors:
            continue
        stem, _, kind = name.rpartition(".")
        neighbour = next((n for n in assembly.sources if n.rpartition(".")[0] == stem), None)
        theirs = [
            f"{source.rpartition('.')[0]}.{kind}"
            for source in (assembly.sources[neighbour] if neighbour else [])
        ]
        lacking = [source for source in theirs if source not in there]
        missing.append(f"{', '.join(lacking)} ({name})" if lacking else name)
    return missing


def _unfit(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], assembly: Assembly
) -> dict[str, list[str]]:
    """Tensors that cannot take the place of ours, by their names in the file."""
    unfit: dict[str, list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        theirs = " + ".join(assembly.sources.get(name, [name]))
        if tensor.shape != own[name].shape:
            shapes = f"{tuple(tensor.shape)} for {tuple(own[name].shape)}"
            unfit["of another shape"].append(f"{theirs} {shapes}")
        elif tensor.dtype != own[name].dtype:
            unfit["of another type"].append(f"{theirs} {tensor.dtype}")
        elif not is_finite(tensor):
            unfit["not finite"].append(theirs)
        elif not in_range(name, tensor):
            unfit["out of range"].append(theirs)
    return unfit


def _added(
    layout: WeightFormat,
    model: SegmentationModel,
    own: Mapping[str, Tensor],
    tensors: Collection[str],
) -> dict[str, tuple[Tensor, str]]:
    """Tensors that the file does not hold and need not, and where each comes from."""
    normalisation = {
        "pixel_mean": layout.normalisation.get("pixel_mean", model.backbone.pixel_mean),
        "pixel_std": layout.normalisation.get("pixel_std", model.backbone.pixel_std),
    }
    added: dict[str, tuple[Tensor, str]] = {}
    for name, values in normalisation.items():
        value = torch.tensor(values).view(3, 1, 1)
        added[name] = (value, "the normalisation of R, G, B that the weights expect")
    fresh = ("head.", "attention.", "aux_head.", *_fresh_of(model))
    for name, tensor in own.items():
        if name in tensors or name in added:
            continue
        if is_counter(name):
            added[name] = (torch.zeros((), dtype=tensor.dtype), "a count of steps, from 0")
        elif not layout.has_head and name.startswith(fresh):
            added[name] = (tensor, f"drawn at random (seed {SEED}): it has to be trained")
    return added


def _fresh_of(model: SegmentationModel) -> list[str]:
    """Beginnings of names of what no file of weights fills."""
    fresh = model.backbone.fresh_modules()
    return [
        f"backbone.{name}."
        for name, module in model.backbone.named_modules()
        if any(module is one for one in fresh)
    ]


def _is_plain(tensor: Tensor) -> bool:
    is_dense = tensor.layout == torch.strided and not tensor.is_quantized
    return is_dense and tensor.device.type != "meta"


def _converted(tensor: Tensor, own: Tensor) -> Tensor:
    """In our type; half precision becomes float32."""
    both_floating = tensor.is_floating_point() and own.is_floating_point()
    return tensor.to(own.dtype) if both_floating else tensor


def _counted(what: str, names: Sequence[str]) -> str:
    more = " …" if len(names) > _SHOWN else ""
    return f"{len(names)} tensors {what}: {', '.join(names[:_SHOWN])}{more}"
