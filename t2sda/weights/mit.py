"""Names that published Mix Transformer weights use, translated to those of the original files.

The originals (`mit_b0.pth` … `mit_b5.pth`) have our names; segmentation_models_pytorch has them
behind `encoder.`. mmsegmentation has others, Hugging Face a third set on its hub and a fourth in
transformers 5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from t2sda.errors import UserError
from t2sda.weights.parts import Part, assemble

_PLACES = (  # where a tensor is: (pattern, our name for it), stages counted from 0 and from 1
    (r"patch_embeddings\.(\d)\.", "patch_embed{stage}."),
    (r"block\.(\d)\.(\d+)\.", "block{stage}.{block}."),
    (r"layer_norm\.(\d)\.", "norm{stage}."),
    (r"stages\.(\d)\.patch_embeddings\.", "patch_embed{stage}."),
    (r"stages\.(\d)\.blocks\.(\d+)\.", "block{stage}.{block}."),
    (r"stages\.(\d)\.layer_norm\.", "norm{stage}."),
    (r"layers\.(\d)\.0\.", "patch_embed{stage}."),
    (r"layers\.(\d)\.1\.(\d+)\.", "block{stage}.{block}."),
    (r"layers\.(\d)\.2\.", "norm{stage}."),
)
_LAYERS = {  # what it is, within that place
    "layer_norm": "norm",
    "layer_norm_1": "norm1",
    "layer_norm_2": "norm2",
    "attention.self.query": "attn.q",
    "attention.self.key": "attn.k",
    "attention.self.value": "attn.v",
    "attention.self.sr": "attn.sr",
    "attention.self.layer_norm": "attn.norm",
    "attention.output.dense": "attn.proj",
    "mlp.dense1": "mlp.fc1",
    "mlp.dense2": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.q_proj": "attn.q",
    "attention.k_proj": "attn.k",
    "attention.v_proj": "attn.v",
    "attention.sequence_reduction.sequence_reduction": "attn.sr",
    "attention.sequence_reduction.layer_norm": "attn.norm",
    "attention.o_proj": "attn.proj",
    "projection": "proj",
    "attn.attn.out_proj": "attn.proj",
    "ffn.layers.0": "mlp.fc1",
    "ffn.layers.1": "mlp.dwconv.dwconv",
    "ffn.layers.4": "mlp.fc2",
}


@dataclass(frozen=True)
class MiTVariant:
    """What differs between the six sizes: channels and number of blocks of every stage."""

    dims: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


_WIDE = (64, 128, 320, 512)
VARIANTS = {
    "b0": MiTVariant((32, 64, 160, 256), (2, 2, 2, 2)),
    "b1": MiTVariant(_WIDE, (2, 2, 2, 2)),
    "b2": MiTVariant(_WIDE, (3, 4, 6, 3)),
    "b3": MiTVariant(_WIDE, (3, 4, 18, 3)),
    "b4": MiTVariant(_WIDE, (3, 8, 27, 3)),
    "b5": MiTVariant(_WIDE, (3, 6, 40, 3)),
}


def rename_mit(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors under the original names, whatever layout they come in.

    A name that no rule knows stays as it is, and so does a key without its value: a strict load
    finds both.
    """
    assembly = assemble(state, mit_parts)
    halves = {name: state[name] for names in assembly.incomplete.values() for name in names}
    return assembly.tensors | halves


def mit_parts(name: str, tensor: Tensor) -> list[Part]:
    """What a tensor of the encoder is under the original names.

    Queries, keys and values are cut and joined to `attn.q` and `attn.kv`, and the 1x1 convolutions
    of mmsegmentation's feed-forward layers become linear.
    """
    name = _original_name(name)
    stem, separator, kind = name.partition("attn.attn.in_proj_")
    if separator and tensor.dim():
        dim = tensor.shape[0] // 3
        return [
            Part(f"{stem}attn.q.{kind}", tensor[:dim].clone()),
            Part(f"{stem}attn.kv.{kind}", tensor[dim:].clone()),
        ]
    for index, half in enumerate((".attn.k.", ".attn.v.")):
        if half in name:
            return [Part(name.replace(half, ".attn.kv."), tensor, index, count=2)]
    if name.endswith(("mlp.fc1.weight", "mlp.fc2.weight")) and tensor.dim() > 2:
        return [Part(name, tensor.flatten(1))]
    return [Part(name, tensor)]


def mit_variant(state: Mapping[str, Tensor]) -> str:
    """Which of VARIANTS an encoder is, by its original names.

    Raises:
        UserError: if it is none.
    """
    depths, dims = [0] * 4, [0] * 4
    for name, tensor in state.items():
        if block := re.match(r"block([1-4])\.(\d+)\.", name):
            stage = int(block[1]) - 1
            depths[stage] = max(depths[stage], int(block[2]) + 1)
        elif norm := re.fullmatch(r"norm([1-4])\.(weight|bias)", name):
            dims[int(norm[1]) - 1] = tensor.numel()
    for size, variant in VARIANTS.items():
        if (list(variant.dims), list(variant.depths)) == (dims, depths):
            return size
    raise UserError(
        f"a Mix Transformer of {dims} channels and {depths} blocks is none of the published sizes "
        f"{', '.join(VARIANTS)}"
    )


def _original_name(name: str) -> str:
    inner = re.sub(r"^(segformer\.|backbone\.)?(encoder\.)?", "", name)
    for pattern, place in _PLACES:
        found = re.match(pattern, inner)
        if found is None:
            continue
        stage, block = int(found[1]) + 1, found[2] if found.re.groups > 1 else ""
        layer, _, tensor = inner[found.end() :].rpartition(".")
        known = _LAYERS.get(layer, layer)
        return place.format(stage=stage, block=block) + ".".join(filter(None, (known, tensor)))
    return inner
