"""The layouts that published weights come in, recognised by the names of their tensors.

A layout of your own is one more entry of FORMATS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from t2sda.errors import UserError
from t2sda.weights import licences
from t2sda.weights.mit import mit_parts, mit_variant
from t2sda.weights.parts import Part, Place
from t2sda.weights.resnet_v1c import resnet_depth, timm_name

BRANCHES = {"student": "model.", "teacher": "ema_model.", "mic-teacher": "mic.teacher.ema_model."}
"""The networks of a training checkpoint of the DAFormer family, and where they are in it."""
OTHER_PARTS = {"imnet_model.": "the ImageNet network of the feature distance, which training needs"}
"""What else is in one, and what it is."""

DAFORMER_SIZE = [512, 1024]
FULL_SIZE = [1024, 2048]

Settings = dict[str, Any]
Recogniser = Callable[[Collection[str]], bool]


@dataclass(frozen=True)
class WeightFormat:
    """One layout.

    Attributes:
        name: how messages call it.
        recognises: whether the names of a file are of this layout.
        place: where a tensor goes, under the names of a SegmentationModel.
        settings: of the network, from its tensors under our names.
        licence: the terms that the published files come under.
        exact: settings that its numbers need whatever the network, such as an epsilon.
        asked: settings that the tensors do not show, and what they are to be.
        left_out: patterns of names that the network may lack, and why.
        has_head: whether a head of ours is in it; otherwise it is drawn at random.
        notes: what else its user must know.
        normalisation: `pixel_mean` and `pixel_std` of R, G, B; empty for the backbone's own.
    """

    name: str
    recognises: Recogniser
    place: Place
    settings: Callable[[Mapping[str, Tensor]], Settings]
    licence: str
    exact: Settings = field(default_factory=dict)
    asked: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    has_head: bool = True
    notes: str = ""
    normalisation: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def why_left_out(self, name: str) -> str | None:
        """The reason, if a tensor of this name may be left out."""
        found = (why for pattern, why in self.left_out.items() if re.match(pattern, name))
        return next(found, None)


def recognised(names: Collection[str]) -> WeightFormat | None:
    """The layout that the names are of, the first of FORMATS, or None."""
    return next((layout for layout in FORMATS if layout.recognises(names)), None)


def _has(pattern: str, without: str = "(?!)") -> Recogniser:
    """Whether a name begins with `pattern`, and none with `without`."""

    def recognises(names: Collection[str]) -> bool:
        return any(re.match(pattern, name) for name in names) and not any(
            re.match(without, name) for name in names
        )

    return recognises


def _family(name: str, tensor: Tensor) -> list[Part]:
    """DAFormer, HRDA, MIC and the original SegFormer: mmsegmentation's names of before 0.20."""
    if name.startswith("backbone."):
        return _backbone(name, tensor)
    if name.startswith("decode_head.scale_attention."):
        return _attention(name.removeprefix("decode_head.scale_attention."), tensor)
    for theirs in ("decode_head.head.", "decode_head."):
        if name.startswith(theirs):
            return [Part(_head_name(name.removeprefix(theirs)), tensor)]
    return [Part(name, tensor)]


def _head_name(name: str) -> str:
    """The original SegFormer counts its projections from 1."""
    found = re.fullmatch(r"linear_c([1-4])\.(proj\..*)", name)
    return f"head.linear_c.{int(found[1]) - 1}.{found[2]}" if found else f"head.{name}"


def _attention(name: str, tensor: Tensor) -> list[Part]:
    """HRDA's scale attention: DAFormer's head with a 1x1 fusion, which sees the finest level first.

    Our SegFormerHead computes the same and sees the coarsest level first.
    """
    if name == "fuse_layer.conv.weight" and tensor.dim() == 4:
        tensor = torch.cat(tensor.tensor_split(4, dim=1)[::-1], dim=1)
    for theirs, ours in (
        ("embed_layers.", "linear_c."),
        ("fuse_layer.", "linear_fuse."),
        ("conv_seg.", "linear_pred."),
    ):
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
    return [Part(f"attention.{name}", tensor)]


def _backbone(name: str, tensor: Tensor) -> list[Part]:
    """Either encoder, with or without `backbone.` before it."""
    inner = name.removeprefix("backbone.")
    if re.match(r"stem\.|layer\d\.", inner):
        return [Part(f"backbone.net.{timm_name(inner)}", tensor)]
    parts = mit_parts(inner, tensor)
    return [Part(f"backbone.{part.target}", part.tensor, part.index, part.count) for part in parts]


def _hugging_face(name: str, tensor: Tensor) -> list[Part]:
    for theirs, ours in (
        ("decode_head.linear_c.", "head.linear_c."),
        ("decode_head.linear_projections.", "head.linear_c."),  # of transformers 5
        ("decode_head.linear_fuse.", "head.linear_fuse.conv."),
        ("decode_head.batch_norm.", "head.linear_fuse.bn."),
        ("decode_head.classifier.", "head.linear_pred."),
    ):
        if name.startswith(theirs):
            return [Part(ours + name.removeprefix(theirs), tensor)]
    return _backbone(name, tensor)


def _caffe(level: str) -> Place:
    """DeepLabV2 in Caffe's tradition; its first convolution is turned from BGR to RGB.

    Args:
        level: which of `layer5` and `layer6` is the head that predicts.
    """

    def place(name: str, tensor: Tensor) -> list[Part]:
        found = re.fullmatch(rf"{level}\.conv2d_list\.(\d)\.(weight|bias)", name)
        if found:
            return [Part(f"head.aspp_modules.{found[1]}.conv.{found[2]}", tensor)]
        if name == "conv1.weight" and tensor.dim() == 4:
            tensor = tensor.flip(1)
        return [Part(f"backbone.net.{name}", tensor)]

    return place


def _timm(name: str, tensor: Tensor) -> list[Part]:
    """Its own names; segmentation_models_pytorch has them behind `encoder.`."""
    return [Part(f"backbone.net.{name.removeprefix('encoder.')}", tensor)]


def _family_settings(state: Mapping[str, Tensor]) -> Settings:
    """Network and protocol of DAFormer, HRDA and MIC (docs/fidelity.md)."""
    settings = _backbone_settings(state) | _head_settings(state)
    attention = {name.split(".")[1] for name in state if name.startswith("attention.")}
    if attention:
        on_aspp = "aspp_modules" in attention
        settings["MODEL.NAME"] = "HRDA"
        settings["MODEL.HRDA.ATTENTION"] = "DeepLabV2Head" if on_aspp else "SegFormerHead"
    whole = not attention and settings["MODEL.HEAD.NAME"] != "SegFormerHead"
    return settings | {"EVALUATION.IMAGE_SIZE": DAFORMER_SIZE if whole else FULL_SIZE}


def _hrda_settings(state: Mapping[str, Tensor]) -> Settings:
    """Without its attention the network would be another one, of a single resolution."""
    if not any(name.startswith("attention.") for name in state):
        raise UserError(
            "no tensor below decode_head.scale_attention, which HRDA fuses its resolutions with; "
            "is the file complete?"
        )
    return _family_settings(state)


def _encoder_settings(state: Mapping[str, Tensor]) -> Settings:
    """With the head that the DAFormer family has over it."""
    settings = _backbone_settings(state)
    if settings["MODEL.BACKBONE.NAME"] == "MiT":
        settings |= {"MODEL.HEAD.NAME": "DAFormerHead", "MODEL.HEAD.CHANNELS": 256}
    else:
        settings |= {"MODEL.HEAD.NAME": "DeepLabV2Head"}
    return settings | {"EVALUATION.IMAGE_SIZE": DAFORMER_SIZE}


def _caffe_settings(*dilations: int) -> Callable[[Mapping[str, Tensor]], Settings]:
    settings = {
        "MODEL.NAME": "CornerAlignedModel",
        "MODEL.HEAD.NAME": "DeepLabV2Head",
        "EVALUATION.IMAGE_SIZE": DAFORMER_SIZE,
        **({"MODEL.HEAD.DILATIONS": list(dilations)} if dilations else {}),
    }

    def settings_of(state: Mapping[str, Tensor]) -> Settings:
        net = _inside(state, "backbone.net.")
        backbone = {
            "MODEL.BACKBONE.NAME": "ResNetCaffe",
            "MODEL.BACKBONE.DEPTH": resnet_depth(net),
        }
        return settings | backbone

    return settings_of


def _backbone_settings(state: Mapping[str, Tensor]) -> Settings:
    if net := _inside(state, "backbone.net."):
        return {"MODEL.BACKBONE.NAME": "ResNetV1c", "MODEL.BACKBONE.DEPTH": resnet_depth(net)}
    variant = mit_variant(_inside(state, "backbone."))
    return {"MODEL.BACKBONE.NAME": "MiT", "MODEL.BACKBONE.VARIANT": variant}


def _inside(state: Mapping[str, Tensor], module: str) -> dict[str, Tensor]:
    """The tensors of a module, by its own names."""
    return {
        name.removeprefix(module): tensor
        for name, tensor in state.items()
        if name.startswith(module)
    }


_HEADS = {
    "fuse_layer": ("DAFormerHead", "head.fuse_layer.bottleneck.bn"),
    "linear_fuse": ("SegFormerHead", "head.linear_fuse.bn"),
    "aspp_modules": ("DeepLabV2Head", None),
}
"""What is in a head: its registered name, and a norm as wide as it is."""


def _head_settings(state: Mapping[str, Tensor]) -> Settings:
    inside = {name.split(".")[1] for name in state if name.startswith("head.")}
    part = next((part for part in _HEADS if part in inside), None)
    if part is None:
        raise UserError("a head without any of its layers " + " or ".join(_HEADS))
    name, norm = _HEADS[part]
    settings: Settings = {"MODEL.HEAD.NAME": name}
    if norm is not None:
        widths = [
            len(state[key]) for key in state if key.startswith(f"{norm}.") and state[key].dim()
        ]
        settings["MODEL.HEAD.CHANNELS"] = max(widths, default=256)
    return settings


def _nothing(state: Mapping[str, Tensor]) -> Settings:
    return {}


_CLASSIFIER = {r"(head|fc|classifier)\.(weight|bias)$": "the ImageNet classifier"}
_MMSEGMENTATION = {
    r"(decode_head|auxiliary_head)\.": "a head of mmsegmentation that is not one of ours",
    **_CLASSIFIER,
}
_SMP = {
    r"(decoder|segmentation_head|classification_head)\.": (
        "the decoder of segmentation_models_pytorch, which is not one of ours"
    ),
}
_RETURNS_EARLY = (
    "of a dilation that the head does not have: the published code returns after the second"
)
_BGR = (
    "BGR images less their mean became RGB here: the first convolution is turned, mean and "
    "deviation (1) travel in pixel_mean and pixel_std"
)
_CAFFE_NORMALISATION = {
    "pixel_mean": (122.67891434, 116.66876762, 104.00698793),
    "pixel_std": (1.0, 1.0, 1.0),
}
_FAMILY_LICENCE = (
    "DAFormer, HRDA and MIC publish under Apache-2.0 what they trained from ImageNet weights: "
    + licences.MIT
)
_TIMM = (
    r"(encoder\.)?(cls_token|pos_embed|blocks\.\d+\.|conv_stem\.|layer\d\.\d+\.|"
    r"stages[._]\d+\.|stem[._]\d)"
)

FORMATS = (
    WeightFormat(
        "HRDA or MIC on HRDA",
        _has(r"decode_head\.(scale_attention|head)\."),
        _family,
        _hrda_settings,
        _FAMILY_LICENCE,
    ),
    WeightFormat(
        "DAFormer or MIC on DAFormer",
        _has(r"decode_head\.fuse_layer\."),
        _family,
        _family_settings,
        _FAMILY_LICENCE,
    ),
    WeightFormat(
        "DeepLabV2 of the DAFormer family",
        _has(r"decode_head\.aspp_modules\.\d\.conv\.bias"),
        _family,
        _family_settings,
        "DAFormer, HRDA and MIC publish under Apache-2.0; the ImageNet weights are open-mmlab's",
    ),
    WeightFormat(
        "SegFormer, original",
        _has(r"decode_head\.linear_c[1-4]\."),
        _family,
        _family_settings,
        licences.MIT,
        left_out={r"decode_head\.conv_seg\.": "a classifier that the original never reads"},
    ),
    WeightFormat(
        "SegFormer of Hugging Face",
        _has(r"decode_head\.(linear_c\.\d|linear_projections|batch_norm)\."),
        _hugging_face,
        _family_settings,
        licences.MIT,
        exact={"MODEL.BACKBONE.NORM_EPS": 1e-5},
    ),
    WeightFormat(
        "Mix Transformer of Hugging Face",
        _has(r"(segformer\.)?(encoder\.)?(patch_embeddings\.\d|stages\.\d\.patch_embeddings)\."),
        _hugging_face,
        _encoder_settings,
        licences.MIT,
        exact={"MODEL.BACKBONE.NORM_EPS": 1e-5},
        left_out=_CLASSIFIER,
        has_head=False,
    ),
    WeightFormat(
        "Mix Transformer of mmsegmentation",
        _has(r"(backbone\.)?layers\.\d\.\d\."),
        _backbone,
        _encoder_settings,
        licences.MIT,
        left_out=_MMSEGMENTATION,
        has_head=False,
    ),
    WeightFormat(
        "ResNet-v1c of mmsegmentation",
        _has(r"(backbone\.)?stem\.\d\.", without=r"(backbone\.)?(stages|conv1)\."),
        _backbone,
        _encoder_settings,
        "mmsegmentation publishes under Apache-2.0",
        left_out=_MMSEGMENTATION,
        has_head=False,
    ),
    WeightFormat(
        "Mix Transformer of segmentation_models_pytorch",
        _has(r"encoder\.(patch_embed|block|norm)\d\."),
        _backbone,
        _encoder_settings,
        licences.MIT,
        left_out=_SMP,
        has_head=False,
    ),
    WeightFormat(
        "Mix Transformer, original",
        _has(r"(backbone\.)?(patch_embed|block)\d\."),
        _backbone,
        _encoder_settings,
        licences.MIT,
        left_out=_CLASSIFIER,
        has_head=False,
    ),
    WeightFormat(
        "DeepLabV2 of AdaptSegNet and DACS",
        _has(r"layer5\.conv2d_list\.", without=r"layer6\."),
        _caffe("layer5"),
        _caffe_settings(6, 12),
        licences.ADAPTSEGNET,
        left_out={r"layer5\.conv2d_list\.[23]\.": _RETURNS_EARLY},
        notes=_BGR,
        normalisation=_CAFFE_NORMALISATION,
    ),
    WeightFormat(
        "DeepLabV2 of ADVENT",
        _has(r"layer6\.conv2d_list\.", without=r"layer5\."),
        _caffe("layer6"),
        _caffe_settings(6, 12, 18, 24),
        licences.ADAPTSEGNET,
        notes=_BGR,
        normalisation=_CAFFE_NORMALISATION,
    ),
    WeightFormat(
        "DeepLabV2 with two heads, of AdaptSegNet or ADVENT",
        _has(r"layer6\.conv2d_list\."),
        _caffe("layer6"),
        _caffe_settings(),
        licences.ADAPTSEGNET,
        asked={"MODEL.HEAD.DILATIONS": "[6, 12] for AdaptSegNet, [6, 12, 18, 24] for ADVENT"},
        left_out={
            r"layer5\.": "the second head, of the third stage, which training alone has",
            r"layer6\.conv2d_list\.[23]\.": _RETURNS_EARLY,
        },
        notes=_BGR,
        normalisation=_CAFFE_NORMALISATION,
    ),
    WeightFormat(
        "network of timm",
        _has(_TIMM),
        _timm,
        _nothing,
        "timm's weights have terms of their own each; see the network's page on its hub",
        asked={"MODEL.BACKBONE.TIMM_NAME": "the network's name in timm, or --to a configuration"},
        left_out={**_SMP, r"mask_token$": "which pretraining alone reads"},
        has_head=False,
    ),
)
"""Every layout; the first that recognises a file has it."""
