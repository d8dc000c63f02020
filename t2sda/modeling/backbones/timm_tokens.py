"""Tokens of timm's plain vision transformers, some of them hidden."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from t2sda.structures import HiddenTokens


def can_hide_tokens(net: nn.Module) -> bool:
    """Whether `tokens_with_hidden` takes it: timm's VisionTransformer and Eva, which are most."""
    return hasattr(net, "_pos_embed") and hasattr(net, "norm_pre")


def tokens_with_hidden(net: Any, image: Tensor, hidden: HiddenTokens) -> Tensor:
    """The last block's tokens, normed, as `forward_intermediates` has them, with some hidden.

    A hidden token is replaced after its patch was embedded and before its position is added, as in
    the training of DINOv2 (Oquab et al., TMLR 2024) and in VFM-UDA (tue-mps/vfm-uda).

    Args:
        net: of timm, taking images of any size.
        image: (B, 3, h * patch, w * patch).
        hidden: on the grid of the patches.
    Returns:
        (B, D, h, w).
    """
    embedded = net.patch_embed(image)  # (B, h, w, D)
    token = hidden.token.to(embedded.dtype)
    embedded = torch.where(hidden.mask[..., None], token, embedded)
    located = net._pos_embed(embedded)
    # Eva gives rotary embeddings as well, (tokens, …) for all blocks or (depth, tokens, …).
    tokens, rotary = located if isinstance(located, tuple) else (located, None)
    tokens = net.norm_pre(tokens)
    for index, block in enumerate(net.blocks):
        if rotary is None:
            tokens = block(tokens)
        else:
            own = rotary[index] if getattr(net, "rope_mixed", False) else rotary
            tokens = block(tokens, rope=own)
    patches = net.norm(tokens)[:, net.num_prefix_tokens :]
    return patches.transpose(1, 2).unflatten(2, embedded.shape[1:3])
