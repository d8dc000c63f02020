"""Names that published Mix Transformer weights use, translated to those of the original files.

The originals (`mit_b0.pth` … `mit_b5.pth`) have our names; segmentation_models_pytorch has them
behind `encoder.`. mmsegmentation has others, Hugging Face a third set on its hub and a fourth in
transformers 5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

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


def rename_mit(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors under the original names, whatever layout they come in.

    Queries, keys and values are cut and joined to `attn.q` and `attn.kv`, and the 1x1 convolutions
    of mmsegmentation's feed-forward layers become linear. A name that no rule knows stays as it is,
    so that a strict load finds it.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        renamed.update(_cut(_original_name(name), tensor))
    for name in [name for name in renamed if ".attn.k." in name]:
        value = name.replace(".attn.k.", ".attn.v.")
        if value in renamed:
            joined = torch.cat([renamed.pop(name), renamed.pop(value)])
            renamed[name.replace(".attn.k.", ".attn.kv.")] = joined
    return renamed


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


def _cut(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """The tensor, or its parts where the original has several."""
    if "attn.attn.in_proj_" in name:
        dim = tensor.shape[0] // 3
        stem, _, kind = name.partition("attn.attn.in_proj_")
        return {f"{stem}attn.q.{kind}": tensor[:dim], f"{stem}attn.kv.{kind}": tensor[dim:]}
    if name.endswith(("mlp.fc1.weight", "mlp.fc2.weight")):
        return {name: tensor.flatten(1)}
    return {name: tensor}
