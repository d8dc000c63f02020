"""ONNX files that t2sda did not write: they run with explicit words, or say which are missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from t2sda import load_model
from t2sda.cli.main import main
from t2sda.data.dataset_classes import distinct_colors
from t2sda.data.label_tables import TAXONOMIES
from t2sda.data.taxonomies import CITYSCAPES_19, Taxonomy
from t2sda.errors import UserError
from t2sda.export.openvino import export_openvino
from t2sda.runtime.description import Description
from t2sda.runtime.letterbox import resize_maps
from t2sda.runtime.onnx_content import check_external_data
from tests.deployed import street
from tests.tiny_onnx import write_tiny

MEAN, STD = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
SAID = Description("cityscapes_19", pixel_mean=MEAN, pixel_std=STD)
WEIGHTS = np.random.default_rng(0).normal(size=(19, 3, 1, 1)).astype(np.float32)


def foreign(path: Path, taken: Any, given: Any, **options: object) -> Path:
    """A 1x1 convolution from normalised floats (B, 3, H, W) to logits."""
    graph = helper.make_graph(
        [helper.make_node("Conv", ["pixels", "weights"], ["scores"], **options)],
        "foreign",
        [taken],
        [given],
        [numpy_helper.from_array(WEIGHTS, "weights")],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def scores_of(path: Path, shape: list[Any], **options: object) -> Path:
    info = helper.make_tensor_value_info
    return foreign(
        path,
        info("pixels", TensorProto.FLOAT, shape),
        info("scores", TensorProto.FLOAT, [shape[0], 19, None, None]),
        **options,
    )


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_with_explicit_words_it_runs(tmp_path: Path, runtime: str) -> None:
    path = scores_of(tmp_path / "other.onnx", ["b", 3, "h", "w"])
    image = street((64, 96))
    model = load_model(path, runtime, description=SAID)
    pixels = (image.astype(np.float32) - MEAN) / STD
    expected = np.einsum("kc,hwc->khw", WEIGHTS[:, :, 0, 0], pixels)
    np.testing.assert_allclose(model.logits(image), expected, atol=1e-3)
    assert (model.predict(image) == expected.argmax(axis=0)).mean() > 0.999


def test_logits_of_fewer_pixels_are_upsampled(tmp_path: Path) -> None:
    path = scores_of(tmp_path / "other.onnx", [1, 3, 64, 96], strides=[4, 4])
    model = load_model(path, description=SAID)
    assert model.logits(street((64, 96))).shape == (19, 64, 96)
    assert model.predict(street((100, 90))).shape == (100, 90)


def test_it_says_which_words_are_missing(tmp_path: Path) -> None:
    path = scores_of(tmp_path / "other.onnx", [1, 3, 64, 96])
    with pytest.raises(UserError, match=r"Add --taxonomy NAME .*--pixel-mean R G B .*--pixel-std"):
        load_model(path)
    unclear = scores_of(tmp_path / "unclear.onnx", ["b", "c", "h", "w"])
    with pytest.raises(UserError, match=r"Add --layout nhwc\|nchw; or export"):
        load_model(unclear, description=SAID)


def test_labels_of_fewer_pixels_are_upsampled_with_or_without_an_axis_of_one(
    tmp_path: Path,
) -> None:
    info, image = helper.make_tensor_value_info, street((64, 96))
    for name, keepdims, shape in (("three", 0, [1, 16, 24]), ("four", 1, [1, 1, 16, 24])):
        path = scores_of(tmp_path / f"{name}.onnx", [1, 3, 64, 96], strides=[4, 4])
        model_proto = onnx.load(path)
        model_proto.graph.node.append(
            helper.make_node("ArgMax", ["scores"], ["ids"], axis=1, keepdims=keepdims)
        )
        del model_proto.graph.output[:]
        model_proto.graph.output.append(info("ids", TensorProto.INT64, shape))
        onnx.save(model_proto, path)
    pixels = (image[::4, ::4].astype(np.float32) - MEAN) / STD
    expected = np.einsum("kc,hwc->khw", WEIGHTS[:, :, 0, 0], pixels).argmax(axis=0)
    expected = expected.repeat(4, axis=0).repeat(4, axis=1)
    for name in ("three", "four"):
        labels = load_model(tmp_path / f"{name}.onnx", description=SAID).predict(image)
        assert (labels == expected).mean() > 0.999


def test_words_that_contradict_the_file(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    path = foreign(
        tmp_path / "other.onnx",
        info("pixels", TensorProto.FLOAT, [1, 3, 64, 96]),
        info("scores", TensorProto.FLOAT, [1, 19, 64, 96]),
    )
    with pytest.raises(UserError, match="--taxonomy cityscapes_42: unknown; one of "):
        load_model(path, description=Description("cityscapes_42", MEAN, STD))
    model_proto = onnx.load(path)
    model_proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHTS[:5], "weights"))
    model_proto.graph.output[0].CopyFrom(info("scores", TensorProto.FLOAT, [1, 5, 64, 96]))
    onnx.save(model_proto, path)
    with pytest.raises(UserError, match="gives 5 classes, but cityscapes_19 has 19"):
        load_model(path, description=SAID)
    with pytest.raises(UserError, match="describes itself; leave out --taxonomy"):
        load_model(write_tiny(tmp_path / "ours.onnx"), description=SAID)


def test_words_that_the_graph_cannot_use(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    path = scores_of(tmp_path / "other.onnx", [1, 3, 64, 96])
    with pytest.raises(UserError, match=r"which is nchw, not --layout nhwc"):
        load_model(path, description=replace(SAID, layout="nhwc"))
    several = scores_of(tmp_path / "several.onnx", [4, 3, 64, 96])
    with pytest.raises(UserError, match="takes exactly 4 images at once"):
        load_model(several, description=SAID)
    model_proto = onnx.load(path)
    model_proto.graph.input[0].CopyFrom(info("bytes", TensorProto.UINT8, [1, 3, 64, 96]))
    cast = helper.make_node("Cast", ["bytes"], ["pixels"], to=TensorProto.FLOAT)
    model_proto.graph.node.insert(0, cast)
    onnx.save(model_proto, path)
    assert (
        load_model(path, description=Description("cityscapes_19")).predict(street((64, 96))).any()
    )
    with pytest.raises(UserError, match="takes uint8, so it normalises by itself; leave out"):
        load_model(path, description=SAID)


def test_from_the_command_line(tmp_path: Path) -> None:
    from PIL import Image

    path = scores_of(tmp_path / "other.onnx", ["b", 3, "h", "w"])
    Image.fromarray(street((64, 96))).save(tmp_path / "a.png")
    code = main(
        [
            *("infer", "--model", str(path), "--input", str(tmp_path / "a.png")),
            *("--output", str(tmp_path / "out"), "--kind", "trainid", "--device", "cpu"),
            *("--taxonomy", CITYSCAPES_19.name, "--pixel-mean", *map(str, MEAN)),
            *("--pixel-std", *map(str, STD)),
        ]
    )
    assert code == 0
    expected = load_model(path, description=SAID).predict(street((64, 96)))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/a_trainid.png")), expected)


def test_weights_in_constants_and_branches_are_looked_at_too(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(WEIGHTS, "weights")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    constant = helper.make_node("Constant", [], ["weights"], value=tensor)
    output = helper.make_tensor_value_info("weights", TensorProto.FLOAT, [19, 3, 1, 1])
    branch = helper.make_graph([constant], "branch", [], [output])
    choice = helper.make_node("If", ["given"], ["chosen"], then_branch=branch, else_branch=branch)
    for node in (constant, choice):
        path = tmp_path / f"{node.op_type}.onnx"
        graph = helper.make_graph([node], "foreign", [], [output])
        path.write_bytes(helper.make_model(graph).SerializeToString())
        with pytest.raises(UserError, match=r"'\.\./secret\.bin', outside its folder"):
            check_external_data(path)
        with pytest.raises(UserError, match=r"'\.\./secret\.bin', outside its folder"):
            export_openvino(path, tmp_path / "m.xml", precision="fp32")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname"])
def test_weights_outside_the_folder_are_not_read(
    tmp_path: Path, runtime: str, location: str
) -> None:
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    path = scores_of(folder / "other.onnx", [1, 3, 64, 96])
    model_proto = onnx.load(path)
    tensor = model_proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model_proto.SerializeToString())
    with pytest.raises(UserError, match=r"outside its folder; this is refused"):
        load_model(path, runtime, description=SAID)
    tensor.external_data[0].value = "gone.bin"
    path.write_bytes(model_proto.SerializeToString())
    with pytest.raises(UserError, match=r"its weights file 'gone\.bin' is not beside it"):
        load_model(path, runtime, description=SAID)


ESP_GROUPS = 4
ESP_CLASSES = 20
"""ESPNet's networks for Cityscapes: the 19 classes in order, then one for what is ignored."""


def espnet_like(path: Path, input_type: int = TensorProto.FLOAT) -> dict[str, np.ndarray]:
    """Grouped dilated convolutions, then 20 channels; two more outputs before and after.

    Returns:
        The weights by name.
    """
    info, dice = helper.make_tensor_value_info, np.random.default_rng(1)
    weights = {
        "first": dice.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "dilated": dice.normal(size=(8, 8 // ESP_GROUPS, 3, 3)).astype(np.float32),
        "last": dice.normal(size=(ESP_CLASSES, 8, 1, 1)).astype(np.float32),
    }
    weights["last"][-1] *= 5  # wins on a quarter, where it is not left out
    dilation = {"dilations": [4, 4], "pads": [4, 4, 4, 4], "group": ESP_GROUPS}
    floats = "pixels" if input_type == TensorProto.FLOAT else "floats"
    nodes = [
        helper.make_node("Conv", [floats, "first"], ["low"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["low", "dilated"], ["wide"], **dilation),
        helper.make_node("Add", ["low", "wide"], ["sum"]),
        helper.make_node("Conv", ["sum", "last"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["ids"], axis=1, keepdims=1),
    ]
    if floats != "pixels":
        nodes.insert(0, helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT))
    graph = helper.make_graph(
        nodes,
        "espnet",
        [info("pixels", input_type, ["b", 3, "h", "w"])],
        [
            info("low", TensorProto.FLOAT, ["b", 8, None, None]),
            info("scores", TensorProto.FLOAT, ["b", ESP_CLASSES, None, None]),
            info("ids", TensorProto.INT64, ["b", 1, None, None]),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return weights


def espnet_logits(weights: dict[str, np.ndarray], image: np.ndarray) -> np.ndarray:
    """(20, h/2, w/2), by torch."""
    pixels = ((image.astype(np.float32) - MEAN) / STD).transpose(2, 0, 1)[None]
    first, dilated, last = (torch.from_numpy(weights[name]) for name in weights)
    conv = torch.nn.functional.conv2d
    low = conv(torch.from_numpy(pixels).float(), first, stride=2, padding=1)
    wide = conv(low, dilated, padding=4, dilation=4, groups=ESP_GROUPS)
    return conv(low + wide, last)[0].numpy()


ESP_SAID = replace(SAID, output="scores", dropped_channels=(19,))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_output_is_chosen_by_name_and_a_channel_left_out(tmp_path: Path, runtime: str) -> None:
    weights = espnet_like(tmp_path / "espnet.onnx")
    image = street((64, 96))
    model = load_model(tmp_path / "espnet.onnx", runtime, description=ESP_SAID)
    found = model.logits(image)
    expected = espnet_logits(weights, image)
    assert found.shape == (19, 64, 96)
    whole = resize_maps(expected, (64, 96))
    np.testing.assert_allclose(found, whole[:19], atol=1e-3 * np.abs(whole).max())
    assert (model.predict(image) == whole[:19].argmax(axis=0)).mean() > 0.999
    assert (whole.argmax(axis=0) == 19).mean() > 0.2  # what would not be a class


def test_an_espnet_from_the_command_line(tmp_path: Path) -> None:
    from PIL import Image

    espnet_like(tmp_path / "espnet.onnx")
    Image.fromarray(street((64, 96))).save(tmp_path / "a.png")
    code = main(
        [
            *("infer", "--model", str(tmp_path / "espnet.onnx"), "--device", "cpu"),
            *("--input", str(tmp_path / "a.png"), "--output", str(tmp_path / "out")),
            *("--kind", "trainid", "--taxonomy", "cityscapes_19", "--output-name", "scores"),
            *("--drop-channels", "19", "--pixel-mean", *map(str, MEAN)),
            *("--pixel-std", *map(str, STD)),
        ]
    )
    assert code == 0
    expected = load_model(tmp_path / "espnet.onnx", description=ESP_SAID).predict(street((64, 96)))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/a_trainid.png")), expected)


def test_channels_and_outputs_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "espnet.onnx"
    espnet_like(path)
    for changes, message in (
        ({"output": "score"}, r"has no output 'score'; its outputs, nearest first: scores, "),
        ({"dropped_channels": None}, r"gives 20 classes.*such as --drop-channels 19$"),
        (
            {"dropped_channels": (20,)},
            r"--drop-channels 20: different channels are needed, 0 to 19",
        ),
        ({"dropped_channels": (3, 3)}, r"--drop-channels 3 3: different channels"),
        ({"dropped_channels": (18, 19)}, r"gives 18 classes, but cityscapes_19 has 19$"),
        ({"output": "ids"}, r"gives int64 of shape .*--drop-channels is for floats"),
        ({"output": None}, r"gives 7 classes|--drop-channels 19: different channels .* 0 to 7"),
    ):
        with pytest.raises(UserError, match=message):
            load_model(path, description=replace(ESP_SAID, **changes))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_background_that_comes_first_is_left_out(tmp_path: Path, runtime: str) -> None:
    weights = espnet_like(tmp_path / "espnet.onnx")
    said = replace(ESP_SAID, dropped_channels=(0,))
    image = street((64, 96))
    whole = resize_maps(espnet_logits(weights, image), (64, 96))
    labels = load_model(tmp_path / "espnet.onnx", runtime, description=said).predict(image)
    assert (labels == whole[1:].argmax(axis=0)).mean() > 0.999


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_labels_as_int64_of_float16_images(tmp_path: Path, runtime: str) -> None:
    weights = espnet_like(tmp_path / "espnet.onnx", TensorProto.FLOAT16)
    image = street((64, 96))
    expected = espnet_logits(weights, image)
    said = replace(SAID, output="ids")
    model = load_model(tmp_path / "espnet.onnx", runtime, description=said)
    if (expected.argmax(axis=0) == 19).any():  # the graph's own labels know no channel to drop
        with pytest.raises(UserError, match="gives the labels 0 to 19, but cityscapes_19"):
            model.predict(image)
    twenty = Taxonomy("twenty", tuple(f"c{i}" for i in range(20)), distinct_colors(20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TAXONOMIES, "twenty", twenty)
        said = replace(said, taxonomy="twenty")
        labels = load_model(tmp_path / "espnet.onnx", runtime, description=said).predict(image)
    nearest = expected.argmax(axis=0).repeat(2, axis=0).repeat(2, axis=1)
    assert (labels == nearest).mean() > 0.99  # float16 images differ by half a level


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_links_of_the_hugging_face_cache_are_followed(tmp_path: Path, runtime: str) -> None:
    # models--OWNER--NAME/snapshots/COMMIT/FILE -> ../../blobs/DIGEST, of every file.
    folder = tmp_path / "models--someone--net"
    snapshot, blobs = folder / "snapshots/0123abcd/onnx", folder / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    path = scores_of(blobs / "plain.onnx", [1, 3, 64, 96])
    model_proto = onnx.load(path)
    tensor = model_proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="model.onnx_data")
    (blobs / "ab12").write_bytes(model_proto.SerializeToString())
    (blobs / "cd34").write_bytes(WEIGHTS.tobytes())
    for name, blob in (("model.onnx", "ab12"), ("model.onnx_data", "cd34")):
        (snapshot / name).symlink_to(Path("../../../blobs") / blob)
    image = street((64, 96))
    labels = load_model(snapshot / "model.onnx", runtime, description=SAID).predict(image)
    np.testing.assert_array_equal(
        labels, load_model(path, runtime, description=SAID).predict(image)
    )
