"""Scores of a student: during a run, at its end, of a checkpoint."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

import torch
from fvcore.common.config import CfgNode

from t2sda.data.catalog import open_dataset
from t2sda.data.taxonomies import Taxonomy
from t2sda.distributed import is_main
from t2sda.engine.checkpoint import load_checkpoint, load_weights_, resolve_checkpoint
from t2sda.engine.metrics import advancing, progress_bar, standard_console
from t2sda.errors import UserError
from t2sda.evaluation.entries import FILE_NAME, Scores, add_entries, check_can_add
from t2sda.evaluation.evaluator import Progress, check_classes, evaluate
from t2sda.evaluation.model_file import ModelFile
from t2sda.modeling.segmentor import (
    SegmentationModel,
    build_segmentation_model,
    to_be_loaded,
)
from t2sda.runtime.checkpoints import TorchPredictor
from t2sda.runtime.predictor import Predictor
from t2sda.training.starting import student_of

logger = logging.getLogger(__name__)


def score_checkpoint(cfg: CfgNode, device: torch.device, weights: str | None) -> list[Scores]:
    """Score a checkpoint's student on EVALUATION.DATASETS; adds to OUTPUT_DIR/evaluation.json.

    The classes are the checkpoint's, so no dataset but the scored ones is opened.

    Args:
        cfg: resolved.
        device: of this rank.
        weights: checkpoint or run folder; None: the newest checkpoint of OUTPUT_DIR.
    Raises:
        UserError: if there is nothing to score, or nothing to score on.
    """
    if not cfg.EVALUATION.DATASETS:
        raise UserError("EVALUATION.DATASETS: empty, so there is nothing to score on; name some")
    file = ModelFile.of(resolve_checkpoint(Path(weights or cfg.OUTPUT_DIR)))
    output = Path(cfg.OUTPUT_DIR, FILE_NAME)
    if is_main():
        check_can_add(output, "--output-dir")
    checkpoint = load_checkpoint(file.path)
    num_classes = checkpoint.taxonomy.num_classes
    model = build_segmentation_model(to_be_loaded(cfg), num_classes).to(device)
    load_weights_(model, student_of(checkpoint), checkpoint.path)
    predictor = student_predictor(cfg, model, checkpoint.taxonomy, device, checkpoint.iteration)
    with progress_bar(standard_console(quiet=not is_main())) as bar:
        scores = evaluate_all(cfg, predictor, functools.partial(advancing, bar))
    if is_main():
        add_entries(output, [file.entry(item, predictor, output.parent) for item in scores])
        logger.info("scores written to %s", output)
    return scores


def student_predictor(
    cfg: CfgNode,
    model: SegmentationModel,
    taxonomy: Taxonomy,
    device: torch.device,
    iteration: int,
) -> TorchPredictor:
    """A student as evaluations see it, after so many iterations."""
    return TorchPredictor.from_config(
        cfg, model, taxonomy, device, {"iteration": iteration, "branch": "student"}
    )


def evaluate_all(cfg: CfgNode, predictor: Predictor, progress: Progress) -> list[Scores]:
    """Score a model on every dataset of EVALUATION.DATASETS."""
    datasets = [open_dataset(name) for name in cfg.EVALUATION.DATASETS]
    for dataset in datasets:
        check_classes(dataset, predictor.taxonomy)
    return [evaluate(predictor, dataset, progress=progress) for dataset in datasets]
