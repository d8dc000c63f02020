"""What the Mix Transformer is made of, written from the SegFormer paper (Xie et al., NeurIPS 2021).

Features are (B, h, w, D) between the layers: tokens for the linear layers and norms, and at the
same time, seen as (B, D, h, w), feature maps in channels-last memory for the convolutions. Going
from one to the other moves no data.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2sda.modeling.drop_path import DropPath

# LayerNorms within an embedding or attention; those around it have an epsilon of their own.
INNER_EPS = 1e-5


class OverlapPatchEmbed(nn.Module):
    """Overlapping patches to tokens: a strided convolution and a LayerNorm (section 3.1).

    Args:
        in_channels: of the image or the level before.
        dim: channels of the tokens.
        kernel_size: side of a patch.
        stride: between patches.
    """

    def __init__(self, in_channels: int, dim: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size, stride, padding=kernel_size // 2)
        self.norm = nn.LayerNorm(dim, eps=INNER_EPS)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D', H, W) → (B, ceil(H / stride), ceil(W / stride), D)."""
        features = features.contiguous(memory_format=torch.channels_last)
        return self.norm(self.proj(features).permute(0, 2, 3, 1))


class EfficientAttention(nn.Module):
    """Self-attention of every token to a grid of keys that is `reduction` times coarser.

    The paper writes the reduction as reshape and linear layer, Eq. (2); that is a convolution with
    kernel and stride `reduction`. Rows and columns that do not fill a kernel are not attended to.

    Args:
        dim: D, channels.
        num_heads: the heads share D.
        reduction: of each side of the grid of keys and values.
    """

    def __init__(self, dim: int, num_heads: int, reduction: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.reduction = reduction
        if reduction > 1:
            self.sr = nn.Conv2d(dim, dim, kernel_size=reduction, stride=reduction)
            self.norm = nn.LayerNorm(dim, eps=INNER_EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, h, w, D) → (B, h, w, D)."""
        batch, height, width, dim = tokens.shape
        head_dim = dim // self.num_heads
        query = self.q(tokens).view(batch, height * width, self.num_heads, head_dim)
        key_value = self.kv(self._reduced(tokens)).view(batch, -1, 2, self.num_heads, head_dim)
        key, value = key_value.permute(2, 0, 3, 1, 4).unbind()
        mixed = F.scaled_dot_product_attention(query.transpose(1, 2), key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, height, width, dim))

    def _reduced(self, tokens: Tensor) -> Tensor:
        if self.reduction == 1:
            return tokens.flatten(1, 2)
        reduced = self.sr(tokens.permute(0, 3, 1, 2))
        return self.norm(reduced.permute(0, 2, 3, 1).flatten(1, 2))


class DepthwiseConv(nn.Module):
    """The 3x3 depthwise convolution of Mix-FFN, under its published name."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, h, w, D) → (B, h, w, D)."""
        return self.dwconv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class MixFFN(nn.Module):
    """Feed-forward layers with a depthwise convolution between them, Eq. (3).

    The zero padding of the convolution encodes positions; there is no position embedding.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.dwconv = DepthwiseConv(hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, h, w, D) → (B, h, w, D)."""
        return self.fc2(F.gelu(self.dwconv(self.fc1(tokens))))


class Block(nn.Module):
    """Attention and Mix-FFN, each behind a LayerNorm and beside a residual path.

    Args:
        dim: D, channels.
        num_heads: of the attention.
        reduction: of the attention.
        drop_path: stochastic depth of both branches.
        norm_eps: epsilon of both LayerNorms.
    """

    def __init__(
        self, dim: int, num_heads: int, reduction: int, drop_path: float, norm_eps: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = EfficientAttention(dim, num_heads, reduction)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = MixFFN(dim, 4 * dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, h, w, D) → (B, h, w, D)."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


def initialise_(module: nn.Module) -> None:
    """Weights as in the transformers that came before: N(0, 0.02), convolutions by fan-out."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
