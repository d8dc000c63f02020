"""A ViT with adapters through a whole run: training, the shared teacher, resume, starts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from t2sda.config import ConfigError, load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.engine.checkpoint import load_checkpoint
from t2sda.engine.optim import check_every_parameter_is_trained
from t2sda.errors import UserError
from t2sda.modeling.backbones.adapters import AdaptedLinear
from t2sda.modeling.backbones.timm_networks import create_timm_network
from t2sda.modeling.segmentor import build_segmentation_model
from t2sda.registry import BACKBONES
from t2sda.runtime.checkpoints import model_of_checkpoint, open_checkpoint
from t2sda.structures import DomainBatch
from t2sda.training.plan import plan_text
from t2sda.training.run import TrainingRun, run_training
from t2sda.training.starting import start_from_
from tests.deployed import street, write_checkpoint
from tests.integration.conftest import checkpoint_differences
from tests.meta_arch.conftest import config_of
from tests.training import noise_batch, trainer_of

VIT = (
    *("MODEL.BACKBONE.NAME", "TimmViT", "MODEL.BACKBONE.TIMM_NAME", "test_vit"),
    *("MODEL.BACKBONE.PYRAMID_CHANNELS", "8"),
)
ADAPTERS = (
    *("MODEL.BACKBONE.TRAIN", "adapters", "MODEL.BACKBONE.ADAPTER.RANK", "4"),
    *("MODEL.BACKBONE.ADAPTER.FROM_BLOCK", "2", "MODEL.BACKBONE.ADAPTER.INIT", "smallest"),
)
RUN = (
    *("DATASETS.SOURCE", "streets_clear_train", "DATA.CROP_SIZE", "[64, 96]"),
    *("DATA.NUM_WORKERS", "0", "SOLVER.MAX_ITER", "4", "SOLVER.WARMUP_ITERS", "0"),
    *("SOLVER.BASE_LR", "1e-3", "CHECKPOINT.PERIOD", "2", "CHECKPOINT.KEEP", "0"),
    *("EVALUATION.PERIOD", "0", "LOGGING.PERIOD", "1", "LOGGING.TENSORBOARD", "false"),
    *("DEVICE", "cpu", "SOLVER.ACCUMULATION", "2"),
)


def shared_bytes(teacher: nn.Module, student: nn.Module) -> tuple[int, int]:
    """Bytes of the teacher's parameters that are the student's memory, and that are its own."""
    students = {p.untyped_storage().data_ptr() for p in student.parameters()}
    count: Counter[bool] = Counter()
    for parameter in teacher.parameters():
        shared = parameter.untyped_storage().data_ptr() in students
        count[shared] += parameter.untyped_storage().nbytes()
    return count[True], count[False]


def expected_bytes(student: nn.Module) -> tuple[int, int]:
    """Of frozen parameters, and of trained ones."""
    count: Counter[bool] = Counter()
    for parameter in student.parameters():
        count[parameter.requires_grad] += parameter.numel() * parameter.element_size()
    return count[False], count[True]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is published of a transformer."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "vit.pth"
    torch.save(create_timm_network("test_vit").state_dict(), path)
    return path


def run_config(output: Path, weights: Path, *settings: str) -> Any:
    places = ("OUTPUT_DIR", str(output), "MODEL.BACKBONE.WEIGHTS", str(weights))
    return config_of("T2SDA", *VIT, *RUN, *ADAPTERS, *places, *settings)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """T2S-DA of four steps, each of two micro-steps."""
    folder = tmp_path_factory.mktemp("adapters") / "run"
    run_training(run_config(folder, weights))
    return folder


def test_the_frozen_part_is_the_published_one_after_training(run_dir: Path, weights: Path) -> None:
    state = load_checkpoint(run_dir / "checkpoint_0000004.pth").meta_arch
    published = torch.load(weights)
    layers = ("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight")
    for name, tensor in published.items():
        if name.startswith(("head.", "fc_norm.")):
            continue
        ours = state[f"student.model.backbone.net.{name}"]
        block = int(name.split(".")[1]) if name.startswith("blocks.") else 0
        is_adapted = block >= 2 and name.endswith(
            (*layers, "qkv.bias", "proj.bias", "fc1.bias", "fc2.bias")
        )
        assert torch.equal(ours, tensor) is not is_adapted, name


def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    run_dir: Path, weights: Path, tmp_path: Path
) -> None:
    for name in ("checkpoint_0000002.pth", "config.yaml"):
        (tmp_path / name).write_bytes((run_dir / name).read_bytes())
    run = TrainingRun(run_config(tmp_path, weights), resume=True)
    meta_arch: Any = run.meta_arch
    assert run.first_iteration == 2
    shared, own = shared_bytes(meta_arch.teacher, meta_arch.student)
    assert (shared, own) == expected_bytes(meta_arch.student)
    run.run()
    assert shared_bytes(meta_arch.teacher, meta_arch.student) == (shared, own)
    final = "checkpoint_0000004.pth"
    assert checkpoint_differences(run_dir / final, tmp_path / final) == []


def test_a_checkpoint_holds_the_frozen_part_once(run_dir: Path) -> None:
    checkpoint = load_checkpoint(run_dir / "checkpoint_0000004.pth")
    frozen, trained = 0, 0
    for name, tensor in checkpoint.meta_arch.items():
        if name.startswith("student."):
            teachers = checkpoint.meta_arch[name.replace("student.", "teacher.", 1)]
            is_shared = teachers.data_ptr() == tensor.data_ptr()
            frozen += is_shared * tensor.nbytes
            trained += (not is_shared) * tensor.nbytes
    assert frozen > 300_000  # of test_vit's 370 000 numbers
    moments = 2 * trained
    size = checkpoint.path.stat().st_size
    # Names and structure take the rest; a second copy of the frozen part would not fit in.
    assert frozen + 2 * trained + moments <= size * 1.05
    assert size < frozen + 2 * trained + moments + frozen // 2


def test_the_teacher_shares_what_is_frozen_through_moves_and_updates() -> None:
    trainer = trainer_of(config_of("T2SDA", *VIT, *ADAPTERS, "SOLVER.WARMUP_ITERS", "0"))
    meta_arch: Any = trainer.meta_arch
    frozen, trained = expected_bytes(meta_arch.student)
    assert shared_bytes(meta_arch.teacher, meta_arch.student) == (frozen, trained)
    meta_arch.to(torch.float64)  # moves every parameter, as going to a GPU does
    assert shared_bytes(meta_arch.teacher, meta_arch.student) == (2 * frozen, 2 * trained)
    meta_arch.to(torch.float32).to(memory_format=torch.channels_last)
    before = {name: tensor.clone() for name, tensor in meta_arch.teacher.state_dict().items()}
    trainer.run_step(0, iter([noise_batch(2)]))
    assert shared_bytes(meta_arch.teacher, meta_arch.student) == (frozen, trained)
    learns = {name for name, p in meta_arch.student.named_parameters() if p.requires_grad}
    for name, tensor in meta_arch.teacher.named_parameters():
        assert torch.equal(tensor, before[name]) is (name not in learns), name


def test_without_frozen_parts_the_teacher_shares_nothing() -> None:
    meta_arch: Any = trainer_of(config_of("SelfTraining", *VIT)).meta_arch
    assert shared_bytes(meta_arch.teacher, meta_arch.student)[0] == 0


def test_the_optimizer_has_what_learns_at_its_rates() -> None:
    cfg = config_of("T2SDA", *VIT, *ADAPTERS, "SOLVER.BASE_LR", "1e-3")
    trainer = trainer_of(cfg)
    check_every_parameter_is_trained(trainer.meta_arch, trainer.owners)
    names = {id(p): name for name, p in trainer.meta_arch.student.named_parameters()}
    rates = {
        names[id(p)]: (group["base_lr"], group["weight_decay"])
        for group in trainer.owners[0].optimizer.param_groups
        for p in group["params"]
    }
    assert rates.keys() == {
        n for n, p in trainer.meta_arch.student.named_parameters() if p.requires_grad
    }
    for name, found in rates.items():
        rate = 1e-3 if ".net." in name else 1e-2
        assert found == pytest.approx((rate, 0.01)), name


def halves(batch: DomainBatch) -> list[DomainBatch]:
    fields = [field.name for field in dataclasses.fields(batch)]
    values = {name: getattr(batch, name) for name in fields}
    return [
        DomainBatch(**{n: None if v is None else v[part] for n, v in values.items()})
        for part in (slice(0, 1), slice(1, 2))
    ]


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    # A head without BatchNorm, whose statistics would be those of a micro-step.
    settings = ["MODEL.HEAD.NAME", "DeepLabV2Head", "SOLVER.OPTIMIZER", "sgd", *VIT, *ADAPTERS]
    settings += ["SOLVER.WARMUP_ITERS", "0", "SOLVER.BASE_LR", "1e-2"]
    states: list[dict[str, Tensor]] = []
    before: dict[str, Tensor] = {}
    for steps in (1, 2):
        cfg = load_config(None, [*settings, "SOLVER.ACCUMULATION", str(steps)])
        trainer, batch = trainer_of(cfg), noise_batch(2)
        trainer.meta_arch.double()  # so that sums in another order do not matter
        before = {name: tensor.clone() for name, tensor in trainer.meta_arch.state_dict().items()}
        trainer.run_step(0, iter([batch] if steps == 1 else halves(batch)))
        states.append(trainer.meta_arch.state_dict())
    for name, expected in states[0].items():
        torch.testing.assert_close(states[1][name], expected, rtol=0, atol=1e-8)
    learnt = [name for name in before if name.endswith("adapter_up")]
    steps_taken = [float((states[0][name] - before[name]).abs().max()) for name in learnt]
    assert max(steps_taken) > 1e-6


METHODS: dict[str, Sequence[str]] = {
    "SourceOnly": ["META_ARCH.NAME", "SourceOnly", "DATASETS.TARGET", "", "HOOKS.NAMES", "[]"],
    "SelfTraining": ["META_ARCH.NAME", "SelfTraining"],
    "masked": [
        *("META_ARCH.PASSES", "[source, mixed, pull, masked]", "MASKED.BLOCK_SIZE", "16"),
        *("TRANSLATION.NAME", "FDA"),
    ],
    "HRDA": [
        *("TRANSLATION.NAME", "FDA", "MODEL.NAME", "HRDA", "MODEL.HRDA.DETAIL_SIZE", "[32, 64]"),
        *("MODEL.HRDA.ATTENTION", "LightHead"),
    ],
    "look-ahead": ["TRANSLATION.NAME", "FDA", "HOOKS.NAMES", "[FutureTeacher]"],
}


@pytest.mark.parametrize(
    "train", [ADAPTERS, ("MODEL.BACKBONE.TRAIN", "none")], ids=["adapters", "none"]
)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_the_frozen_part_alone(method: str, train: Sequence[str]) -> None:
    settings = ["META_ARCH.NAME", "T2SDA", "DATASETS.TARGET", "streets_hazy_train"]
    settings += ["HOOKS.NAMES", "[EmaTeacher]", *METHODS[method]]
    settings += ["MODEL.HEAD.CHANNELS", "16", "SOLVER.WARMUP_ITERS", "0", *VIT, *train]
    trainer = trainer_of(load_config(None, settings))
    student = trainer.meta_arch.student
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    trainer.run_step(0, iter([noise_batch(2)]))
    changed = {n for n, p in student.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert changed <= {name for name, p in student.named_parameters() if p.requires_grad}
    assert any("adapter_up" in name for name in changed) is (train is ADAPTERS)


def test_feature_distance_is_to_the_published_encoder(weights: Path) -> None:
    settings = (
        *("FEATURE_DISTANCE.WEIGHT", "0.005", "MODEL.BACKBONE.WEIGHTS", str(weights)),
        *("MODEL.BACKBONE.PYRAMID_CHANNELS", "0"),
    )
    cfg = config_of("SourceOnly", *VIT, *ADAPTERS, *settings)
    meta_arch: Any = trainer_of(cfg).meta_arch
    encoder = meta_arch.passes["source"].feature_distance.encoder
    model, image = meta_arch.student.model.eval(), noise_batch(2).source_image
    with torch.no_grad():
        own, reference = model.features(image).deepest, model.deepest_features(image, encoder)
    assert own.std() > 0.1
    torch.testing.assert_close(own, reference, atol=1e-4, rtol=0)  # nothing was learnt yet
    assert not any(isinstance(module, AdaptedLinear) for module in encoder.modules())
    published = torch.load(weights)["blocks.5.mlp.fc1.weight"]
    assert torch.equal(encoder.net.blocks[5].mlp.fc1.weight, published)
    with pytest.raises(ConfigError, match="FEATURE_DISTANCE.WEIGHT: has no effect on a frozen"):
        config_of("SourceOnly", *VIT, "MODEL.BACKBONE.TRAIN", "none", *settings)


def logits(model: nn.Module) -> Tensor:
    image = torch.from_numpy(street((64, 96))).permute(2, 0, 1)[None]
    with torch.no_grad():
        return model.eval()(image)


@pytest.mark.parametrize("train", ["all", "none", "adapters"])
def test_a_run_starts_from_one_with_adapters(run_dir: Path, train: str) -> None:
    expected = logits(model_of_checkpoint(open_checkpoint(run_dir)))
    cfg = load_config(None, [*VIT, "MODEL.HEAD.CHANNELS", "16", "MODEL.HEAD.DROPOUT", "0.0"])
    cfg.defrost()
    cfg.MODEL.BACKBONE.TRAIN = train
    cfg.MODEL.BACKBONE.ADAPTER.INIT = "smallest"
    model = build_segmentation_model(cfg, CITYSCAPES_19.num_classes)
    start_from_(model, str(run_dir), CITYSCAPES_19, cfg)  # of another rank, from another block
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    again = run_dir / "checkpoint_0000004.pth"
    cfg.MODEL.BACKBONE.WEIGHTS = str(again)
    backbone = BACKBONES.get("TimmViT").from_config(cfg)
    folded = model_of_checkpoint(open_checkpoint(run_dir)).backbone.state_dict()
    assert all(torch.equal(tensor, folded[name]) for name, tensor in backbone.state_dict().items())


def test_a_run_with_adapters_starts_from_one_without(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, *VIT)
    cfg = config_of("SourceOnly", *VIT, *ADAPTERS)
    model = build_segmentation_model(cfg, CITYSCAPES_19.num_classes)
    start_from_(model, str(path), CITYSCAPES_19, cfg)
    expected = logits(model_of_checkpoint(open_checkpoint(path)))
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-5)  # logits of 100
    assert all(m.adapter_up.any() for m in model.modules() if isinstance(m, AdaptedLinear))


def test_frozen_random_weights_are_refused_unless_others_come(
    run_dir: Path, tmp_path: Path
) -> None:
    cfg = config_of("T2SDA", *VIT, *RUN, *ADAPTERS, "OUTPUT_DIR", str(tmp_path))
    with pytest.raises(UserError, match="'adapters' freezes the backbone, and its weights are"):
        TrainingRun(cfg)
    run = TrainingRun(cfg, weights=str(run_dir))
    expected = logits(model_of_checkpoint(open_checkpoint(run_dir)))
    torch.testing.assert_close(logits(run.meta_arch.student.model), expected, atol=1e-5, rtol=1e-5)


def test_a_resume_with_other_parts_trained_is_refused(
    run_dir: Path, weights: Path, tmp_path: Path
) -> None:
    for name in ("checkpoint_0000002.pth", "config.yaml"):
        (tmp_path / name).write_bytes((run_dir / name).read_bytes())
    for change in (("MODEL.BACKBONE.ADAPTER.RANK", "5"), ("MODEL.BACKBONE.TRAIN", "none")):
        settings = list(ADAPTERS) if change[1] == "5" else []
        cfg = config_of(
            *("T2SDA", *VIT, *RUN, *settings, "OUTPUT_DIR", str(tmp_path)),
            *("MODEL.BACKBONE.WEIGHTS", str(weights), *change),
        )
        with pytest.raises(UserError, match="a checkpoint of another architecture"):
            TrainingRun(cfg, resume=True)


def test_the_plan_says_what_learns(weights: Path) -> None:
    found = plan_text(run_config(Path("out"), weights), 1)
    assert "frozen but for adapters of rank 4 from block 2 on) and LightHead" in found
    assert "adamw, adapters 0.001, rest 0.01" in found
    none = config_of("SourceOnly", *VIT, "MODEL.BACKBONE.TRAIN", "none")
    assert "(random weights, frozen) and LightHead" in plan_text(none, 1)
    assert "adamw, backbone frozen, rest" in plan_text(none, 1)
