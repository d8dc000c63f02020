"""Hugging Face's Segformer as an independent reference: its networks, and its weights in ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from t2sda.modeling.backbones.mit import MiT
from t2sda.modeling.backbones.timm_import import declare_missing_torchvision_operators
from t2sda.modeling.heads.segformer import SegFormerHead
from t2sda.weights.mit import VARIANTS

HUGGING_FACE_EPS = 1e-5


def segformer(variant: str, channels: int, num_classes: int) -> Any:
    """Their network, in evaluation mode, with random weights and random BatchNorm statistics."""
    declare_missing_torchvision_operators()  # transformers imports torchvision
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        num_labels=num_classes,  # type: ignore[call-arg]
        hidden_sizes=VARIANTS[variant].dims,
        depths=VARIANTS[variant].depths,
        decoder_hidden_size=channels,
    )
    network = SegformerForSemanticSegmentation(config)
    batch_norm: Any = network.decode_head.batch_norm
    with torch.no_grad():
        batch_norm.running_mean.normal_()
        batch_norm.running_var.uniform_(0.5, 2.0)
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # biases and norms too
    return network.eval()


def with_weights_of(network: Any, variant: str) -> tuple[MiT, SegFormerHead]:
    """Our encoder and head with the tensors of their network."""
    backbone = MiT(variant, norm_eps=HUGGING_FACE_EPS).eval()
    backbone.load_pretrained(network.state_dict(), "Hugging Face")
    classifier: nn.Conv2d = network.decode_head.classifier
    head = SegFormerHead(
        backbone.feature_specs, classifier.out_channels, classifier.in_channels
    ).eval()
    head.load_state_dict(head_state(network.decode_head.state_dict()))
    return backbone, head


def head_state(theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Their head's tensors under the names of the original SegFormer."""
    names = {
        "linear_projections.": "linear_c.",
        "linear_fuse.": "linear_fuse.conv.",
        "batch_norm.": "linear_fuse.bn.",
        "classifier.": "linear_pred.",
    }
    renamed = {}
    for name, tensor in theirs.items():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        renamed[names[prefix] + name.removeprefix(prefix)] = tensor
    return renamed
