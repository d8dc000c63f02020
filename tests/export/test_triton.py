"""`t2sda export triton`: read back with Triton's own protobuf."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from t2sda.cli.main import main
from t2sda.data.taxonomies import CITYSCAPES_19, Taxonomy
from t2sda.export.triton import export_triton
from tests.full_disk import file_size_limit
from tests.tiny_onnx import edited, metadata, tiny_model, write_tiny

model_config_pb2 = pytest.importorskip(
    "tritonclient.grpc.model_config_pb2", reason="needs pip install 'tritonclient[grpc]'"
)
from google.protobuf import text_format  # noqa: E402

HOSTILE = Taxonomy('mine \\ " ü', ('a "b" \\n', "ö"), ((0, 0, 0), (1, 1, 1)))


def config_of(folder: Path) -> Any:
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def shapes(values: Any) -> list[tuple[str, int, list[int]]]:
    """(name, type of onnx.proto, sizes; -1 where they vary) of a graph's inputs or outputs."""
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim],
        )
        for value in values
    ]


ONNX_TYPES = {"TYPE_UINT8": onnx.TensorProto.UINT8, "TYPE_FP32": onnx.TensorProto.FLOAT}


def told(tensors: Any, batched: bool) -> list[tuple[str, int, list[int]]]:
    """The same of a configuration; the first axis is Triton's where it batches."""
    types = model_config_pb2.DataType
    return [
        (one.name, ONNX_TYPES[types.Name(one.data_type)], [-1] * batched + list(one.dims))
        for one in tensors
    ]


def dynamic(output_kind: Any) -> Any:
    model = tiny_model(
        output_kind,
        size=("height", "width"),
        properties=metadata(output_kind, image_size=None).to_properties(),
    )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


@pytest.mark.parametrize("output_kind", ["labels", "logits"])
@pytest.mark.parametrize("batched", [False, True], ids=["static", "dynamic"])
def test_names_types_and_sizes_are_the_graphs(
    tmp_path: Path, output_kind: Any, batched: bool
) -> None:
    model = dynamic(output_kind) if batched else tiny_model(output_kind)
    source = write_tiny(tmp_path / "street.onnx", model)
    placed = export_triton(source, tmp_path / "repository", max_batch=5)
    config = config_of(placed.folder)
    assert config.name == "street"
    assert config.backend == "onnxruntime"
    assert config.max_batch_size == (5 if batched else 0)
    assert config.HasField("dynamic_batching") == batched
    graph = onnx.load(source).graph
    assert told(config.input, batched) == shapes(graph.input)
    assert told(config.output, batched) == shapes(graph.output)
    assert (placed.folder / "1" / config.default_model_filename).read_bytes() == source.read_bytes()
    labels = (placed.folder / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert tuple(labels) == CITYSCAPES_19.class_names


def test_metadata_of_any_letters_arrives_as_parameters(tmp_path: Path) -> None:
    properties = metadata(taxonomy=HOSTILE).to_properties()
    source = write_tiny(tmp_path / "mine.onnx", tiny_model(properties=properties))
    parameters = config_of(export_triton(source, tmp_path / "r").folder).parameters
    assert json.loads(parameters["class_names"].string_value) == list(HOSTILE.class_names)
    assert {key: parameters[key].string_value for key in properties} == properties


def test_a_second_export_is_the_next_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_tiny(tmp_path / "a.onnx")
    second = write_tiny(
        tmp_path / "b.onnx",
        tiny_model(properties=metadata(origin={"run": "later", "iteration": 2}).to_properties()),
    )
    output = ["--output", str(tmp_path / "r"), "--name", "street"]
    assert main(["export", "triton", str(first), *output]) == 0
    assert main(["export", "triton", str(second), *output]) == 0
    assert "version 2" in capsys.readouterr().out
    below = sorted(str(path.relative_to(tmp_path / "r")) for path in (tmp_path / "r").rglob("*.*"))
    assert below == [
        *("street/1/model.onnx", "street/2/model.onnx", "street/config.pbtxt", "street/labels.txt"),
    ]
    other = write_tiny(tmp_path / "c.onnx", tiny_model("logits"))
    assert main(["export", "triton", str(other), *output]) == 2
    assert "choose another --name" in capsys.readouterr().err
    assert not (tmp_path / "r/street/3").exists()


def test_what_cannot_be_served_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_tiny(tmp_path / "a.onnx")
    foreign = tmp_path / "foreign.onnx"
    onnx.save(tiny_model(properties={"made by": "others"}), foreign)
    changed = write_tiny(tmp_path / "changed.onnx")
    edited(changed, lambda model: model.graph.node.pop())
    blocked = tmp_path / "file"
    blocked.write_text("")
    repository = tmp_path / "r"
    for arguments, words in (
        ([str(foreign), "--output", str(repository)], "did not write"),
        ([str(changed), "--output", str(repository)], "do not belong together"),
        ([str(tmp_path / "run"), "--output", str(repository)], "export onnx` comes first"),
        ([str(source), "--output", str(repository), "--name", "../x"], "--name '../x'"),
        ([str(source), "--output", str(repository), "--name", "a b"], "choose one with --name"),
        ([str(source), "--output", str(repository), "--max-batch", "4"], "leave it out"),
        ([str(source), "--output", str(blocked)], "choose another folder with --output"),
    ):
        assert main(["export", "triton", *arguments]) == 2
        assert words in capsys.readouterr().err
    assert not repository.exists()


def test_a_configuration_of_others_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_tiny(tmp_path / "a.onnx")
    output = ["--output", str(tmp_path / "r"), "--name", "mine"]
    config = tmp_path / "r/mine/config.pbtxt"
    config.parent.mkdir(parents=True)
    config.write_text('name: "mine"')
    assert main(["export", "triton", str(source), *output]) == 2
    assert "what is there takes or gives something else" in capsys.readouterr().err
    assert [path.name for path in config.parent.iterdir()] == ["config.pbtxt"]
    config.unlink()
    (config.parent / "1").mkdir()
    assert main(["export", "triton", str(source), *output]) == 2
    assert "holds versions and no config.pbtxt" in capsys.readouterr().err


def test_versions_of_one_model_have_one_largest_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", "triton", str(write_tiny(tmp_path / "a.onnx", dynamic("labels")))]
    command += ["--output", str(tmp_path / "r")]
    assert main(command) == 0
    assert main([*command, "--max-batch", "4"]) == 2
    assert "--max-batch" in capsys.readouterr().err
    assert main([*command, "--max-batch", "8"]) == 0
    with pytest.raises(SystemExit):
        main([*command, "--max-batch", str(1 << 31)])


def test_a_full_disk_leaves_no_version_and_the_next_export_goes_on(tmp_path: Path) -> None:
    source = write_tiny(tmp_path / "a.onnx")
    command = ["export", "triton", str(source), "--output", str(tmp_path / "r")]
    size = source.stat().st_size
    with file_size_limit(size - 1):
        assert main(command) == 2
    assert not (tmp_path / "r/a/1").exists()
    assert main(command) == 0
    assert (tmp_path / "r/a/1/model.onnx").read_bytes() == source.read_bytes()
