"""The decisions of docs/fidelity.md, section B, that are in force in a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fvcore.common.config import CfgNode

from t2sda.data.translation.photometric import ColorJitterTranslator, GaussianBlurTranslator
from t2sda.engine.reweighting import reweighting_hooks, reweights_dynamically
from t2sda.meta_arch.base import has_pass, pass_classes, recording_passes
from t2sda.meta_arch.pull import contrasts, pulls
from t2sda.meta_arch.self_training import MixedPass
from t2sda.meta_arch.target_labels import reads_pseudo_labels
from t2sda.modeling.hrda import is_hrda
from t2sda.registry import META_ARCHS, TRANSLATORS


@dataclass(frozen=True)
class Decision:
    """One row of docs/fidelity.md.

    Args:
        row: its id there.
        in_force: whether it matters in a run.
        text: what is done in that run.
    """

    row: str
    in_force: Callable[[CfgNode], bool]
    text: Callable[[CfgNode], str]


def decisions_in_force(cfg: CfgNode) -> list[tuple[str, str]]:
    """(row, what is done) of every decision that matters in a run with this configuration."""
    return [(item.row, item.text(cfg)) for item in DECISIONS if item.in_force(cfg)]


def _has_target_negatives(cfg: CfgNode) -> bool:
    return contrasts(cfg) and cfg.T2SDA.NEGATIVE_STRATEGY != "source"


def _has_teacher(cfg: CfgNode) -> bool:
    return META_ARCHS.get(cfg.META_ARCH.NAME).has_teacher


def _labelled_domains(cfg: CfgNode) -> set[str | None]:
    return {cls.labelled_domain for cls in pass_classes(cfg).values()}


def _labels_translated(cfg: CfgNode) -> bool:
    return "translated" in _labelled_domains(cfg)


def _cross_entropy_of_translated(cfg: CfgNode) -> str:
    if not _labels_translated(cfg):
        return "no cross entropy on translated images"
    beside = "beside" if "source" in _labelled_domains(cfg) else "in place of"
    return f"cross entropy on translated images {beside} the source"


def _translates_to_the_target(cfg: CfgNode) -> bool:
    name = cfg.TRANSLATION.NAME
    return bool(name) and TRANSLATORS.get(name).needs_target


def _translated_window(cfg: CfgNode) -> str:
    window = cfg.DATA.SOURCE_WINDOW
    return f"a window of {window[0]} x {window[1]}" if window else "the whole source image"


def _always(text: str) -> Callable[[CfgNode], str]:
    return lambda cfg: text


DECISIONS = (
    Decision("B1", pulls, lambda cfg: f"Eq. (3) as T2SDA.REDUCTION {cfg.T2SDA.REDUCTION}"),
    Decision("B2", reweights_dynamically, _always("Eq. (12) divides by the largest gap")),
    Decision(
        "B3",
        reweights_dynamically,
        lambda cfg: f"Eq. (12) to the power β, REWEIGHTING.EXPONENT {cfg.REWEIGHTING.EXPONENT}",
    ),
    Decision(
        "B4",
        reweights_dynamically,
        lambda cfg: f"conf(c) of classes never predicted: {cfg.REWEIGHTING.UNPREDICTED}",
    ),
    Decision("B5", pulls, _always("classes absent from the source batch are skipped")),
    Decision(
        "B6", pulls, lambda cfg: f"prototypes: T2SDA.PROTOTYPE_NORM {cfg.T2SDA.PROTOTYPE_NORM}"
    ),
    Decision("B7", pulls, _always("a cell has the label at its centre")),
    Decision(
        "B8",
        reweights_dynamically,
        _always("conf(c) at the resolution of the predictions"),
    ),
    Decision("B9", _has_target_negatives, _always("γ is a percentile of the whole batch")),
    Decision("B10", contrasts, _always("negatives of the query's own class alone")),
    Decision("B11", contrasts, _always("unlabelled pixels are never negatives")),
    Decision(
        "B12",
        lambda cfg: contrasts(cfg) and cfg.T2SDA.NEGATIVE_DRAW == "replacement",
        _always("negatives are drawn for a class, not for a query"),
    ),
    Decision(
        "B13",
        pulls,
        lambda cfg: (
            f"draws: T2SDA.QUERY_DRAW {cfg.T2SDA.QUERY_DRAW}"
            + (f", T2SDA.NEGATIVE_DRAW {cfg.T2SDA.NEGATIVE_DRAW}" if contrasts(cfg) else "")
        ),
    ),
    Decision("B14", is_hrda, _always("pull loss and feature distance read HRDA's context")),
    Decision(
        "B15",
        _has_teacher,
        lambda cfg: (
            f"META_ARCH.TEACHER_NORM {cfg.META_ARCH.TEACHER_NORM}; the student records "
            f"{', '.join(recording_passes(cfg))}"
        ),
    ),
    Decision(
        "B16",
        pulls,
        lambda cfg: (
            f"projector: kernel {cfg.MODEL.PROJECTOR.KERNEL_SIZE}, "
            f"level {cfg.MODEL.PROJECTOR.LEVEL} of the backbone"
        ),
    ),
    Decision(
        "B17",
        reads_pseudo_labels,
        lambda cfg: f"q of (S2): SELF_TRAINING.QUALITY {cfg.SELF_TRAINING.QUALITY}, and >=",
    ),
    Decision(
        "B18",
        lambda cfg: has_pass(cfg, MixedPass),
        _always("L_target on mixed, augmented images; the teacher sees the clean target"),
    ),
    Decision(
        "B19", lambda cfg: pulls(cfg) or _labels_translated(cfg), _cross_entropy_of_translated
    ),
    Decision(
        "B25",
        _translates_to_the_target,
        lambda cfg: (
            f"{_translated_window(cfg)} is translated, then cropped; rare classes count in the crop"
        ),
    ),
    Decision(
        "B26",
        lambda cfg: contrasts(cfg) and not cfg.DATASETS.TARGET,
        _always("no target: all negatives from the source"),
    ),
    Decision(
        "B28",
        lambda cfg: TRANSLATORS.is_a(
            cfg.TRANSLATION.NAME, ColorJitterTranslator, GaussianBlurTranslator
        ),
        lambda cfg: f"{cfg.TRANSLATION.NAME} with SimCLR's values",
    ),
    Decision("B30", _has_teacher, lambda cfg: f"η: EMA.MOMENTUM {cfg.EMA.MOMENTUM}"),
    Decision(
        "B31",
        lambda cfg: bool(reweighting_hooks(cfg)),
        lambda cfg: (
            "class weights are divided by their sum"
            + (
                ", then by their mean over the pixels that count"
                if cfg.REWEIGHTING.APPLY_TO == "target"
                else ""
            )
        ),
    ),
    Decision(
        "B32",
        lambda cfg: (
            pulls(cfg) and (cfg.T2SDA.QUERY_DRAW, cfg.T2SDA.REDUCTION) != ("exact", "class_mean")
        ),
        lambda cfg: f"queries: T2SDA.QUERY_STRATEGY {cfg.T2SDA.QUERY_STRATEGY}",
    ),
    Decision(
        "B35",
        lambda cfg: contrasts(cfg) and cfg.T2SDA.NEGATIVE_STRATEGY == "domain_equalized",
        _always("a domain without candidates leaves all m to the other"),
    ),
)
"""One for every row of section B; a test holds the two against each other."""
