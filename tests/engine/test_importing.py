"""Weights of others become checkpoints: strictly, and with the numbers of the network they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from t2sda.data.taxonomies import CITYSCAPES_19, Taxonomy
from t2sda.engine.checkpoint import load_checkpoint
from t2sda.engine.importing import Imported, import_network, network_of, write_imported
from t2sda.errors import UserError
from t2sda.export.onnx import export_onnx
from t2sda.inference.segmenter import Segmenter
from t2sda.modeling.segmentor import SegmentationModel
from t2sda.runtime.checkpoints import model_of_checkpoint
from t2sda.runtime.loading import load_model
from t2sda.weights.published import read_weight_file
from tests.references import adaptsegnet, huggingface
from tests.weights import layouts

CHANNELS = 32
SMALL_WINDOWS = ("MODEL.HRDA.DETAIL_SIZE=[64, 64]", "MODEL.HRDA.WINDOW_SIZE=[128, 128]")
SMALL_HEAD = ("MODEL.HEAD.CHANNELS=32",)

SMALL: dict[str, tuple[Callable[[], layouts.Shapes], tuple[str, ...]]] = {
    "DAFormer or MIC on DAFormer": (lambda: layouts.daformer("b0", CHANNELS), ()),
    "HRDA or MIC on HRDA": (lambda: layouts.hrda("b0", CHANNELS), SMALL_WINDOWS),
    "SegFormer, original": (lambda: layouts.segformer("b0", CHANNELS), ()),
    "SegFormer of Hugging Face": (lambda: layouts.hugging_face("b0", CHANNELS), ()),
    "Mix Transformer of Hugging Face": (lambda: layouts.hugging_face_encoder("b0"), SMALL_HEAD),
    "Mix Transformer of mmsegmentation": (lambda: layouts.mmsegmentation_mit("b0"), SMALL_HEAD),
    "Mix Transformer of segmentation_models_pytorch": (lambda: layouts.smp("b0"), SMALL_HEAD),
    "Mix Transformer, original": (lambda: layouts.mit("b0"), SMALL_HEAD),
    "ResNet-v1c of mmsegmentation": (lambda: layouts.resnet_v1c(50), ()),
    "DeepLabV2 of the DAFormer family": (lambda: layouts.deeplabv2(50), ()),
    "DeepLabV2 of AdaptSegNet and DACS": (lambda: layouts.caffe(50, {"layer5": 2048}), ()),
}
"""Layout -> names and shapes, and the settings that make its network small."""
EXPORTED = {"SegFormer of Hugging Face"}
"""The export of the others is marked slow: contracts and other tests export their networks."""
TRANSPOSED = {
    "DAFormer or MIC on DAFormer": "decode_head.embed_layers.1.proj.weight",
    "HRDA or MIC on HRDA": "decode_head.scale_attention.fuse_layer.conv.weight",
    "SegFormer, original": "decode_head.linear_fuse.conv.weight",
    "SegFormer of Hugging Face": "segformer.encoder.block.2.1.mlp.dense1.weight",
    "Mix Transformer of Hugging Face": "segformer.encoder.block.0.1.mlp.dense2.weight",
    "Mix Transformer of mmsegmentation": "backbone.layers.1.1.0.attn.attn.in_proj_weight",
    "Mix Transformer of segmentation_models_pytorch": "encoder.block3.1.attn.kv.weight",
    "Mix Transformer, original": "patch_embed2.proj.weight",
    "ResNet-v1c of mmsegmentation": "layer3.5.conv3.weight",
    "DeepLabV2 of the DAFormer family": "decode_head.aspp_modules.1.conv.weight",
    "DeepLabV2 of AdaptSegNet and DACS": "layer5.conv2d_list.0.weight",
}
MISSING = {
    "DAFormer or MIC on DAFormer": "decode_head.fuse_layer.bottleneck.bn.running_var",
    "HRDA or MIC on HRDA": "decode_head.scale_attention.conv_seg.bias",
    "SegFormer, original": "decode_head.linear_c4.proj.bias",
    "SegFormer of Hugging Face": "segformer.encoder.block.1.0.attention.self.key.weight",
    "Mix Transformer of Hugging Face": "segformer.encoder.layer_norm.3.bias",
    "Mix Transformer of mmsegmentation": "backbone.layers.0.1.1.ffn.layers.4.bias",
    "Mix Transformer of segmentation_models_pytorch": "encoder.block2.0.mlp.dwconv.dwconv.bias",
    "Mix Transformer, original": "block1.0.attn.norm.weight",
    "ResNet-v1c of mmsegmentation": "layer2.3.bn3.running_mean",
    "DeepLabV2 of the DAFormer family": "backbone.stem.7.weight",
    "DeepLabV2 of AdaptSegNet and DACS": "layer5.conv2d_list.1.bias",
}


@pytest.fixture(params=SMALL)
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


def imported(
    state: Any, folder: Path, *settings: str, branch: str = "student", to: str | None = None
) -> Imported:
    path = folder / "published.pth"
    torch.save(state, path)
    network = network_of(read_weight_file(path), branch)
    return import_network(network, CITYSCAPES_19, to, settings)


def model_of(found: Imported, folder: Path) -> SegmentationModel:
    """Through the file, as every command reads it."""
    write_imported(found, folder / "imported.pth")
    return model_of_checkpoint(load_checkpoint(folder / "imported.pth"))


def export_compared(model: SegmentationModel, path: Path) -> None:
    """Exporting compares the file with the network; windows of HRDA are exported as logits."""
    kind: Literal["labels", "logits"] = "labels" if model.sliding is None else "logits"
    export_onnx(model, CITYSCAPES_19, path, image_size=(128, 128), output_kind=kind)


def random_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_batch(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def test_every_layout_is_recognised_and_all_of_it_explained(layout: str, tmp_path: Path) -> None:
    shapes, settings = SMALL[layout]
    found = imported(layouts.tensors(shapes()), tmp_path, *settings)
    assert found.network.layout.name == layout
    assert [row.name for row in found.rows] == list(shapes())
    assert all(bool(row.used_as) != bool(row.left_out) for row in found.rows)
    used = {target for row in found.rows for target in row.used_as}
    assert used | found.added.keys() == found.tensors.keys()
    if found.network.layout.has_head:
        counters = {name for name in found.added if name.endswith("num_batches_tracked")}
        assert found.added.keys() - counters == {"pixel_mean", "pixel_std"}


def test_every_layout_segments_whole_images_and_windows(layout: str, tmp_path: Path) -> None:
    shapes, settings = SMALL[layout]
    found = imported(layouts.tensors(shapes()), tmp_path, *settings, "EVALUATION.IMAGE_SIZE=[]")
    write_imported(found, tmp_path / "imported.pth")
    predictor = load_model(tmp_path / "imported.pth")
    image = random_image(128, 192)
    whole = Segmenter(predictor)([image])[0].labels
    by_windows = Segmenter(predictor, window=(128, 128), stride=(128, 64))([image])[0].labels
    assert whole.shape == by_windows.shape == (128, 192)
    # A window sees less context, yet it is the same network.
    assert 0.2 < np.mean(whole == by_windows) <= 1
    assert len(np.unique(whole)) > 1


@pytest.mark.parametrize(
    "layout",
    [
        layout if layout in EXPORTED else pytest.param(layout, marks=pytest.mark.slow)
        for layout in SMALL
    ],
)
def test_every_layout_exports(layout: str, tmp_path: Path) -> None:
    shapes, settings = SMALL[layout]
    model = model_of(imported(layouts.tensors(shapes()), tmp_path, *settings), tmp_path)
    path = tmp_path / "exported.onnx"
    export_compared(model, path)
    assert load_model(path).predict(random_image(128, 128)).shape == (128, 128)


def test_a_tensor_too_many_is_refused_by_name(layout: str, tmp_path: Path) -> None:
    shapes, settings = SMALL[layout]
    neighbour = MISSING[layout].rpartition(".")[0]
    state = layouts.tensors(shapes()) | {f"{neighbour}.surplus": torch.zeros(1)}
    with pytest.raises(UserError, match=rf"nothing explains: {re.escape(neighbour)}\.surplus"):
        imported(state, tmp_path, *settings)


def test_a_tensor_too_few_is_refused_by_name(layout: str, tmp_path: Path) -> None:
    shapes, settings = SMALL[layout]
    state = layouts.tensors(shapes())
    del state[MISSING[layout]]
    with pytest.raises(UserError, match=rf"missing: {re.escape(MISSING[layout])}( \(|\.|;)"):
        imported(state, tmp_path, *settings)


def test_a_transposed_tensor_is_refused_by_name(layout: str, tmp_path: Path) -> None:
    shapes, settings = SMALL[layout]
    state = layouts.tensors(shapes())
    name = TRANSPOSED[layout]
    state[name] = state[name].transpose(0, 1).contiguous()
    with pytest.raises(UserError, match=rf"of another shape: {re.escape(name)} \("):
        imported(state, tmp_path, *settings)


@pytest.mark.parametrize(
    ("branch", "prefix"),
    [("student", "model."), ("teacher", "ema_model."), ("mic-teacher", "mic.teacher.ema_model.")],
)
def test_the_branch_of_a_training_checkpoint_is_the_one_asked_for(
    branch: str, prefix: str, tmp_path: Path
) -> None:
    content = layouts.training_checkpoint(layouts.daformer("b0", CHANNELS), own_teacher=True)
    found = imported(content, tmp_path, branch=branch)
    # DAFormer's names are ours but for those of the head.
    for name, tensor in found.tensors.items():
        if not name.startswith("pixel_"):
            theirs = re.sub(r"^head\.", "decode_head.", name)
            assert torch.equal(tensor, content["state_dict"][prefix + theirs]), name
    left_out = [row for row in found.rows if row.left_out]
    assert len(left_out) == 3 * len(found.rows) / 4
    assert found.network.file.others.keys() == {"meta", "optimizer"}


def test_hrda_attention_sees_the_levels_in_our_order(tmp_path: Path) -> None:
    """Theirs concatenates the finest level first, our SegFormerHead the coarsest."""
    state = layouts.tensors(layouts.hrda("b0", CHANNELS))
    model = model_of(imported(state, tmp_path, *SMALL_WINDOWS), tmp_path)
    attention: Any = model.attention
    levels = [torch.randn(1, dim, 16 >> i, 16 >> i) for i, dim in enumerate(layouts.DIMS["b0"])]
    place = "decode_head.scale_attention."
    embedded = [
        F.interpolate(
            F.conv2d(
                level,
                state[f"{place}embed_layers.{index}.proj.weight"][:, :, None, None],
                state[f"{place}embed_layers.{index}.proj.bias"],
            ),
            (16, 16),
            mode="bilinear",
        )
        for index, level in enumerate(levels)
    ]
    norm = f"{place}fuse_layer.bn."
    fused = F.batch_norm(
        F.conv2d(torch.cat(embedded, dim=1), state[f"{place}fuse_layer.conv.weight"]),
        *(state[norm + name] for name in ("running_mean", "running_var", "weight", "bias")),
    ).relu()
    expected = F.conv2d(fused, state[f"{place}conv_seg.weight"], state[f"{place}conv_seg.bias"])
    with torch.no_grad():
        torch.testing.assert_close(attention(levels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("as_saved", [False, True], ids=["transformers 5", "the hub"])
def test_logits_are_those_of_hugging_face(as_saved: bool, tmp_path: Path) -> None:
    theirs = huggingface.segformer("b0", 64, layouts.NUM_CLASSES)
    if as_saved:
        theirs.save_pretrained(tmp_path)
    else:
        save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    network = network_of(read_weight_file(tmp_path / "model.safetensors"))
    model = model_of(import_network(network, CITYSCAPES_19), tmp_path)
    image = as_batch(random_image(96, 128))
    normalised = (image - model.pixel_mean) / model.pixel_std
    with torch.no_grad():
        expected = F.interpolate(theirs(normalised).logits, (96, 128), mode="bilinear")
        found = model(image)
    assert found.shape[1] == layouts.NUM_CLASSES
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("heads", "head", "dilations", "settings"),
    [
        ({"layer5": 2048}, "layer5", (6, 12), ()),
        ({"layer6": 2048}, "layer6", (6, 12, 18, 24), ()),
        ({"layer5": 1024, "layer6": 2048}, "layer6", (6, 12), ("MODEL.HEAD.DILATIONS=[6, 12]",)),
    ],
    ids=["AdaptSegNet and DACS", "ADVENT", "two heads"],
)
@pytest.mark.parametrize("size", [(64, 96), (57, 65)])
def test_logits_are_those_of_deeplabv2_on_bgr(
    heads: dict[str, int],
    head: str,
    dilations: tuple[int, ...],
    settings: tuple[str, ...],
    size: tuple[int, int],
    tmp_path: Path,
) -> None:
    state = layouts.tensors(layouts.caffe(50, heads))
    found = imported(state, tmp_path, *settings)
    assert "BGR" in found.network.layout.notes
    image = as_batch(random_image(*size))
    with torch.no_grad():
        logits = model_of(found, tmp_path)(image)
    expected = adaptsegnet.logits(state, image, head, dilations)
    scale = expected.abs().max()
    torch.testing.assert_close(logits / scale, expected / scale, rtol=0, atol=1e-5)


def test_two_heads_do_not_tell_which_dilations_act(tmp_path: Path) -> None:
    state = layouts.tensors(layouts.caffe(50, {"layer5": 1024, "layer6": 2048}))
    with pytest.raises(UserError, match=r"give MODEL.HEAD.DILATIONS, \[6, 12\] for AdaptSegNet"):
        imported(state, tmp_path)


def test_full_size_checkpoints_hold_no_more_than_is_known(tmp_path: Path) -> None:
    """The key lists of MiT-B5; one value a tensor, spread over it, keeps the files small."""
    for shapes, own_teacher in (
        (layouts.daformer("b5", 256), False),
        (layouts.hrda("b5", 256), False),
        (layouts.hrda("b5", 256), True),
    ):
        state = {
            prefix + name: torch.zeros(()).expand(shape) if shape else torch.tensor(40000)
            for prefix in ("model.", "ema_model.", "imnet_model.", "mic.teacher.ema_model.")
            for name, shape in shapes.items()
            if own_teacher or not prefix.startswith("mic.")
        }
        found = imported({"meta": {"iter": 40000}, "state_dict": state}, tmp_path)
        assert found.cfg.MODEL.BACKBONE.VARIANT == "b5"
        assert found.cfg.MODEL.HEAD.CHANNELS == 256
        is_hrda = found.cfg.MODEL.NAME == "HRDA"
        protocol = tuple(found.cfg.EVALUATION.IMAGE_SIZE)
        assert protocol == ((1024, 2048) if is_hrda else (512, 1024))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DAFormer", "HRDA", "MIC on HRDA"])
def test_full_size_networks_run_and_export(name: str, tmp_path: Path) -> None:
    shapes = (layouts.daformer if name == "DAFormer" else layouts.hrda)("b5", 256)
    content = layouts.training_checkpoint(shapes, own_teacher=name.startswith("MIC"))
    settings = () if name == "DAFormer" else SMALL_WINDOWS
    model = model_of(imported(content, tmp_path, *settings), tmp_path)
    with torch.no_grad():
        assert model(as_batch(random_image(128, 192))).isfinite().all()
    export_compared(model, tmp_path / "exported.onnx")


@pytest.mark.parametrize(
    ("settings", "make"),
    [
        (
            ("MODEL.BACKBONE.NAME=TimmCNN", "MODEL.BACKBONE.TIMM_NAME=test_resnet"),
            "test_resnet",
        ),
        (
            (
                "MODEL.BACKBONE.NAME=TimmViT",
                "MODEL.BACKBONE.TIMM_NAME=test_vit",
                "MODEL.HEAD.NAME=SegFormerHead",
            ),
            "test_vit",
        ),
    ],
)
def test_networks_of_timm_are_taken_as_they_are(
    settings: tuple[str, ...], make: str, tmp_path: Path
) -> None:
    from t2sda.modeling.backbones.timm_import import import_timm

    state = import_timm().create_model(make, pretrained=False).state_dict()
    found = imported(state, tmp_path, *settings)
    assert found.network.layout.name == "network of timm"
    for row in found.rows:
        for target in row.used_as:
            assert torch.equal(found.tensors[target], state[row.name])
    assert {row.name for row in found.rows if row.left_out} >= {
        name for name in state if name.startswith(("fc.", "head."))
    }
    assert any("drawn at random" in why for why in found.added.values())
    model_of(found, tmp_path)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "model.module.", "net.inner."])
def test_a_network_is_found_behind_what_scripts_put_before_names(
    prefix: str, tmp_path: Path
) -> None:
    state = layouts.tensors(layouts.mit("b0"))
    torch.save({f"{prefix}{name}": tensor for name, tensor in state.items()}, tmp_path / "a.pth")
    network = network_of(read_weight_file(tmp_path / "a.pth"))
    assert network.state.keys() == state.keys()
    assert "".join((*network.file.wrappers, network.prefix)) == prefix
    assert network.layout.name == "Mix Transformer, original"


def test_timm_does_not_tell_its_networks_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="network of timm: give MODEL.BACKBONE.TIMM_NAME"):
        imported({"blocks.0.attn.qkv.weight": torch.zeros(3, 1)}, tmp_path)


def test_a_configuration_may_say_what_the_network_is(tmp_path: Path) -> None:
    state = layouts.tensors(layouts.mit("b0"))
    found = imported(state, tmp_path, to="models/segformer_mit_b0.yaml")
    assert found.cfg.MODEL.HEAD.NAME == "SegFormerHead"
    with pytest.raises(UserError, match="of another shape: patch_embed1"):
        imported(state, tmp_path, to="models/segformer_mit_b1.yaml")


def test_half_precision_becomes_float32_and_nan_is_refused(tmp_path: Path) -> None:
    state = layouts.tensors(layouts.hugging_face("b0", CHANNELS))
    halves = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    found = imported(halves, tmp_path)
    assert {t.dtype for t in found.tensors.values()} == {torch.float32, torch.int64}
    state["decode_head.classifier.bias"][3] = torch.nan
    with pytest.raises(UserError, match=r"1 tensors not finite: decode_head\.classifier\.bias"):
        imported(state, tmp_path)
    state["decode_head.classifier.bias"] = torch.zeros(19, dtype=torch.int64)
    with pytest.raises(
        UserError, match=r"of another type: decode_head\.classifier\.bias torch.int64"
    ):
        imported(state, tmp_path)


def test_counts_of_frozen_norms_are_left_out_and_those_of_none_refused(tmp_path: Path) -> None:
    state = layouts.tensors(layouts.resnet_v1c(50))
    found = imported(state, tmp_path, "MODEL.NORM=frozen")
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    assert {row.name for row in found.rows if row.left_out} == counters
    strange = state | {"layer2.0.bn9.num_batches_tracked": torch.tensor(1)}
    with pytest.raises(UserError, match=r"explains: layer2\.0\.bn9\.num_batches_tracked"):
        imported(strange, tmp_path, "MODEL.NORM=frozen")


def test_other_files_are_refused_with_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"2 tensors \(a\.weight, a\.bias, …\) in no known layout"):
        imported({"a.weight": torch.zeros(2, 2), "a.bias": torch.zeros(2)}, tmp_path)
    daformer = layouts.tensors(layouts.daformer("b0", CHANNELS))
    with pytest.raises(UserError, match="holds no teacher, but one network alone"):
        imported(daformer, tmp_path, branch="teacher")
    strange = {f"model.{name}": tensor for name, tensor in daformer.items()}
    with pytest.raises(UserError, match="1 tensors belong to no network: discriminator.weight"):
        imported(strange | {"discriminator.weight": torch.zeros(1)}, tmp_path)
    sparse = daformer | {"backbone.norm1.bias": torch.zeros(32).to_sparse()}
    with pytest.raises(UserError, match=r"sparse, .*: backbone\.norm1\.bias"):
        imported(sparse, tmp_path)
    headless = {name: t for name, t in daformer.items() if not name.startswith("decode_head.")}
    headless["decode_head.scale_attention.conv_seg.bias"] = torch.zeros(19)
    with pytest.raises(UserError, match="a head without any of its layers"):
        imported(headless | {"decode_head.head.a": torch.zeros(1)}, tmp_path)
    with pytest.raises(UserError, match="is none of the published sizes"):
        imported({n: t for n, t in daformer.items() if "block3.1" not in n}, tmp_path)
    hrda = layouts.tensors(layouts.hrda("b0", CHANNELS))
    alone = {n: t for n, t in hrda.items() if not n.startswith("decode_head.scale_attention.")}
    with pytest.raises(UserError, match=r"no tensor below decode_head\.scale_attention"):
        imported(alone, tmp_path)
    variance = "decode_head.fuse_layer.bottleneck.bn.running_var"
    with pytest.raises(UserError, match=f"1 tensors out of range: {variance}"):
        imported(daformer | {variance: -daformer[variance]}, tmp_path)


def test_classes_that_are_not_the_files_are_refused(tmp_path: Path) -> None:
    torch.save(layouts.tensors(layouts.daformer("b0", CHANNELS)), tmp_path / "published.pth")
    three = Taxonomy("three", ("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    network = network_of(read_weight_file(tmp_path / "published.pth"))
    shapes = r"decode_head\.conv_seg\.weight \(19, 32, 1, 1\) for \(3, 32, 1, 1\)"
    with pytest.raises(UserError, match=f"{shapes}.*three's 3 classes \\(--taxonomy\\)"):
        import_network(network, three)


def test_the_source_travels_in_the_checkpoint(tmp_path: Path) -> None:
    found = imported(layouts.tensors(layouts.daformer("b0", CHANNELS)), tmp_path)
    write_imported(found, tmp_path / "imported.pth")
    provenance = load_checkpoint(tmp_path / "imported.pth").provenance
    assert provenance["file"] == "published.pth"
    assert provenance["sha256"] == found.network.file.sha256
    assert provenance["format"] == "DAFormer or MIC on DAFormer"
    assert "non-commercial" in provenance["licence"]
