"""An export target of one's own: two functions in one file, given with --plugin."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2sda import load_model
from t2sda.cli.main import main
from t2sda.export.exporters import EXPORTERS
from t2sda.plugins import LOADED_FILES
from t2sda.runtime.runtimes import RUNTIMES
from tests.deployed import street
from tests.runtime.test_without_torch import without_the_rest
from tests.tiny_onnx import SIZE, tiny_model, write_tiny

PLUGIN = '''
"""1x1 convolutions as NumPy arrays."""
import numpy as np

from t2sda.runtime.onnx_content import properties_of_onnx
from t2sda.runtime.opened import OpenedFile
from t2sda.runtime.runtimes import RUNTIMES, Runtime, runs

SIGN = {sign}


def write_npz(source, output):
    import onnx

    (weights,) = onnx.load(source).graph.initializer
    values = onnx.numpy_helper.to_array(weights)[:, :, 0, 0]
    np.savez(output, weights=SIGN * values, **properties_of_onnx(source))


def open_npz(path, options):
    with np.load(path) as content:
        values = dict(content)
    weights = values.pop("weights")
    properties = {{key: str(value) for key, value in values.items()}}
    return OpenedFile(lambda images: np.einsum("kc,bhwc->bkhw", weights, images), properties)


RUNTIMES["npz"] = Runtime((".npz",), runs(open_npz))
try:
    from t2sda.export.exporters import EXPORTERS, Exporter, verified
except ModuleNotFoundError:
    pass  # where files are run alone, nothing is exported
else:
    EXPORTERS["npz"] = Exporter((".npz",), verified(write_npz))
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    """The file; what it adds to the tables is taken back."""
    path = tmp_path / "npz_target.py"
    path.write_text(PLUGIN.format(sign="1"))
    yield path
    EXPORTERS.pop("npz", None)
    RUNTIMES.pop("npz", None)
    LOADED_FILES.pop(path.resolve(), None)
    sys.modules.pop(path.stem, None)


def test_it_is_exported_verified_and_run(
    plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = write_tiny(tmp_path / "m.onnx", tiny_model("logits")), tmp_path / "m.npz"
    words = ["export", "npz", str(source), "--output", str(output), "--plugin", str(plugin)]
    assert main(words) == 0
    assert "verified in npz against ONNX Runtime: logits differ by" in capsys.readouterr().out
    image = street(SIZE)
    model = load_model(output)
    assert model.runtime == "npz"
    assert (model.predict(image) == load_model(source).predict(image)).mean() > 0.999
    assert model.taxonomy.class_names[0] == "road"

    Image.fromarray(image).save(tmp_path / "a.png")
    infer = ["infer", "--model", str(output), "--input", str(tmp_path / "a.png"), "--output"]
    infer += [str(tmp_path / "out"), "--kind", "trainid", "--plugin", str(plugin)]
    done = without_the_rest("from t2sda.cli.main import main; sys.exit(main(sys.argv[1:]))", *infer)
    assert done.returncode == 0, done.stderr
    labels = np.asarray(Image.open(tmp_path / "out/a_trainid.png"))
    assert np.array_equal(labels, model.predict(image))


def test_a_file_that_disagrees_is_not_kept(
    plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin.write_text(PLUGIN.format(sign="-1"))
    source, output = write_tiny(tmp_path / "m.onnx", tiny_model("logits")), tmp_path / "m.npz"
    words = ["export", "npz", str(source), "--output", str(output), "--plugin", str(plugin)]
    assert main(words) == 2
    assert "disagrees with its source and is not kept" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["m.onnx", plugin.name]


def test_its_options_follow_from_what_it_can_do(
    plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["export", "npz", "--plugin", str(plugin), "--help"])
    text = capsys.readouterr().out
    assert "--evaluate" in text
    assert "--dynamic" in text
    assert "--calibration" not in text
    assert "--profile" not in text
    assert main(["export", "npzz", "--plugin", str(plugin)]) == 2
    assert "unknown; known, nearest first: npz, " in capsys.readouterr().err
