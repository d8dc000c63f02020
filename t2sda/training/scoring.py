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
from t2sda.engine.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights_,
    resolve_checkpoint,
)
from t2sda.engine.metrics import advancing, progress_bar, standard_console
from t2sda.errors import UserError
from t2sda.evaluation.entries import FILE_NAME, Scores, add_entries, check_can_add
from t2sda.evaluation.evaluator import Progress, check_classes, evaluate
from t2sda.evaluation.model_file import ModelFile
from t2sda.modeling.backbones.adapters import restart_adapters_
from t2sda.modeling.backbones.folding import folded_state, is_of_adapter
from t2sda.modeling.segmentor import (
    SegmentationModel,
    build_segmentation_model,
    to_be_loaded,
)
from t2sda.registry import MODELS
from t2sda.runtime.checkpoints import TorchPredictor
from t2sda.runtime.predictor import Predictor

logger = logging.getLogger(__name__)
AUX_HEAD = "aux_head."
"""What names of its tensors begin with; it serves the loss alone."""


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
    load_weights_(model, _student_of(checkpoint), checkpoint.path)
    predictor = student_predictor(cfg, model, checkpoint.taxonomy, device, checkpoint.iteration)
    with progress_bar(standard_console(quiet=not is_main())) as bar:
        scores = evaluate_all(cfg, predictor, functools.partial(advancing, bar))
    if is_main():
        add_entries(output, [file.entry(item, predictor, output.parent) for item in scores])
        logger.info("scores written to %s", output)
    return scores


def check_same_classes(checkpoint: Checkpoint, taxonomy: Taxonomy) -> None:
    """Raise UserError if a checkpoint's classes are not those of this run."""
    if checkpoint.taxonomy.class_names != taxonomy.class_names:
        raise UserError(
            f"{checkpoint.path}: trained with the classes of '{checkpoint.taxonomy.name}', but "
            f"this run has those of '{taxonomy.name}'; use datasets of the same classes"
        )


def start_from_(
    model: SegmentationModel, weights: str, taxonomy: Taxonomy, cfg: CfgNode
) -> dict[str, str]:
    """Load the student of a checkpoint or run folder; for other classes the classifier stays new.

    An auxiliary head that only one of the two has stays new, or is left out.
    Adapters of that run are folded into its weights, and those of this run begin anew.

    Args:
        model: of the run.
        weights: checkpoint or run folder.
        taxonomy: of the run.
        cfg: of the run; MODEL describes the model.
    Returns:
        Where imported weights come from; see `Checkpoint`.
    """
    checkpoint = load_checkpoint(resolve_checkpoint(Path(weights)))
    own = model.state_dict()
    # BatchNorm that is frozen here counts no batches; a checkpoint of a trained one did.
    state = {
        name: tensor
        for name, tensor in _student_of(checkpoint).items()
        if name in own or not name.endswith(".num_batches_tracked")
    }
    state = _with_aux_head_of(own, state)
    state |= {name: torch.zeros_like(own[name]) for name in own if is_of_adapter(name)}
    if checkpoint.taxonomy.class_names != taxonomy.class_names:
        anew = MODELS.get(cfg.MODEL.NAME).class_tensors(cfg, taxonomy.num_classes) & own.keys()
        state |= {name: own[name] for name in anew}
        logger.info(
            "--weights: classes of '%s' -> '%s': classifier starts anew: %s",
            checkpoint.taxonomy.name,
            taxonomy.name,
            ", ".join(name for name in own if name in anew),
        )
    load_weights_(model, state, checkpoint.path)
    restart_adapters_(model)
    return checkpoint.provenance


def _with_aux_head_of(
    own: dict[str, torch.Tensor], state: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """`state`, with the auxiliary head of `own` where one has it and the other has not."""
    has, had = (any(name.startswith(AUX_HEAD) for name in names) for names in (own, state))
    if has == had:
        return state
    logger.info(
        "--weights: %s",
        "there is no auxiliary head in them; it starts anew"
        if has
        else "their auxiliary head is left out; this run has none",
    )
    rest = {name: tensor for name, tensor in state.items() if not name.startswith(AUX_HEAD)}
    return rest | {name: tensor for name, tensor in own.items() if name.startswith(AUX_HEAD)}


def _student_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Its model's tensors, adapters folded into the weights."""
    prefix = "student.model."
    return folded_state(
        {
            name.removeprefix(prefix): tensor
            for name, tensor in checkpoint.meta_arch.items()
            if name.startswith(prefix)
        }
    )


def student_predictor(
    cfg: CfgNode,
    model: SegmentationModel,
    taxonomy: Taxonomy,
    device: torch.device,
    iteration: int,
) -> TorchPredictor:
    """A student as evaluations see it, after so many iterations."""
    bound = tuple(cfg.EVALUATION.IMAGE_SIZE) or None
    return TorchPredictor(
        model,
        taxonomy,
        bound,
        device,
        {"iteration": iteration, "branch": "student"},
        window=tuple(cfg.EVALUATION.WINDOW) or None,
        step=tuple(cfg.EVALUATION.STEP) or None,
    )


def evaluate_all(cfg: CfgNode, predictor: Predictor, progress: Progress) -> list[Scores]:
    """Score a model on every dataset of EVALUATION.DATASETS."""
    datasets = [open_dataset(name) for name in cfg.EVALUATION.DATASETS]
    for dataset in datasets:
        check_classes(dataset, predictor.taxonomy)
    return [evaluate(predictor, dataset, progress=progress) for dataset in datasets]
