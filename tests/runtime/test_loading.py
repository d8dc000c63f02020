"""`load_model`: the same labels from a checkpoint and from its exports, whatever the image."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import t2sda
from t2sda import load_model
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.data.transforms import resize_image
from t2sda.errors import MissingFileError, UserError
from t2sda.export.onnx import seal_onnx
from t2sda.images import read_image
from t2sda.runtime.checkpoints import TorchPredictor
from t2sda.runtime.predictor import FilePredictor, Predictor
from tests.deployed import (
    DYNAMIC,
    DYNAMIC_LOGITS,
    IMAGE_SIZE,
    STATIC,
    shared_checkpoint,
    shared_export,
    street,
    write_checkpoint,
)

TIE = 1e-4


@pytest.fixture
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load_model(shared_checkpoint(tmp_path_factory))


@pytest.fixture
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load_model(shared_export(tmp_path_factory, DYNAMIC))


@pytest.fixture
def dynamic_logits(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load_model(shared_export(tmp_path_factory, DYNAMIC_LOGITS))


@pytest.fixture
def static(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load_model(shared_export(tmp_path_factory, STATIC))


def unlike_beyond_ties(labels: np.ndarray, expected: Predictor, image: object) -> int:
    """Pixels that differ from a model's labels although its best logit is clearly the best."""
    logits = expected.logits(image)  # type: ignore[call-overload]
    best_two = np.sort(logits, axis=0)[-2:]
    clear = best_two[1] - best_two[0] > TIE
    assert clear.mean() > 0.9  # or the comparison would say nothing
    return int(((labels != logits.argmax(axis=0)) & clear).sum())


def save_rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn by 90 degrees clockwise to see it
    Image.fromarray(street((101, 173))).save(path, exif=exif)


def save_transparent(path: Path) -> None:
    alpha = np.full((99, 133, 1), 200, np.uint8)
    Image.fromarray(np.concatenate([street((99, 133)), alpha], axis=2), "RGBA").save(path)


IMAGES: dict[str, Callable[[Path], None]] = {
    "odd.jpg": lambda path: Image.fromarray(street((97, 131))).save(path),
    "portrait.png": lambda path: Image.fromarray(street((173, 75))).save(path),
    "grey.png": lambda path: Image.fromarray(street((111, 143))).convert("L").save(path),
    "transparent.png": save_transparent,
    "rotated.jpg": save_rotated,
}


@pytest.mark.parametrize("name", IMAGES)
def test_labels_of_checkpoint_and_onnx_are_the_same(
    name: str, tmp_path: Path, checkpoint: Predictor, dynamic: Predictor
) -> None:
    path = tmp_path / name
    IMAGES[name](path)
    labels = dynamic.predict(path)
    assert labels.dtype == np.uint8
    assert labels.shape == read_image(path).shape[:2]
    assert unlike_beyond_ties(labels, checkpoint, path) == 0
    assert unlike_beyond_ties(checkpoint.predict(path), checkpoint, path) == 0


def test_static_file_on_images_of_its_size(checkpoint: Predictor, static: Predictor) -> None:
    image = street(IMAGE_SIZE)
    assert unlike_beyond_ties(static.predict(image), checkpoint, image) == 0


def test_static_file_on_images_of_other_sizes(checkpoint: Predictor, static: Predictor) -> None:
    image = street((192, 320))  # twice the file's size
    seen = resize_image(image, IMAGE_SIZE)
    labels = static.predict(image)
    assert np.array_equal(labels, static.predict(seen).repeat(2, axis=0).repeat(2, axis=1))
    assert unlike_beyond_ties(labels[::2, ::2], checkpoint, seen) == 0


def test_static_file_keeps_the_ratio_of_a_portrait(static: Predictor) -> None:
    portrait = street((96, 64))
    beside = np.full((96, 96, 3), 128, np.uint8)  # the network's mean color
    framed = np.concatenate([portrait, beside], axis=1)
    labels = static.predict(portrait)
    assert np.array_equal(labels, static.predict(framed)[:, :64])


def test_logits(checkpoint: Predictor, dynamic_logits: Predictor) -> None:
    image = street((97, 131))
    logits = dynamic_logits.logits(image)
    assert logits.shape == (19, 97, 131)
    np.testing.assert_allclose(logits, checkpoint.logits(image), atol=1e-4)
    assert np.array_equal(dynamic_logits.predict(image), logits.argmax(axis=0))


def test_a_file_of_labels_has_no_logits(dynamic: Predictor) -> None:
    with pytest.raises(UserError, match=r"holds no logits.*--output-kind logits"):
        dynamic.logits(street((64, 64)))


def test_a_list_of_arrays_and_paths(tmp_path: Path, dynamic: Predictor) -> None:
    image = street((65, 97))
    path = tmp_path / "street.png"
    Image.fromarray(image).save(path)
    results = dynamic.predict([image, path, str(path)])
    assert len(results) == 3
    for labels in results:
        assert np.array_equal(labels, dynamic.predict(image))


def test_both_know_their_classes(checkpoint: Predictor, dynamic: Predictor) -> None:
    assert checkpoint.taxonomy == dynamic.taxonomy == CITYSCAPES_19


def test_run_folder_means_its_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert isinstance(load_model(shared_checkpoint(tmp_path_factory).parent), TorchPredictor)


def with_properties(path: Path, output: Path, **changes: object) -> Path:
    """A copy of an ONNX file whose metadata says something else; None removes a key."""
    model_proto = onnx.load(path)
    properties = {item.key: item.value for item in model_proto.metadata_props}
    properties |= {key: json.dumps(value) for key, value in changes.items() if value is not None}
    model_proto.ClearField("metadata_props")
    for key, value in properties.items():
        if changes.get(key, "") is not None:
            model_proto.metadata_props.add(key=key, value=value)
    onnx.save(model_proto, output)
    seal_onnx(output)
    return output


def test_images_are_resized_as_in_the_evaluation(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bounded = load_model(
        write_checkpoint(tmp_path / "bounded", "EVALUATION.IMAGE_SIZE", "[64, 128]")
    )
    exported = shared_export(tmp_path_factory, DYNAMIC_LOGITS)
    onnx_model = load_model(
        with_properties(exported, tmp_path / "bounded.onnx", image_bound=[64, 128])
    )
    image = street((120, 180))
    np.testing.assert_allclose(onnx_model.logits(image), bounded.logits(image), atol=1e-4)
    assert unlike_beyond_ties(onnx_model.predict(image), bounded, image) == 0
    assert not np.array_equal(bounded.predict(image), load_model(exported).predict(image))


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((1, 8, 8, 3), np.uint8)],
)
def test_arrays_that_are_no_images(image: np.ndarray, dynamic: Predictor) -> None:
    with pytest.raises(UserError, match=r"a uint8 RGB array \(height, width, 3\)"):
        dynamic.predict(image)


def foreign_onnx(path: Path) -> Path:
    """An ONNX file that copies a number."""
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "foreign",
        [info("x", onnx.TensorProto.FLOAT, [1])],
        [info("y", onnx.TensorProto.FLOAT, [1])],
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_files_that_are_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"foreign\.onnx: takes float32 of shape \(1,\)"):
        load_model(foreign_onnx(tmp_path / "foreign.onnx"))
    for name, message in (
        ("text.onnx", "not an ONNX file"),
        ("text.pth", "not a readable checkpoint: it is no file of torch"),
    ):
        (tmp_path / name).write_text("hello")
        with pytest.raises(UserError, match=f"{name}: {message}"):
            load_model(tmp_path / name)
    with pytest.raises(MissingFileError, match=r"nowhere\.onnx: no such file"):
        load_model(tmp_path / "nowhere.onnx")
    with pytest.raises(MissingFileError, match=r"no checkpoint_\*\.pth"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"palette": None}, {"output_kind": "masks"}, {"image_size": [1, 2, 3]}, {"subsets": [1]}],
)
def test_damaged_metadata(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, changes: dict[str, object]
) -> None:
    path = with_properties(
        shared_export(tmp_path_factory, STATIC), tmp_path / "damaged.onnx", **changes
    )
    with pytest.raises(UserError, match=r"damaged\.onnx: its metadata is damaged"):
        load_model(path)


def test_further_metadata_of_other_tools_does_no_harm(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = shared_export(tmp_path_factory, STATIC)
    model_proto = onnx.load(source)
    model_proto.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")
    onnx.save(model_proto, tmp_path / "more.onnx")
    assert isinstance(load_model(tmp_path / "more.onnx"), FilePredictor)


def test_runtime_and_device_must_fit(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_path = shared_export(tmp_path_factory, STATIC)
    with pytest.raises(UserError, match="is a file for onnxruntime or openvino; torch cannot"):
        load_model(onnx_path, runtime="torch")
    with pytest.raises(UserError, match="is a file for torch; onnxruntime cannot run it"):
        load_model(shared_checkpoint(tmp_path_factory), runtime="onnxruntime")
    with pytest.raises(UserError, match="runtime 'tensorflow': unknown; one of torch"):
        load_model(onnx_path, runtime="tensorflow")
    with pytest.raises(UserError, match="device 'tpu': unknown; one of auto, cpu, cuda"):
        load_model(onnx_path, device="tpu")


def test_a_provider_that_is_not_built_in(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    path = shared_export(tmp_path_factory, STATIC)
    with pytest.raises(UserError, match=r"device cuda: .*without CUDAExecutionProvider"):
        load_model(path, device="cuda")
    assert isinstance(load_model(path, device="auto"), FilePredictor)


def test_where_no_device_is_asked_for_a_gpu_stays_unused(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    checkpoint, onnx_path = (
        shared_checkpoint(tmp_path_factory),
        shared_export(tmp_path_factory, STATIC),
    )
    for path, runtime in ((checkpoint, None), (onnx_path, None), (onnx_path, "openvino")):
        assert load_model(path, runtime).predict(street(IMAGE_SIZE)).shape == IMAGE_SIZE


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_the_silent_fallback_of_onnxruntime_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The GPU build lists this provider everywhere, and then runs on the CPU.
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    with pytest.raises(UserError, match="ONNX Runtime fell back to CPUExecutionProvider"):
        load_model(shared_export(tmp_path_factory, STATIC), device="cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_checkpoint_on_a_gpu_that_is_not_there(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UserError, match="cuda was asked for, but this machine has no usable GPU"):
        load_model(shared_checkpoint(tmp_path_factory), device="cuda")


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = (
        "import sys, t2sda; assert 'torch' not in sys.modules; assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_package_offers_nothing_else() -> None:
    with pytest.raises(AttributeError, match="module 't2sda' has no attribute 'load_modle'"):
        _ = t2sda.load_modle


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_several_threads_get_their_own_results(
    runtime: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = shared_export(tmp_path_factory, DYNAMIC)
    model = load_model(path, runtime, threads=1, streams=2)
    images = [street((64 + 8 * index, 96), index) for index in range(4)]
    alone = [model.predict(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(model.predict, images * 5))
    for index, labels in enumerate(together):
        assert np.array_equal(labels, alone[index % 4])


def test_batches_are_neighbours_of_one_size(
    checkpoint: Predictor, dynamic: Predictor, static: Predictor
) -> None:
    images = [street(size, index) for index, size in enumerate([(64, 96)] * 3 + [(65, 97)])]
    for model in (checkpoint, dynamic):
        pairs = zip(model.predict(images, batch_size=2), images, strict=True)
        for labels, image in pairs:
            assert unlike_beyond_ties(labels, checkpoint, image) == 0
    with pytest.raises(UserError, match="takes at most 1 at once; export with --dynamic"):
        static.predict(images, batch_size=2)


def test_probabilities_in_batches(checkpoint: Predictor, dynamic_logits: Predictor) -> None:
    images = [street(size, index) for index, size in enumerate([(64, 96)] * 3 + [(65, 97)])]
    for model in (checkpoint, dynamic_logits):
        for own, image in zip(model.probabilities(images, 2), images, strict=True):
            alone = torch.from_numpy(model.logits(image)).softmax(dim=0).numpy()
            # Logits of 100 and more, summed in another order.
            np.testing.assert_allclose(own, alone, atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (31, 7)])
def test_images_smaller_than_the_network_sees(
    size: tuple[int, int], checkpoint: Predictor, dynamic: Predictor, static: Predictor
) -> None:
    image = street((64, 96))[: size[0], : size[1]]
    for model in (checkpoint, dynamic, static):
        assert model.predict(image).shape == size
    assert unlike_beyond_ties(dynamic.predict(image), checkpoint, image) == 0


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_wrong_size_for_a_static_graph(
    runtime: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = load_model(shared_export(tmp_path_factory, STATIC), runtime)
    assert isinstance(model, FilePredictor)
    with pytest.raises(UserError, match=r"cannot run images of shape \(1, 64, 64, 3\)"):
        model.run(np.zeros((1, 64, 64, 3), np.uint8))  # `predict` would resize
