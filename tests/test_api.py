"""Training and scoring from Python, without the command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import t2sda
from t2sda.cli.main import main
from t2sda.data.catalog import DrawnStreetsSpec
from t2sda.data.datasets import Sample
from t2sda.data.taxonomies import Taxonomy
from t2sda.engine.hooks import Hook
from t2sda.errors import UserError
from t2sda.evaluation.evaluator import Scores
from t2sda.modeling.segmentor import build_segmentation_model
from t2sda.registry import UnknownNameError
from t2sda.runtime.checkpoints import TorchPredictor
from t2sda.structures import Step
from tests.components import components_restored
from tests.integration.conftest import differences

TINY: dict[str, Any] = {
    **{"DATASETS.SOURCE": "tiny_train", "EVALUATION.DATASETS": ["tiny_val"]},
    **{"MODEL.BACKBONE.TIMM_NAME": "test_resnet", "MODEL.BACKBONE.WEIGHTS": ""},
    **{"MODEL.HEAD.CHANNELS": 16, "DATA.CROP_SIZE": [64, 64], "DATA.NUM_WORKERS": 0},
    **{"SOLVER.MAX_ITER": 2, "SOLVER.BATCH_SIZE": 2, "SOLVER.WARMUP_ITERS": 0},
    **{"LOGGING.TENSORBOARD": False, "DEVICE": "cpu"},
}
CONFIG = "quickstart_source_only.yaml"


@pytest.fixture(autouse=True)
def _tiny_datasets() -> Iterator[None]:
    with components_restored():
        for name, seed in (("tiny_train", 0), ("tiny_val", 1)):
            t2sda.datasets.register(DrawnStreetsSpec(name, "clear", seed, 4, (64, 96)))
        yield


def same_scores(first: Scores, second: Scores) -> bool:
    """NaN, of a class that is not there, equals NaN."""
    return str(first) == str(second)


PROGRAM = """
import sys, time
began = time.perf_counter()
import t2sda
seconds = time.perf_counter() - began
assert "torch" not in sys.modules and "numpy" not in sys.modules
assert {"datasets", "evaluate", "load_config", "load_model", "train"} <= set(dir(t2sda))
assert set(t2sda.__all__) <= set(dir(t2sda))
assert "streets_hazy_val" in t2sda.datasets.names()
assert t2sda.load_config("quickstart.yaml").META_ARCH.NAME == "T2SDA"
assert not [name for name in sys.modules if name.startswith("t2sda.cli")]
print(seconds)
"""


def test_importing_is_cheap_and_registries_fill_by_themselves() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.1


def test_train_gives_what_the_command_gives(tmp_path: Path) -> None:
    result = t2sda.train(CONFIG, overrides=TINY, output_dir=tmp_path / "python")
    words = [word for key, value in TINY.items() for word in (key, str(value))]
    folder = str(tmp_path / "command")
    assert main(["train", "--config-file", CONFIG, "--output-dir", folder, *words]) == 0
    name = "checkpoint_0000002.pth"
    files = (tmp_path / "python" / name, tmp_path / "command" / name)
    one, two = (torch.load(path, weights_only=True) for path in files)
    assert differences(one, two) in ([], ["/config/OUTPUT_DIR"])
    assert (result.output_dir, result.iteration) == (tmp_path / "python", 2)
    assert result.stopped_by is None


def test_what_is_scored_is_the_same_at_the_end_and_of_every_form(tmp_path: Path) -> None:
    result = t2sda.train(CONFIG, overrides=TINY, output_dir=tmp_path)
    (at_the_end,) = result.scores
    dataset = t2sda.datasets.open("tiny_val")
    for scores in (
        t2sda.evaluate(result.predictor, "tiny_val"),
        t2sda.evaluate(result.predictor, dataset),
        t2sda.evaluate(tmp_path, "tiny_val"),
        t2sda.evaluate(str(tmp_path / "checkpoint_0000002.pth"), dataset, device="cpu"),
    ):
        assert same_scores(scores, at_the_end)


def test_a_run_goes_on_with_resume_and_says_so_without(tmp_path: Path) -> None:
    t2sda.train(CONFIG, overrides=TINY, output_dir=tmp_path)
    with pytest.raises(UserError, match="resume=True in Python"):
        t2sda.train(CONFIG, overrides=TINY, output_dir=tmp_path)
    longer = TINY | {"SOLVER.MAX_ITER": 3}
    assert t2sda.train(CONFIG, overrides=longer, output_dir=tmp_path, resume=True).iteration == 3


class Counter(Hook):
    """Keeps state, so that a resumed run goes on counting."""

    def __init__(self) -> None:
        self.steps = torch.zeros(1)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.steps = state["steps"].clone()

    def after_step(self, step: Step) -> None:
        self.steps += 1


def test_hooks_that_are_handed_in_run_and_resume(tmp_path: Path) -> None:
    t2sda.train(CONFIG, overrides=TINY, output_dir=tmp_path, hooks=[Counter()])
    counter = Counter()
    longer = TINY | {"SOLVER.MAX_ITER": 5}
    t2sda.train(CONFIG, overrides=longer, output_dir=tmp_path, resume=True, hooks=[counter])
    assert counter.steps.item() == 5
    with pytest.raises(UserError, match="two hooks are called Counter"):
        t2sda.train(CONFIG, overrides=TINY, output_dir=tmp_path / "b", hooks=[counter, counter])


def test_a_model_that_is_handed_in_is_trained(tmp_path: Path) -> None:
    cfg = t2sda.load_config(CONFIG, TINY, output_dir=tmp_path)
    model = build_segmentation_model(cfg, 19)
    before = model.head.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    result = t2sda.train(cfg, model=model)
    assert result.predictor.model is model
    assert any(not torch.equal(before[k], v) for k, v in model.head.state_dict().items())
    with pytest.raises(UserError, match="the model has 7 classes, the source 19"):
        t2sda.train(cfg, output_dir=tmp_path / "other", model=build_segmentation_model(cfg, 7))


class Blocks(t2sda.datasets.SegmentationDataset):
    """A dataset of one's own: the left half is of one class, the right half of the other."""

    name = "blocks"
    taxonomy = Taxonomy("two", ("left", "right"), ((255, 0, 0), (0, 255, 0)))
    class_groups = ()

    def __len__(self) -> int:
        return 3

    @property
    def labelled(self) -> bool:
        return True

    def load(self, index: int, with_label: bool = True) -> Sample:
        label = np.zeros((64, 64), dtype=np.uint8)
        label[:, 32:] = 1
        image = np.stack([(1 - label) * 200, label * 200, label], axis=2)
        return Sample(self.name_of(index), image, label if with_label else None)

    def label_identity(self) -> Iterator[str]:
        yield "halves"


def test_a_dataset_that_is_an_object_is_trained_on_and_scored(tmp_path: Path) -> None:
    for _ in range(2):  # a cell of a notebook is run again
        t2sda.datasets.register(Blocks())
    overrides = TINY | {"DATASETS.SOURCE": "blocks", "EVALUATION.DATASETS": ["blocks"]}
    overrides |= {"SOLVER.MAX_ITER": 30, "SOLVER.BASE_LR": 1e-2, "DATA.MAX_CLASS_SHARE": 1.0}
    result = t2sda.train(CONFIG, overrides=overrides, output_dir=tmp_path)
    assert result.scores[0].iou.keys() == {"left", "right"}
    assert t2sda.evaluate(result.predictor, Blocks()).mean_iou > 0.8
    with pytest.raises(UserError, match="the model those of 'two'"):
        t2sda.evaluate(result.predictor, "tiny_val")


def test_a_shipped_dataset_is_not_replaced() -> None:
    blocks = Blocks()
    blocks.name = "streets_hazy_val"
    with pytest.raises(ValueError, match="registered already"):
        t2sda.datasets.register(blocks)


def test_a_configuration_may_be_a_mapping_or_another_configuration() -> None:
    values = {"SOLVER": {"MAX_ITER": 7}, "DATASETS": {"SOURCE": "tiny_train"}}
    cfg = t2sda.load_config(values)
    assert (cfg.SOLVER.MAX_ITER, cfg.DATASETS.SOURCE) == (7, ("tiny_train",))
    other = t2sda.load_config(cfg, ["SOLVER.BASE_LR", "1.0e-3"], output_dir="2024")
    assert (other.SOLVER.MAX_ITER, other.SOLVER.BASE_LR, other.OUTPUT_DIR) == (7, 1e-3, "2024")
    assert cfg.OUTPUT_DIR != "2024"


def test_what_is_wrong_is_an_exception(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)SOLVER.MAX_ITR.*overrides.*LOGGING.PERIOD"):
        t2sda.train(CONFIG, overrides={"SOLVER.MAX_ITR": 3, "LOGGING.PERIOD": 0})
    with pytest.raises(UnknownNameError, match="no dataset is called 'nowhere'"):
        t2sda.train(CONFIG, overrides=TINY | {"DATASETS.SOURCE": "nowhere"}, output_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        t2sda.evaluate(tmp_path / "nothing", "tiny_val")

    with pytest.raises(UserError, match=r"overrides: 'SOLVER.MAX_ITER=3'; give a mapping"):
        t2sda.load_config(CONFIG, "SOLVER.MAX_ITER=3")
    with pytest.raises(UserError, match=r"overrides: .*, 3\]; give .* or a list of text"):
        t2sda.load_config(CONFIG, ["SOLVER.MAX_ITER", 3])  # type: ignore[list-item]


def test_arguments_of_another_kind_are_named(tmp_path: Path) -> None:
    linear: Any = torch.nn.Linear(1, 1)
    with pytest.raises(TypeError, match="model: a Linear is no SegmentationModel"):
        t2sda.train(CONFIG, model=linear, output_dir=tmp_path)
    with pytest.raises(TypeError, match="hooks: a Linear is no Hook"):
        t2sda.train(CONFIG, hooks=[linear], output_dir=tmp_path)
    with pytest.raises(TypeError, match="model: a Linear is no Predictor; .* as `.predictor`"):
        t2sda.evaluate(linear, "tiny_val")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["random", "time"])  # read from a file, and built in
def test_a_plugin_does_not_replace_a_module(tmp_path: Path, name: str) -> None:
    plugin = tmp_path / f"{name}.py"
    plugin.touch()
    with pytest.raises(UserError, match=f"'{name}' is loaded already; give the file another name"):
        t2sda.load_config(CONFIG, plugins=[str(plugin)])
    assert getattr(sys.modules[name], "__file__", None) != str(plugin)


def test_a_plugin_is_loaded_once(tmp_path: Path) -> None:
    plugin = tmp_path / "idle_hook_plugin.py"
    plugin.write_text(
        "from t2sda.engine.hooks import HOOKS, Hook\n\n\n"
        "@HOOKS.register()\nclass IdleOfThisTest(Hook):\n    '''Does nothing.'''\n"
    )
    overrides = TINY | {"HOOKS.NAMES": ["IdleOfThisTest"]}
    for _ in range(2):
        cfg = t2sda.load_config(CONFIG, overrides, plugins=[str(plugin)])
    assert cfg.HOOKS.NAMES == ("IdleOfThisTest",)


def test_the_predictor_of_a_result_is_the_student(tmp_path: Path) -> None:
    result = t2sda.train(CONFIG, overrides=TINY, output_dir=tmp_path)
    assert isinstance(result.predictor, TorchPredictor)
    image = t2sda.datasets.open("tiny_val").load(0).image
    loaded = t2sda.load_model(tmp_path)
    assert np.array_equal(result.predictor.predict(image), loaded.predict(image))
