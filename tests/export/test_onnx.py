"""ONNX files: what they hold, and that a wrong one never gets its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import t2sda
from t2sda import load_model
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.errors import UserError
from t2sda.export.onnx import export_onnx
from t2sda.modeling.backbones.base import Backbone
from t2sda.modeling.backbones.timm_import import import_timm
from t2sda.modeling.backbones.timm_vit import TimmViT
from t2sda.modeling.heads.light import LightHead
from t2sda.modeling.heads.segformer import SegFormerHead
from t2sda.modeling.segmentor import SegmentationModel
from t2sda.runtime.checkpoints import model_of_checkpoint, open_checkpoint
from t2sda.structures import FeatureSpec
from tests.deployed import (
    DYNAMIC,
    DYNAMIC_LOGITS,
    IMAGE_SIZE,
    STATIC,
    Export,
    shared_checkpoint,
    shared_export,
    street,
)
from tests.full_disk import file_size_limit

UINT8, FLOAT = onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT
HEIGHT, WIDTH = IMAGE_SIZE


def signature(value: Any) -> tuple[str, int, list[str | int]]:
    """Name, element type and dimensions of an input or output."""
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, [d.dim_param or d.dim_value for d in tensor.shape.dim]


@pytest.mark.parametrize(
    ("export", "images", "output"),
    [
        (
            DYNAMIC,
            ("images", UINT8, ["batch", "height", "width", 3]),
            ("labels", UINT8, ["batch", "height", "width"]),
        ),
        (
            DYNAMIC_LOGITS,
            ("images", UINT8, ["batch", "height", "width", 3]),
            ("logits", FLOAT, ["batch", 19, "height", "width"]),
        ),
        (
            STATIC,
            ("images", UINT8, [1, HEIGHT, WIDTH, 3]),
            ("labels", UINT8, [1, HEIGHT, WIDTH]),
        ),
    ],
)
def test_inputs_and_outputs(
    tmp_path_factory: pytest.TempPathFactory, export: Export, images: object, output: object
) -> None:
    graph = onnx.load(shared_export(tmp_path_factory, export)).graph
    assert [signature(value) for value in graph.input] == [images]
    assert [signature(value) for value in graph.output] == [output]


def test_cast_comes_before_transpose(tmp_path_factory: pytest.TempPathFactory) -> None:
    graph = onnx.load(shared_export(tmp_path_factory, STATIC)).graph
    (first,) = [node for node in graph.node if "images" in node.input]
    assert first.op_type == "Cast"
    assert next(attribute.i for attribute in first.attribute if attribute.name == "to") == FLOAT


def test_nothing_of_the_machine_is_in_the_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = shared_export(tmp_path_factory, DYNAMIC)
    content = path.read_bytes()
    for module in (t2sda, torch):
        assert module.__file__ is not None
        assert str(Path(module.__file__).parents[1]).encode() not in content
    graph = onnx.load(path).graph
    assert not any(node.metadata_props or node.doc_string for node in graph.node)
    assert not any(value.metadata_props for value in graph.value_info)


def test_the_file_describes_itself(tmp_path_factory: pytest.TempPathFactory) -> None:
    static, dynamic = (
        {item.key: json.loads(item.value) for item in onnx.load(path).metadata_props}
        for path in (shared_export(tmp_path_factory, kind) for kind in (STATIC, DYNAMIC))
    )
    assert static["class_names"] == list(CITYSCAPES_19.class_names)
    assert static["palette"] == [list(color) for color in CITYSCAPES_19.palette]
    assert static["image_size"] == [HEIGHT, WIDTH]
    assert dynamic["image_size"] == "dynamic"
    assert static["output_kind"] == "labels"
    assert static["origin"] == {"run": "deployed", "iteration": 1}
    assert set(static["versions"]) == {"t2sda", "torch", "onnx"}
    assert static["pixel_mean"] == [127.5, 127.5, 127.5]  # timm states it for test_resnet


class SamePaddedBackbone(Backbone):
    """Two layers that halve the image, padded as in TensorFlow."""

    pixel_mean = (127.5,) * 3
    pixel_std = (127.5,) * 3
    feature_specs = (FeatureSpec(4, 2), FeatureSpec(6, 4))

    def __init__(self) -> None:
        super().__init__()
        layers = import_timm().layers
        self.first = layers.Conv2dSame(3, 4, 3, stride=2, bias=False)
        self.second = layers.Conv2dSame(4, 6, 5, stride=2)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        finer = self.first(image).relu()
        return finer, self.second(finer)


def small_model(backbone: Backbone) -> SegmentationModel:
    head = LightHead(backbone.feature_specs, CITYSCAPES_19.num_classes, channels=4)
    nn.init.normal_(head.classifier.weight)
    return SegmentationModel(backbone, head)


def auto_pads(path: Path) -> list[bytes]:
    """How the convolutions of a file are padded, where they say it by name."""
    return [
        attribute.s
        for node in onnx.load(path).graph.node
        for attribute in node.attribute
        if attribute.name == "auto_pad"
    ]


def test_tensorflow_padding_is_exported_by_its_name(tmp_path: Path) -> None:
    model = small_model(SamePaddedBackbone())
    path = tmp_path / "same.onnx"
    report = export_onnx(model, CITYSCAPES_19, path, image_size=(64, 96), dynamic=True)
    assert report.num_changed == report.num_ties
    assert auto_pads(path).count(b"SAME_UPPER") == 2
    assert not any(node.op_type == "Pad" for node in onnx.load(path).graph.node)
    assert model.training
    with torch.no_grad():
        assert float(model(torch.zeros(2, 3, 64, 64)).abs().max()) > 0  # it computes again


def test_an_older_torch_pads_by_arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.onnx, "ops")
    path = tmp_path / "same.onnx"
    export_onnx(small_model(SamePaddedBackbone()), CITYSCAPES_19, path, image_size=(64, 96))
    assert b"SAME_UPPER" not in auto_pads(path)


class Forgetful(SamePaddedBackbone):
    """Computes something else every time: what an exporter cannot see."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        return super().forward(image * (1 + self.calls))


@pytest.mark.parametrize("output_kind", ["labels", "logits"])
def test_a_file_that_disagrees_is_not_kept(tmp_path: Path, output_kind: Any) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the old one")
    with pytest.raises(UserError, match=r"disagrees with its source.*logits differ by at most"):
        export_onnx(
            small_model(Forgetful()),
            CITYSCAPES_19,
            path,
            image_size=(64, 64),
            output_kind=output_kind,
        )
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


class Unexportable(SamePaddedBackbone):
    """Refuses all ways that exporters look at a network; torch 2.8 tries one after another."""

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            raise NotImplementedError("decides by what is in the image")
        return super().forward(image)


@pytest.mark.parametrize(
    ("layout", "images", "output_kind"),
    [("nchw", [1, 3, 64, 96], "probabilities"), ("nhwc", [1, 64, 96, 3], "labels")],
)
def test_half_precision_layouts_and_probabilities(
    tmp_path: Path, layout: Any, images: list[int], output_kind: Any
) -> None:
    path = tmp_path / "half.onnx"
    model = small_model(SamePaddedBackbone())
    report = export_onnx(
        model,
        CITYSCAPES_19,
        path,
        image_size=(64, 96),
        layout=layout,
        precision="fp16",
        output_kind=output_kind,
    )
    assert report.changed <= 0.005
    graph = onnx.load(path).graph
    assert signature(graph.input[0]) == ("images", UINT8, images)
    kinds = {item.data_type for item in graph.initializer if len(item.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert next(model.parameters()).dtype == torch.float32  # a copy was halved
    image = street((64, 96))
    loaded = load_model(path)
    if output_kind == "probabilities":
        probabilities = loaded.probabilities(image)
        np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
        assert np.array_equal(loaded.predict(image), probabilities.argmax(axis=0))
        (of_a_list,) = loaded.probabilities([image])
        assert np.array_equal(of_a_list, probabilities)
        with pytest.raises(UserError, match="holds no logits, only probabilities"):
            loaded.logits(image)


def test_a_network_that_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="torch cannot export this network"):
        export_onnx(
            small_model(Unexportable()), CITYSCAPES_19, tmp_path / "m.onnx", image_size=(64, 64)
        )
    assert not list(tmp_path.iterdir())


def test_unwritable_output_is_found_before_the_work(tmp_path: Path) -> None:
    model = small_model(SamePaddedBackbone())
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot write to .*--output"):
        export_onnx(model, CITYSCAPES_19, tmp_path / "file/model.onnx", image_size=(64, 64))
    with pytest.raises(UserError, match="is a folder; --output names the file"):
        export_onnx(model, CITYSCAPES_19, tmp_path, image_size=(64, 64))
    with pytest.raises(UserError, match=r"model\.bin: must end in \.onnx; `load_model` goes by"):
        export_onnx(model, CITYSCAPES_19, tmp_path / "model.bin", image_size=(64, 64))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = model_of_checkpoint(open_checkpoint(shared_checkpoint(tmp_path_factory)))
    with file_size_limit(100_000), pytest.raises(UserError, match="cannot be written"):
        export_onnx(model, CITYSCAPES_19, tmp_path / "m.onnx", image_size=(64, 64))
    assert not list(tmp_path.iterdir())


def test_what_follows_from_weights_alone_is_in_the_file(tmp_path: Path) -> None:
    """Merged weights of the head, position embeddings for the size of the image."""
    backbone = TimmViT("test_vit", pyramid_channels=8)
    model = SegmentationModel(backbone, SegFormerHead(backbone.feature_specs, 19, channels=8))
    path = tmp_path / "model.onnx"
    export_onnx(model, CITYSCAPES_19, path, image_size=(64, 96))
    graph = onnx.load(path).graph
    constants = {initializer.name for initializer in graph.initializer}
    computed = [
        node.op_type
        for node in graph.node
        if node.input and all(not name or name in constants for name in node.input)
    ]
    assert not computed
    shapes = [tuple(initializer.dims) for initializer in graph.initializer]
    assert (1, 1 + 4 * 6, 64) in shapes  # of the class token and of a grid of 4 x 6 patches
    assert (1, 1 + 10 * 10, 64) not in shapes  # as they were trained


@pytest.mark.skipif(torch.__version__.startswith("2.8."), reason="torch 2.8 cannot write opset 17")
@pytest.mark.parametrize("opset", [17, pytest.param(19, marks=pytest.mark.slow)])
def test_several_images_at_once_in_an_older_opset(tmp_path: Path, opset: int) -> None:
    path = tmp_path / "batch.onnx"
    model = small_model(SamePaddedBackbone())
    report = export_onnx(model, CITYSCAPES_19, path, image_size=(64, 96), batch_size=3, opset=opset)
    assert report.shapes == ((3, 64, 96),) * 3
    proto = onnx.load(path)
    assert [(item.domain, item.version) for item in proto.opset_import] == [("", opset)]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3
    images = [street((64, 96), index) for index in range(4)]
    file, torch_model = load_model(path), model.eval()
    with torch.inference_mode():
        logits = torch_model(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
    for labels in (file.predict(images, batch_size=3), [file.predict(own) for own in images]):
        assert (np.stack(labels) != logits.argmax(dim=1).numpy()).mean() < 1e-3  # ties
    with pytest.raises(UserError, match="at most 3 at once"):
        file.predict(images, batch_size=4)


def test_a_number_of_images_that_means_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--batch: --dynamic takes any number"):
        export_onnx(
            small_model(SamePaddedBackbone()),
            CITYSCAPES_19,
            tmp_path / "a.onnx",
            image_size=(64, 96),
            dynamic=True,
            batch_size=2,
        )


@pytest.mark.slow
def test_any_size_where_the_run_has_sides_that_32_does_not_divide(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    model = model_of_checkpoint(open_checkpoint(shared_checkpoint(tmp_path_factory)))
    path = tmp_path / "odd.onnx"
    report = export_onnx(model, CITYSCAPES_19, path, image_size=(200, 280), dynamic=True)
    assert {(1, 200, 280), (2, 200, 280)} <= set(report.shapes)
