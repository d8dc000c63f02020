"""What a run takes over from a checkpoint, of the same classes and of others."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import t2sda.builtin  # noqa: F401
from t2sda.config import load_config
from t2sda.data.taxonomies import CITYSCAPES_19, Taxonomy
from t2sda.engine.checkpoint import load_checkpoint
from t2sda.errors import UserError
from t2sda.modeling.segmentor import SegmentationModel, build_segmentation_model
from t2sda.registry import MODELS
from t2sda.training.starting import start_from_
from tests.components import components_restored
from tests.deployed import SETTINGS, write_checkpoint

HARBOUR = Taxonomy("harbour", ("quay", "water", "ship"), ((0, 0, 0), (0, 0, 9), (9, 0, 0)))
RENAMED = Taxonomy("renamed", tuple("abcdefghijklmnopqrs"), CITYSCAPES_19.palette)
CLASSIFIER = {"head.classifier.weight", "head.classifier.bias"}
AUX_HEAD = ("MODEL.AUX_HEAD.NAME", "LightHead")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with components_restored():
        yield


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("starting") / "run"
    write_checkpoint(folder)
    return folder


def student_of(run_dir: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint(run_dir / "checkpoint_0000001.pth").meta_arch
    prefix = "student.model."
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}


def built(num_classes: int, *settings: str) -> SegmentationModel:
    torch.manual_seed(1)
    return build_segmentation_model(load_config(None, [*SETTINGS, *settings]), num_classes)


@pytest.mark.parametrize("taxonomy", [HARBOUR, RENAMED], ids=lambda taxonomy: taxonomy.name)
def test_for_other_classes_all_but_the_classifier_is_taken_over(
    run_dir: Path, taxonomy: Taxonomy, caplog: pytest.LogCaptureFixture
) -> None:
    model, fresh = (built(taxonomy.num_classes) for _ in range(2))
    with caplog.at_level(logging.INFO):
        start_from_(model, str(run_dir), taxonomy, load_config(None, SETTINGS))
    saved, drawn = student_of(run_dir), fresh.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, drawn[name] if name in CLASSIFIER else saved[name]), name
    assert (
        f"--weights: classes of 'cityscapes_19' -> '{taxonomy.name}': classifier starts anew: "
        "head.classifier.weight, head.classifier.bias"
    ) in caplog.text


def test_of_the_same_classes_the_classifier_is_taken_over_too(
    run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = built(19)
    with caplog.at_level(logging.INFO):
        start_from_(model, str(run_dir), CITYSCAPES_19, load_config(None, SETTINGS))
    saved = student_of(run_dir)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    assert "anew" not in caplog.text


def test_everything_else_is_strict(run_dir: Path) -> None:
    settings = [*SETTINGS, "MODEL.HEAD.CHANNELS", "8"]
    with pytest.raises(UserError, match=r"another architecture.*of another shape: head\."):
        start_from_(built(3, *settings), str(run_dir), HARBOUR, load_config(None, settings))


def test_an_auxiliary_head_that_one_side_has_is_new_or_left_out(
    run_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = [*SETTINGS, *AUX_HEAD]
    model, fresh = (built(19, *settings) for _ in range(2))
    with caplog.at_level(logging.INFO):
        start_from_(model, str(run_dir), CITYSCAPES_19, load_config(None, settings))
    assert "no auxiliary head in them; it starts anew" in caplog.text
    saved, drawn = student_of(run_dir), fresh.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, (drawn if name.startswith("aux_head.") else saved)[name]), name
    write_checkpoint(tmp_path / "run", *AUX_HEAD)
    plain = built(19)
    with caplog.at_level(logging.INFO):
        start_from_(plain, str(tmp_path / "run"), CITYSCAPES_19, load_config(None, SETTINGS))
    assert "their auxiliary head is left out" in caplog.text
    saved = student_of(tmp_path / "run")
    assert saved.keys() > plain.state_dict().keys()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in plain.state_dict().items())


HRDA = (
    *("MODEL.NAME", "HRDA", "MODEL.HRDA.DETAIL_SIZE", "[64, 64]"),
    *("MODEL.HRDA.WINDOW_SIZE", "[128, 128]", "MODEL.HRDA.ATTENTION", "LightHead"),
)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ((), CLASSIFIER),
        (("MODEL.HEAD.CHANNELS", "19"), CLASSIFIER),  # as many as classes
        (
            (*AUX_HEAD, "MODEL.HEAD.CHANNELS", "3"),
            CLASSIFIER | {f"aux_head.{name}" for name in CLASSIFIER},
        ),
        (HRDA, CLASSIFIER | {f"attention.{name.removeprefix('head.')}" for name in CLASSIFIER}),
        (
            ("MODEL.HEAD.NAME", "DeepLabV2Head"),
            {f"head.aspp_modules.{n}.conv.{kind}" for n in (0, 1) for kind in ("weight", "bias")},
        ),
    ],
    ids=["light", "width of 19", "auxiliary", "hrda", "deeplab"],
)
def test_what_depends_on_classes_is_what_has_their_number(
    settings: tuple[str, ...], names: set[str]
) -> None:
    keys = [*SETTINGS, *settings]
    if "DeepLabV2Head" in settings:
        keys = [key for key in keys if key not in ("MODEL.HEAD.CHANNELS", "16")]
    cfg = load_config(None, keys)
    generator = torch.random.get_rng_state()
    for number in (2, 19):
        assert MODELS.get(cfg.MODEL.NAME).class_tensors(cfg, number) == names
    assert torch.equal(torch.random.get_rng_state(), generator)


def test_a_model_of_a_plugin_is_asked_in_the_same_way() -> None:
    @MODELS.register("WithPriors")
    class WithPriors(SegmentationModel):
        """A buffer and a table of its own."""

        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            self.register_buffer("priors", torch.ones(self.num_classes))
            self.confusion = nn.Parameter(torch.ones(4, self.num_classes, self.num_classes))

    cfg = load_config(None, [*SETTINGS, "MODEL.NAME", "WithPriors"])
    assert WithPriors.class_tensors(cfg, 4) == CLASSIFIER | {"priors", "confusion"}


def test_a_run_with_frozen_norms_starts_from_one_that_trained_them(run_dir: Path) -> None:
    cfg = load_config(None, [*SETTINGS, "MODEL.NORM", "frozen"])
    frozen = build_segmentation_model(cfg, CITYSCAPES_19.num_classes)
    start_from_(frozen, str(run_dir), CITYSCAPES_19, cfg)
    expected = load_checkpoint(next(run_dir.glob("*.pth"))).meta_arch
    for name, tensor in frozen.state_dict().items():
        assert torch.equal(tensor, expected[f"student.model.{name}"]), name
