"""What a run will do, in words: `show-config --plan`, and plan.txt in a run's folder."""

from __future__ import annotations

from collections.abc import Iterator

from fvcore.common.config import CfgNode

from t2sda.data.datasets import SegmentationDataset
from t2sda.data.domains import DomainPairs
from t2sda.data.joined import joined_name
from t2sda.data.translation.fda import FdaTranslator, RandomStyleFdaTranslator
from t2sda.engine.lookahead import steps_per_iteration
from t2sda.engine.reweighting import reweighting_hooks
from t2sda.meta_arch.base import (
    pass_names,
    reads_target_labels,
    recording_passes,
    teacher_views,
)
from t2sda.meta_arch.feature_distance import carrying_pass
from t2sda.modeling.heads.base import head_names
from t2sda.registry import META_ARCHS, PASSES, TRANSLATORS
from t2sda.training.decisions import decisions_in_force

INDENT = 14


def plan_text(cfg: CfgNode, num_processes: int = 1) -> str:
    """The plan of a run; it needs the configuration alone, no data and no weights."""
    lines: list[str] = []
    for name, texts in _sections(cfg, num_processes):
        for index, text in enumerate(texts):
            lines.append(f"{name if index == 0 else '':<{INDENT}}{text}".rstrip())
    return "\n".join(lines)


def summary_text(cfg: CfgNode, pairs: DomainPairs, num_processes: int) -> list[str]:
    """The few lines that a run begins with."""
    lines = {
        "method": f"{cfg.META_ARCH.NAME} with {_network(cfg)}",
        "passes": ", ".join(pass_names(cfg)),
        "source": _counted(pairs.source),
        "target": "none" if pairs.target is None else _counted(pairs.target),
        "batch": _batch(cfg, num_processes),
    }
    return [f"{name:<{INDENT}}{text}" for name, text in lines.items()]


def _counted(dataset: SegmentationDataset) -> str:
    return f"{dataset.name}, {len(dataset)} images"


def _sections(cfg: CfgNode, num_processes: int) -> Iterator[tuple[str, list[str]]]:
    yield "method", [f"{cfg.META_ARCH.NAME} with {_network(cfg)}"]
    yield "passes", [f"{name:<12} {_forward(cfg, name)}" for name in pass_names(cfg)]
    yield "teacher", _teacher(cfg)
    yield "student BN", [_student_norm(cfg)]
    yield "class weights", [_class_weights(cfg)]
    yield "source", [_source(cfg)]
    yield "target", [_target(cfg)]
    yield "translator", [_translator(cfg)]
    yield "batch", [_batch(cfg, num_processes), _images_per_step(cfg)]
    yield "optimizer", [_optimizer(cfg)]
    decisions = [f"{row:<4} {text}" for row, text in decisions_in_force(cfg)]
    yield "decisions", decisions or ["none of docs/fidelity.md, section B, is in force"]


def _network(cfg: CfgNode) -> str:
    weights = cfg.MODEL.BACKBONE.WEIGHTS or "random weights"
    heads = " and ".join(head_names(cfg))
    trains = {"all": "", "none": ", frozen", "adapters": f", frozen but for {_adapters(cfg)}"}
    return (
        f"{cfg.MODEL.NAME} of {cfg.MODEL.BACKBONE.NAME} "
        f"({weights}{trains[cfg.MODEL.BACKBONE.TRAIN]}) and {heads}"
    )


def _adapters(cfg: CfgNode) -> str:
    adapter = cfg.MODEL.BACKBONE.ADAPTER
    return f"adapters of rank {adapter.RANK} from block {adapter.FROM_BLOCK} on"


def _forward(cfg: CfgNode, name: str) -> str:
    text = PASSES.get(name).forward_of
    if name == _distance_pass(cfg):
        text += f"; feature distance, weight {cfg.FEATURE_DISTANCE.WEIGHT}: the ImageNet encoder"
    return text


def _distance_pass(cfg: CfgNode) -> str | None:
    """The pass that carries the feature distance."""
    return carrying_pass(cfg) if cfg.FEATURE_DISTANCE.WEIGHT > 0 else None


def _teacher_forwards(cfg: CfgNode) -> list[str]:
    outputs: dict[str, list[str]] = {}
    for view in teacher_views(cfg):
        outputs.setdefault(view.image_name, []).append(view.output)
    return [f"{image} image: {' and '.join(items)}" for image, items in outputs.items()]


def _teacher(cfg: CfgNode) -> list[str]:
    if not META_ARCHS.get(cfg.META_ARCH.NAME).has_teacher:
        return ["none"]
    norm = "statistics of each batch" if cfg.META_ARCH.TEACHER_NORM == "batch" else "running ones"
    return [
        f"moving average, EMA.MOMENTUM {cfg.EMA.MOMENTUM} after a ramp; BatchNorm with {norm}",
        *_teacher_forwards(cfg),
    ]


def _student_norm(cfg: CfgNode) -> str:
    kind = {
        "batch": "trained",
        "frozen": "frozen in the backbone",
        "frozen_affine": "scale and shift frozen in the backbone",
    }[cfg.MODEL.NORM]
    return f"{kind}; running statistics record {', '.join(recording_passes(cfg))}"


def _class_weights(cfg: CfgNode) -> str:
    hooks = reweighting_hooks(cfg)
    return f"{hooks[0]} on L_{cfg.REWEIGHTING.APPLY_TO}" if hooks else "uniform"


def _source(cfg: CfgNode) -> str:
    names = joined_name(cfg.DATASETS.SOURCE, cfg.DATASETS.SOURCE_WEIGHTS)
    sampler = "rare classes first" if cfg.RARE_CLASSES.ENABLED else "shuffled"
    window = cfg.DATA.SOURCE_WINDOW
    return (
        f"{names}{_resized(cfg.DATA.SOURCE_SIZE)}{_scaled(cfg.DATA.SOURCE_SCALE_RANGE)}, "
        f"{sampler}; {f'windows of {_size(window)}, ' if window else ''}crops of "
        f"{_size(cfg.DATA.CROP_SIZE)}, one class at most {100 * cfg.DATA.MAX_CLASS_SHARE:g} %"
    )


def _target(cfg: CfgNode) -> str:
    if not cfg.DATASETS.TARGET:
        return "none"
    names = joined_name(cfg.DATASETS.TARGET, cfg.DATASETS.TARGET_WEIGHTS)
    return (
        f"{names}{_resized(cfg.DATA.TARGET_SIZE)}{_scaled(cfg.DATA.TARGET_SCALE_RANGE)}, shuffled; "
        f"{'class-balanced crops by its labels; ' if cfg.DATA.TARGET_CROP != 'random' else ''}"
        f"margins without pseudo-labels {list(cfg.DATA.TARGET_MARGINS)}"
        f"{'; its labels are read' if reads_target_labels(cfg) else ''}"
    )


def _translator(cfg: CfgNode) -> str:
    if TRANSLATORS.is_a(cfg.TRANSLATION.NAME, FdaTranslator, RandomStyleFdaTranslator):
        return f"{cfg.TRANSLATION.NAME}, TRANSLATION.FDA_WINDOW {cfg.TRANSLATION.FDA_WINDOW}"
    return cfg.TRANSLATION.NAME or "none"


def _batch(cfg: CfgNode, num_processes: int) -> str:
    steps = cfg.SOLVER.ACCUMULATION
    return (
        f"{cfg.SOLVER.BATCH_SIZE} images of each domain a step: {num_processes} process(es) x "
        f"{steps} micro-step(s) x {cfg.SOLVER.BATCH_SIZE / (num_processes * steps):g}"
    )


def _images_per_step(cfg: CfgNode) -> str:
    size, student, teacher = (
        cfg.SOLVER.BATCH_SIZE,
        len(pass_names(cfg)),
        len(_teacher_forwards(cfg)),
    )
    frozen = 1 if _distance_pass(cfg) else 0
    times = steps_per_iteration(cfg)
    total = times * size * (student + teacher + frozen)
    undone = f"{times} steps, of which {times - 1} are undone, each " if times > 1 else ""
    parts = f"student {size * student}, teacher {size * teacher}, ImageNet encoder {size * frozen}"
    return f"{total} images through networks a step: {undone}{parts}"


def _optimizer(cfg: CfgNode) -> str:
    solver = cfg.SOLVER
    return (
        f"{solver.OPTIMIZER}, {_backbone_rate(cfg)}, rest "
        f"{solver.BASE_LR * solver.HEAD_LR_FACTOR:g}; "
        f"{solver.WARMUP_ITERS} of {solver.MAX_ITER} iterations warm-up, then to 0 by the power "
        f"{solver.POWER:g}"
    )


def _backbone_rate(cfg: CfgNode) -> str:
    train = cfg.MODEL.BACKBONE.TRAIN
    if train == "none":
        return "backbone frozen"
    return f"{'adapters' if train == 'adapters' else 'backbone'} {cfg.SOLVER.BASE_LR:g}"


def _resized(size: tuple[int, ...]) -> str:
    return f" within {_size(size)}" if size else ""


def _scaled(scale_range: tuple[float, float]) -> str:
    low, high = scale_range
    return f", times {low:g} to {high:g}" if (low, high) != (1, 1) else ""


def _size(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
