"""How much of a backbone trains: all of it, nothing, or low-rank adapters of its linear layers.

LoRA (Hu et al., ICLR 2022) adds a product of two thin matrices to a frozen W. SoMA (Yun et al.,
CVPR 2025) takes that product out of W: its smallest singular components, so that the rest, which
knows most, stays. Adapters exist while a network is trained. Whoever loads it from a checkpoint or
exports it gets W with its adapter added, in layers of the usual kind.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import TypeVar

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.errors import UserError
from t2sda.modeling.backbones.base import Backbone
from t2sda.modeling.backbones.folding import DOWN, UP

SCHEMA.declare(
    "MODEL.BACKBONE",
    {
        "TRAIN": Field(
            "all",
            "What of the pretrained part learns: 'all'; 'none'; or low-rank 'adapters' of the "
            "linear layers of its blocks and the biases of these layers, at SOLVER.BASE_LR. What "
            "no pretrained weights fill is always trained.",
            choices=("all", "none", "adapters"),
        )
    },
)
SCHEMA.declare(
    "MODEL.BACKBONE.ADAPTER",
    {
        "RANK": Field(16, "Inner size r of every adapter.", low=1),
        "FROM_BLOCK": Field(
            0, "First block with adapters; those before it are frozen and keep nothing.", low=0
        ),
        "INIT": Field(
            "zero",
            "What an adapter begins as: 'zero', added to the frozen weight, as in LoRA; "
            "'smallest', the weight's smallest singular components, as in SoMA: the others are "
            "frozen.",
            choices=("zero", "smallest"),
        ),
    },
    when=lambda cfg: cfg.MODEL.BACKBONE.TRAIN == "adapters",
    when_text="MODEL.BACKBONE.TRAIN is adapters",
)

Network = TypeVar("Network", bound=nn.Module)
Layer = TypeVar("Layer", bound=nn.Module)


class AdaptedLinear(nn.Module):
    """x → x(W + UD)ᵀ + b, where W (out, in) is frozen and U (out, r), D (r, in) and b are trained.

    W and b have the names of the layer that it replaces. There is no factor in front of UD: its
    learning rate is one.

    Args:
        linear: whose parameters are taken over.
        rank: r.
        init: "zero" or "smallest"; either way the function is at first that of `linear`.
    """

    adapter_down: nn.Parameter
    adapter_up: nn.Parameter

    def __init__(self, linear: nn.Linear, rank: int, init: str) -> None:
        super().__init__()
        self.init = init
        self.weight = linear.weight.requires_grad_(False)
        self.bias = linear.bias if linear.bias is None else linear.bias.requires_grad_(True)
        size_out, size_in = linear.weight.shape
        self.register_parameter(DOWN, nn.Parameter(linear.weight.new_zeros(rank, size_in)))
        self.register_parameter(UP, nn.Parameter(linear.weight.new_zeros(size_out, rank)))
        self.restart_()

    def forward(self, features: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        added = F.linear(F.linear(features, self.adapter_down), self.adapter_up)
        return F.linear(features, self.weight, self.bias) + added

    @torch.no_grad()
    def restart_(self) -> None:
        """Add the adapter to W, and begin a new one."""
        weight = self.folded_weight()
        if self.init == "zero":
            nn.init.kaiming_uniform_(self.adapter_down, a=math.sqrt(5))
            self.adapter_up.zero_()
        else:
            rank = len(self.adapter_down)
            left, values, right = torch.linalg.svd(weight, full_matrices=False)
            roots = values[-rank:].sqrt()
            self.adapter_up.copy_(left[:, -rank:] * roots)
            self.adapter_down.copy_(roots[:, None] * right[-rank:])
            weight = weight - self.adapter_up @ self.adapter_down
        self.weight.copy_(weight)

    def folded_weight(self) -> Tensor:
        """W + UD, (out, in)."""
        return torch.addmm(self.weight, self.adapter_up, self.adapter_down)

    def folded(self) -> nn.Linear:
        """A layer of the usual kind that computes the same."""
        size_out, size_in = self.weight.shape
        linear = nn.utils.skip_init(nn.Linear, size_in, size_out, bias=self.bias is not None)
        linear.weight = nn.Parameter(self.folded_weight().detach())
        linear.bias = self.bias
        return linear.train(self.training)


def limit_training_(backbone: Backbone, cfg: CfgNode) -> None:
    """Freeze what MODEL.BACKBONE.TRAIN says, and insert adapters; the weights are loaded already.

    Raises:
        UserError: if there is nothing to adapt, or the settings do not fit the layers.
    """
    train = cfg.MODEL.BACKBONE.TRAIN
    if train == "all":
        return
    backbone.requires_grad_(False)
    for module in backbone.fresh_modules():
        module.requires_grad_(True)
    if train == "adapters":
        adapt_(
            backbone,
            cfg.MODEL.BACKBONE.ADAPTER.RANK,
            cfg.MODEL.BACKBONE.ADAPTER.FROM_BLOCK,
            cfg.MODEL.BACKBONE.ADAPTER.INIT,
        )


def adapt_(backbone: Backbone, rank: int, from_block: int, init: str) -> None:
    """Put an adapter on every linear layer of the blocks from `from_block` on.

    Raises:
        UserError: if the backbone has no such block, or a layer is smaller than the rank.
    """
    blocks = backbone.blocks_to_adapt()
    name = type(backbone).__name__
    if not any(list(_children(block, nn.Linear)) for block in blocks):
        raise UserError(
            f"MODEL.BACKBONE.TRAIN: 'adapters' belong to linear layers of transformer blocks, and "
            f"this {name} has none; set it to 'all' or 'none', or take MiT or TimmViT"
        )
    if from_block >= len(blocks):
        raise UserError(
            f"MODEL.BACKBONE.ADAPTER.FROM_BLOCK: {from_block}, but this {name} has {len(blocks)} "
            f"blocks, 0 to {len(blocks) - 1}"
        )
    for block in blocks[from_block:]:
        for parent, key, layer in _children(block, nn.Linear):
            if rank > min(layer.weight.shape):
                size_out, size_in = layer.weight.shape
                raise UserError(
                    f"MODEL.BACKBONE.ADAPTER.RANK: {rank}, but the layer '{key}' of this {name} "
                    f"has {size_in} inputs and {size_out} outputs; at most {min(size_in, size_out)}"
                )
            setattr(parent, key, AdaptedLinear(layer, rank, init))


def without_adapters(network: Network) -> Network:
    """The network itself; if it has adapters, a copy with layers of the usual kind."""
    if not any(isinstance(module, AdaptedLinear) for module in network.modules()):
        return network
    plain = copy.deepcopy(network)
    for parent, key, layer in _children(plain, AdaptedLinear):
        setattr(parent, key, layer.folded())
    return plain


def restart_adapters_(network: nn.Module) -> None:
    """Begin every adapter anew, after other weights were loaded; the function stays."""
    for module in network.modules():
        if isinstance(module, AdaptedLinear):
            module.restart_()


def _children(root: nn.Module, kind: type[Layer]) -> Iterator[tuple[nn.Module, str, Layer]]:
    """(parent, name, layer) of exactly this class: one derived from it need not be called."""
    for parent in list(root.modules()):
        for key, child in list(parent.named_children()):
            if type(child) is kind:
                yield parent, key, child
