"""What a run starts from: pretrained weights, or the student of another run."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from fvcore.common.config import CfgNode

from t2sda.data.taxonomies import Taxonomy
from t2sda.engine.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights_,
    resolve_checkpoint,
)
from t2sda.errors import UserError
from t2sda.modeling.backbones.adapters import restart_adapters_
from t2sda.modeling.backbones.folding import folded_state, is_of_adapter
from t2sda.modeling.segmentor import SegmentationModel
from t2sda.registry import MODELS

logger = logging.getLogger(__name__)
AUX_HEAD = "aux_head."
"""What names of its tensors begin with; it serves the loss alone."""


def check_frozen_weights(cfg: CfgNode) -> None:
    """Raise UserError for a run that would keep random weights as they are."""
    train = cfg.MODEL.BACKBONE.TRAIN
    if train != "all" and not cfg.MODEL.BACKBONE.WEIGHTS:
        raise UserError(
            f"MODEL.BACKBONE.TRAIN: '{train}' freezes the backbone, and its weights are random; "
            f"name MODEL.BACKBONE.WEIGHTS, or start from a run with --weights"
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
        for name, tensor in student_of(checkpoint).items()
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


def student_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Tensors of the model of a checkpoint's student, adapters folded into the weights."""
    prefix = "student.model."
    return folded_state(
        {
            name.removeprefix(prefix): tensor
            for name, tensor in checkpoint.meta_arch.items()
            if name.startswith(prefix)
        }
    )
