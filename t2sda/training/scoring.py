"""Scores of a student: during a run, at its end, of a checkpoint."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

import torch
from fvcore.common.config import CfgNode

from t2sda.data.catalog import open_dataset
from t2sda.data.joined import source_taxonomy
from t2sda.data.taxonomies import Taxonomy
from t2sda.distributed import is_main
from t2sda.engine.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights_,
    resolve_checkpoint,
)
from t2sda.engine.metrics import advancing, progress_bar, standard_console
from t2sda.errors import UserError
from t2sda.evaluation.evaluator import Progress, Scores, evaluate
from t2sda.files import atomic_write, json_text, make_writable_dir
from t2sda.modeling.segmentor import SegmentationModel, build_segmentation_model
from t2sda.registry import MODELS
from t2sda.runtime.checkpoints import TorchPredictor

logger = logging.getLogger(__name__)


def score_checkpoint(cfg: CfgNode, device: torch.device, weights: str | None) -> list[Scores]:
    """Score a checkpoint's student on EVALUATION.DATASETS, and write evaluation.json.

    Args:
        cfg: resolved.
        device: of this rank.
        weights: checkpoint or run folder; None: the newest checkpoint of OUTPUT_DIR.
    Raises:
        UserError: if there is nothing to score, or nothing to score on.
    """
    if not cfg.EVALUATION.DATASETS:
        raise UserError("EVALUATION.DATASETS: empty, so there is nothing to score on; name some")
    taxonomy = source_taxonomy(cfg)
    untrained = cfg.clone()
    untrained.defrost()
    untrained.MODEL.BACKBONE.WEIGHTS = ""  # the checkpoint holds every weight
    model = build_segmentation_model(untrained, taxonomy.num_classes).to(device)
    load_student_(model, weights or cfg.OUTPUT_DIR, taxonomy)
    with progress_bar(standard_console(quiet=not is_main())) as bar:
        scores = evaluate_all(cfg, model, taxonomy, device, functools.partial(advancing, bar))
    if is_main():
        make_writable_dir(Path(cfg.OUTPUT_DIR), "--output-dir")
        report = {key: value for item in scores for key, value in item.as_metrics().items()}
        path = Path(cfg.OUTPUT_DIR) / "evaluation.json"
        atomic_write(path, json_text(report, indent=1) + "\n")
        logger.info("scores written to %s", path)
    return scores


def check_same_classes(checkpoint: Checkpoint, taxonomy: Taxonomy) -> None:
    """Raise UserError if a checkpoint's classes are not those of this run."""
    if checkpoint.taxonomy.class_names != taxonomy.class_names:
        raise UserError(
            f"{checkpoint.path}: trained with the classes of '{checkpoint.taxonomy.name}', but "
            f"this run has those of '{taxonomy.name}'; use datasets of the same classes"
        )


def load_student_(model: SegmentationModel, weights: str, taxonomy: Taxonomy) -> None:
    """Load the student of a checkpoint or run folder, strictly."""
    checkpoint = load_checkpoint(resolve_checkpoint(Path(weights)))
    check_same_classes(checkpoint, taxonomy)
    load_weights_(model, _student_of(checkpoint), checkpoint.path)


def start_from_(model: SegmentationModel, weights: str, taxonomy: Taxonomy, cfg: CfgNode) -> None:
    """Load the student of a checkpoint or run folder; for other classes the classifier stays new.

    Args:
        model: of the run.
        weights: checkpoint or run folder.
        taxonomy: of the run.
        cfg: of the run; MODEL describes the model.
    """
    checkpoint = load_checkpoint(resolve_checkpoint(Path(weights)))
    state = _student_of(checkpoint)
    if checkpoint.taxonomy.class_names != taxonomy.class_names:
        own = model.state_dict()
        anew = MODELS.get(cfg.MODEL.NAME).class_tensors(cfg, taxonomy.num_classes) & own.keys()
        state |= {name: own[name] for name in anew}
        logger.info(
            "--weights: classes of '%s' -> '%s': classifier starts anew: %s",
            checkpoint.taxonomy.name,
            taxonomy.name,
            ", ".join(name for name in own if name in anew),
        )
    load_weights_(model, state, checkpoint.path)


def _student_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    prefix = "student.model."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint.meta_arch.items()
        if name.startswith(prefix)
    }


def evaluate_all(
    cfg: CfgNode,
    model: SegmentationModel,
    taxonomy: Taxonomy,
    device: torch.device,
    progress: Progress,
) -> list[Scores]:
    """Score a model on every dataset of EVALUATION.DATASETS."""
    bound = tuple(cfg.EVALUATION.IMAGE_SIZE) or None
    predictor = TorchPredictor(model, taxonomy, bound, device)
    return [
        evaluate(predictor, open_dataset(name), taxonomy, progress)
        for name in cfg.EVALUATION.DATASETS
    ]
