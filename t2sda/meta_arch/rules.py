"""Rules between a method, its passes and its hooks: who needs what, and what has no effect."""

from __future__ import annotations

from fvcore.common.config import CfgNode

from t2sda.config import SCHEMA
from t2sda.data.joined import joined_name
from t2sda.meta_arch.base import (
    aux_head_never_learns,
    pass_classes,
    pass_names,
    readings,
    recording_passes,
)
from t2sda.registry import META_ARCHS, MODELS, TRANSLATORS


@SCHEMA.check
def the_auxiliary_head_learns(cfg: CfgNode) -> str | None:
    """A model with a loss of its own says whether it has the head's part."""
    model = MODELS.get(cfg.MODEL.NAME)
    if not cfg.MODEL.AUX_HEAD.NAME or model.trains_aux_head:
        return None
    return aux_head_never_learns(model)


@SCHEMA.check
def passes_and_hooks_have_what_they_read(cfg: CfgNode) -> list[str]:
    """Whoever reads the target or its style needs them set; unread ones are an error too."""
    reads = {name: item.batch_fields for name, item in readings(cfg).items()}
    translated = [name for name, fields in reads.items() if "translated_image" in fields]
    targeted = [name for name, fields in reads.items() if any(map(_of_target, fields))]
    if cfg.TRANSLATION.NAME and TRANSLATORS.get(cfg.TRANSLATION.NAME).needs_target:
        targeted += [f"{name} (through TRANSLATION.NAME)" for name in translated]
    return [
        *_needed_or_without_effect("TRANSLATION.NAME", cfg.TRANSLATION.NAME, translated),
        *_needed_or_without_effect("DATASETS.TARGET", joined_name(cfg.DATASETS.TARGET), targeted),
    ]


@SCHEMA.check
def what_is_shared_was_provided(cfg: CfgNode) -> list[str]:
    """A reader of `Step.shared` comes behind its provider, and there is one of it."""
    classes, provided, problems = pass_classes(cfg), set[str](), []
    for name, reads in readings(cfg).items():
        problems += [
            f"META_ARCH.PASSES: {name} reads '{missing}', which no pass before it provides; "
            f"list a pass that provides it before {name}"
            for missing in sorted(reads.shared - provided)
        ]
        provides = classes[name].provides if name in classes else set()
        problems += [
            f"META_ARCH.PASSES: {name} provides '{twice}', as a pass before it does; list one"
            for twice in sorted(provides & provided)
        ]
        provided |= provides
    return problems


@SCHEMA.check
def names_are_listed_once(cfg: CfgNode) -> list[str]:
    """A pass or hook that is listed twice would run once, or update twice."""
    lists = {"META_ARCH.PASSES": cfg.META_ARCH.PASSES, "HOOKS.NAMES": cfg.HOOKS.NAMES}
    return [
        f"{key}: {', '.join(names)} lists a name twice; list each once"
        for key, names in lists.items()
        if len(set(names)) < len(names)
    ]


def _s(names: list[str]) -> str:
    """What a verb ends in behind these subjects."""
    return "s" if len(names) == 1 else ""


@SCHEMA.check
def there_is_a_teacher_and_a_projector(cfg: CfgNode) -> list[str]:
    """Who learns from a teacher, or from embeddings, needs a method that has them."""
    meta_arch, reads = META_ARCHS.get(cfg.META_ARCH.NAME), readings(cfg)
    taught = [name for name, item in reads.items() if item.views]
    embedded = [
        name
        for name, item in reads.items()
        if any(view.output == "embeddings" for view in item.views)
    ]
    problems = []
    if taught and not meta_arch.has_teacher:
        problems.append(
            f"META_ARCH.NAME: {cfg.META_ARCH.NAME} lacks a teacher, which {', '.join(taught)} "
            f"learn{_s(taught)} from; use one that has a teacher, such as SelfTraining"
        )
    if embedded and not meta_arch.has_projector:
        problems.append(
            f"META_ARCH.NAME: {cfg.META_ARCH.NAME} lacks a projector, whose embeddings "
            f"{', '.join(embedded)} read{_s(embedded)}; use one that has a projector, such as T2SDA"
        )
    return problems


@SCHEMA.check
def statistics_are_recorded(cfg: CfgNode) -> list[str]:
    """BN_TRACK names passes of the step, and those that do nothing but record."""
    unknown = [name for name in cfg.META_ARCH.BN_TRACK if name not in pass_names(cfg)]
    problems = [
        f"META_ARCH.BN_TRACK: {', '.join(unknown)} are no passes of this run, which has "
        f"{', '.join(pass_names(cfg))}"
    ]
    alone = {name for name, cls in pass_classes(cfg).items() if cls.records_alone}
    return (problems if unknown else []) + [
        f"META_ARCH.BN_TRACK: does not list {name}, which has no other effect; list it, or remove "
        f"it from META_ARCH.PASSES"
        for name in sorted(alone - set(recording_passes(cfg)))
    ]


def _of_target(field: str) -> bool:
    return field.startswith("target_")


def _needed_or_without_effect(key: str, value: str, readers: list[str]) -> list[str]:
    if readers and not value:
        return [f"{key}: empty, but read by {', '.join(readers)}; set it"]
    if value and not readers:
        return [f"{key}: '{value}' has no effect in this run, as nothing reads it; remove it"]
    return []
