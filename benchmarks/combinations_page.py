"""Which method combines with which option, as the page docs/combinations.md.

    python -m benchmarks.combinations_page > docs/combinations.md
    python -m benchmarks.combinations_page --step    # two steps of each on a tiny network instead

Every cell is a configuration that the schema resolved or refused; nothing is written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import yaml
from fvcore.common.config import CfgNode

import t2sda.builtin  # noqa: F401  (fills the registries)
from t2sda.config import SCHEMA, ConfigError, load_config
from t2sda.config.schema import flat_items
from t2sda.meta_arch.base import pass_names
from t2sda.registry import HOOKS, META_ARCHS

ROOT = Path(__file__).parents[1]
TEXT = Path(__file__).with_name("combinations_page.md")
Changes = dict[str, str]
Option = Callable[[CfgNode], Changes]
NETWORK = ("MODEL.BACKBONE", "MODEL.HEAD")
TARGET = {"DATASETS.TARGET": "streets_hazy_train"}
FDA = {"TRANSLATION.NAME": "FDA"}

METHODS: dict[str, tuple[str, Changes]] = {
    "source only": ("quickstart_source_only", {}),
    "FDA": ("quickstart_source_only", {"META_ARCH.PASSES": "[translated]", **TARGET, **FDA}),
    "MinEnt": ("streets/minent", {}),
    "AdaptSegNet": ("streets/adaptsegnet", {}),
    "AdaptSegNet, multi-level": ("streets/adaptsegnet_multi", {}),
    "ADVENT": ("streets/advent", {}),
    "CBST": ("streets/cbst", {}),
    "DACS, DAFormer": ("streets/self_training", {}),
    "MIC": ("streets/self_training", {"META_ARCH.PASSES": "[source, mixed, masked]"}),
    "FST": ("streets/fst", {}),
    "SePiCo": ("streets/sepico", {}),
    "T2S-DA": ("quickstart", {}),
    "T2S-DA with MIC": ("quickstart", {"META_ARCH.PASSES": "[source, mixed, pull, masked]"}),
    "T2S-DA without a target": (
        "quickstart_source_only",
        {
            "META_ARCH.NAME": "T2SDA",
            "META_ARCH.PASSES": "[source, pull]",
            "TRANSLATION.NAME": "RandomStyleFDA",
            "T2SDA.NEGATIVE_STRATEGY": "source",
            "HOOKS.NAMES": "[EmaTeacher]",
        },
    ),
}
"""Configuration without its suffix, and what is changed in it."""


def with_passes(*added: str, **replaced: str) -> Option:
    """List passes behind those of the method, or one in place of a pass of its own."""

    def option(cfg: CfgNode) -> Changes:
        names = [replaced.get(name, name) for name in pass_names(cfg)]
        names += [name for name in added if name not in names]
        return {"META_ARCH.PASSES": f"[{', '.join(names)}]"}

    return option


def taught(cfg: CfgNode, meta_arch: str = "SelfTraining", embeds: bool = False) -> Changes:
    """A teacher, and a projector if wanted, where the method has none."""
    own = META_ARCHS.get(cfg.META_ARCH.NAME)
    changes = {}
    if not own.has_teacher or (embeds and not own.has_projector):
        changes["META_ARCH.NAME"] = meta_arch
    if not any(HOOKS.get(name).updates_teacher for name in cfg.HOOKS.NAMES):
        changes["HOOKS.NAMES"] = f"[{', '.join([*cfg.HOOKS.NAMES, 'EmaTeacher'])}]"
    return changes


def translated(cfg: CfgNode) -> Changes:
    """A translator and its target, where the method has none."""
    return {} if cfg.TRANSLATION.NAME else FDA | on_target(cfg)


def on_target(cfg: CfgNode) -> Changes:
    """A target, where the method has none."""
    return {} if cfg.DATASETS.TARGET else TARGET


def joined(*parts: Option | Changes) -> Option:
    """What all of them change."""

    def option(cfg: CfgNode) -> Changes:
        changes: Changes = {}
        for part in parts:
            changes |= part if isinstance(part, dict) else part(cfg)
        return changes

    return option


def hook(name: str) -> Option:
    """One hook more, behind those of the method."""

    def option(cfg: CfgNode) -> Changes:
        names = [*cfg.HOOKS.NAMES, *([] if name in cfg.HOOKS.NAMES else [name])]
        return {"HOOKS.NAMES": f"[{', '.join(names)}]"}

    return option


def future_teacher(cfg: CfgNode) -> Changes:
    """`FutureTeacher` in place of `EmaTeacher`."""
    names = [name for name in cfg.HOOKS.NAMES if not HOOKS.get(name).updates_teacher]
    return {"HOOKS.NAMES": f"[{', '.join(['FutureTeacher', *names])}]"}


def pulled(cfg: CfgNode) -> Changes:
    """The pull loss with what it needs."""
    return taught(cfg, "T2SDA", embeds=True) | translated(cfg)


def hrda(cfg: CfgNode) -> Changes:
    """HRDA's model with details of half the crop."""
    height, width = cfg.DATA.CROP_SIZE
    detail, window = f"[{height // 2}, {width // 2}]", f"[{height}, {width}]"
    sizes = {"MODEL.HRDA.DETAIL_SIZE": detail, "MODEL.HRDA.WINDOW_SIZE": window}
    return {"MODEL.NAME": "HRDA", **sizes}


def network(backbone: str, head: str, **settings: str) -> Changes:
    """Backbone and head by name; settings of MODEL.BACKBONE."""
    own = {f"MODEL.BACKBONE.{key}": value for key, value in settings.items()}
    return {"MODEL.BACKBONE.NAME": backbone, "MODEL.HEAD.NAME": head, **own}


VIT = "vit_small_patch14_dinov2.lvd142m"
LINEAR_VIT = network("TimmViT", "LinearHead", TIMM_NAME=VIT, PYRAMID_CHANNELS="0")

TABLES: dict[str, dict[str, Option]] = {
    "losses": {
        "pull loss": joined(with_passes("pull"), pulled),
        "masked images (MIC)": joined(with_passes("masked"), taught, on_target),
        "ClassMix": joined(with_passes("mixed"), taught, on_target),
        "entropy": joined(with_passes("entropy"), on_target),
        "adversarial output": joined(
            with_passes("output_adversarial", source="source_output"), on_target
        ),
        "SePiCo's contrast": joined(
            with_passes("target_contrast", source="source_contrast"),
            lambda cfg: taught(cfg, "SePiCo", embeds=True),
            on_target,
        ),
        "labelled target": joined(with_passes("labelled_target"), on_target),
        "cross entropy on FDA's images": joined(with_passes(source="translated"), translated),
        "on translated files": joined(
            with_passes(source="translated"),
            {"TRANSLATION.NAME": "Files", "TRANSLATION.ROOT": "translated"},
        ),
        "feature distance": joined({"FEATURE_DISTANCE.WEIGHT": "0.005"}),
    },
    "training": {
        "look-ahead teacher (FST)": future_teacher,
        "re-weighting of pull": hook("DynamicReweighting"),
        "re-weighting of the target": joined(
            hook("DynamicReweighting"), {"REWEIGHTING.APPLY_TO": "target"}
        ),
        "running prototypes": joined({"T2SDA.PROTOTYPES": "running"}),
        "rare classes": joined({"RARE_CLASSES.ENABLED": "true"}),
        "class-balanced target crops": joined({"DATA.TARGET_CROP": "class_balanced"}),
        "mirrored pseudo-labels": joined({"SELF_TRAINING.FLIP": "true"}),
        "teacher's running statistics": joined({"META_ARCH.TEACHER_NORM": "running"}),
        "target statistics": joined(with_passes("target_statistics"), on_target),
        "source jitter": joined({"SOURCE_AUGMENTATION.JITTER_PROBABILITY": "0.8"}),
        "frozen BatchNorm": joined({"MODEL.NORM": "frozen"}),
        "frozen scale and shift": joined({"MODEL.NORM": "frozen_affine"}),
        "two micro-steps": joined({"SOLVER.ACCUMULATION": "2"}),
    },
    "networks": {
        "DeepLabV2": joined(network("ResNetV1c", "DeepLabV2Head", DEPTH="101")),
        "DeepLabV2, corners aligned": joined(
            network("ResNetCaffe", "DeepLabV2Head", DEPTH="101"),
            {"MODEL.NAME": "CornerAlignedModel"},
        ),
        "DAFormer, MiT": joined(network("MiT", "DAFormerHead", VARIANT="b5")),
        "SegFormer, MiT": joined(network("MiT", "SegFormerHead", VARIANT="b5")),
        "SegFormer head, ViT": joined(network("TimmViT", "SegFormerHead", TIMM_NAME=VIT)),
        "linear head, ViT": joined(LINEAR_VIT),
        "adapters of a ViT": joined(LINEAR_VIT, {"MODEL.BACKBONE.TRAIN": "adapters"}),
        "frozen ViT": joined(LINEAR_VIT, {"MODEL.BACKBONE.TRAIN": "none"}),
        "hidden tokens of a ViT": joined(
            with_passes("masked"), taught, on_target, LINEAR_VIT, {"MASKED.UNIT": "tokens"}
        ),
        "light head, CNN": joined(
            network("TimmCNN", "LightHead", TIMM_NAME="tf_efficientnet_lite0")
        ),
        "HRDA around it": hrda,
        "auxiliary head": joined({"MODEL.AUX_HEAD.NAME": "LightHead"}),
    },
}


@cache
def keys_of(name: str) -> Changes:
    """What a method sets beside its network: the network is the default one, with weights."""
    path, changes = METHODS[name]
    cfg = load_config(ROOT / "configs" / f"{path}.yaml", words_of(changes))
    found = {
        key: yaml.safe_dump(list(value) if isinstance(value, tuple) else value).split("\n...")[0]
        for key, value in flat_items(cfg)
        if value != SCHEMA.fields[key].default and not key.startswith(NETWORK)
    }
    return found | {"MODEL.BACKBONE.WEIGHTS": "weights.pth"}


def words_of(changes: Changes) -> list[str]:
    """As a command line has them."""
    return [word for pair in changes.items() for word in pair]


@cache
def method(name: str) -> CfgNode:
    """A method without additions."""
    return load_config(None, words_of(keys_of(name)))


def combined(name: str, option: Option, others: Changes | None = None) -> CfgNode:
    """A method with an option; ConfigError where the schema refuses it."""
    return load_config(None, words_of(keys_of(name) | option(method(name)) | (others or {})))


def answer(name: str, option: Option) -> str:
    """What a cell says: yes, own, or the first sentence of the schema's refusal."""
    try:
        return "own" if combined(name, option) == method(name) else "yes"
    except ConfigError as error:
        return re.sub(r"; found [^;]* \(command line\)", "", error.problems[0])


def answers(name: str) -> Iterator[tuple[str, str, str]]:
    """Table, option and answer of everything that is tried with a method."""
    for table, options in TABLES.items():
        for title, option in options.items():
            yield table, title, answer(name, option)


def page() -> str:
    """The text around the tables, and the tables."""
    found = {name: {title: said for _, title, said in answers(name)} for name in METHODS}
    text = TEXT.read_text(encoding="utf-8")
    for table, options in TABLES.items():
        rows = {name: [said[title] for title in options] for name, said in found.items()}
        text = text.replace(f"{{{table}}}", table_of(list(options), rows))
    return text


def table_of(titles: list[str], rows: dict[str, list[str]]) -> str:
    """A table, and the sentences that its numbers stand for."""
    cells = [said for said_of in rows.values() for said in said_of]
    notes = [said for said in dict.fromkeys(cells) if said not in ("yes", "own")]
    lines = [f"| method | {' | '.join(titles)} |", f"| --- |{' :---: |' * len(titles)}"]
    for name, said_of in rows.items():
        short = [str(notes.index(said) + 1) if said in notes else said for said in said_of]
        lines.append(f"| {name} | {' | '.join(short)} |")
    return "\n".join([*lines, "", *(f"{n}. {note}" for n, note in enumerate(notes, start=1))])


def main() -> int:
    """Print the page, or step every combination that the schema takes."""
    if "--step" not in sys.argv[1:]:
        print(page(), end="")
        return 0
    from benchmarks.combination_steps import failures

    found = list(failures())
    print("\n".join([*found, f"{len(found)} combinations fail"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
