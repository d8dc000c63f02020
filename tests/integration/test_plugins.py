"""Methods beyond passes, each in a file of `plugins/` that --plugin loads; nothing is private."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from t2sda.cli.common import load_components
from t2sda.config import ConfigError, load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.engine.hooks import Hook
from t2sda.engine.trainer import Trainer
from t2sda.modeling.backbones.timm_cnn import TimmCNN
from t2sda.registry import HOOKS, PASSES
from t2sda.runtime.checkpoints import TorchPredictor
from t2sda.structures import DomainBatch, Step
from tests.components import components_restored
from tests.distributed import on_two_ranks
from tests.integration.conftest import TINY_CONFIG, Run, checkpoint_differences, differences
from tests.integration.test_two_ranks import mini_batch, own_part
from tests.meta_arch.conftest import METHODS, TINY, step_of
from tests.training import CPU, noise_batch, trainer_of

PLUGINS = Path(__file__).with_name("plugins")
WITH_TARGET = TINY_CONFIG.replace(
    "{SOURCE: streets_clear_train}", "{SOURCE: streets_clear_train, TARGET: streets_hazy_train}"
).replace("MAX_ITER: 12", "MAX_ITER: 4")
WITHOUT_DROPOUT = WITH_TARGET.replace("CHANNELS: 16", "CHANNELS: 16, DROPOUT: 0.0")
ADVERSARIAL = """
META_ARCH: {PASSES: [sharing_source, adversarial, memory_bank]}
HOOKS: {NAMES: [SmoothLoss]}
ADVERSARIAL: {WEIGHT: 0.1}
"""
T2SDA_RUN = """
META_ARCH: {NAME: T2SDA}
TRANSLATION: {NAME: FDA, FDA_WINDOW: 0.05}
HOOKS: {NAMES: [EmaTeacher, DynamicReweighting]}
EMA: {MOMENTUM: 0.9}
REWEIGHTING: {EXPONENT: 0.7}
T2SDA: {NUM_NEGATIVES: 64, QUERIES_PER_CLASS: 16}
SELF_TRAINING: {PSEUDO_LABEL_THRESHOLD: 0.06, CLASS_POOL: image}
STRONG_AUGMENTATION: {JITTER_STRENGTH: 0.1}
"""


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    with components_restored():
        yield


def given(*plugins: str) -> list[str]:
    """The options that load plugins."""
    return [word for name in plugins for word in ("--plugin", str(PLUGINS / f"{name}.py"))]


def arguments(folder: Path, text: str, run: str, *plugins: str) -> list[Any]:
    """Those of a training of `text` in `folder / run`."""
    config = folder / f"{run}.yaml"
    config.write_text(text)
    return ["train", "--config-file", config, *given(*plugins), "--output-dir", folder / run]


def trained(t2sda: Run, folder: Path, text: str, run: str, *plugins: str) -> list[dict[str, Any]]:
    """Train in this process; the metrics of every step."""
    with components_restored():
        result = t2sda(*arguments(folder, text, run, *plugins))
    assert result.returncode == 0, result.stderr
    lines = (folder / run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def on_two_scales(text: str) -> str:
    """The same run with the model of `two_scales.py`."""
    assert "MODEL: {" in text
    return text.replace("MODEL: {", "MODEL: {NAME: TwoScales, ")


def without_times(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name != "seconds_per_iteration"}


def loaded(name: str, *overrides: str, method: str = "SelfTraining") -> Trainer:
    """A trainer with a plugin, for batches made by hand."""
    load_components(given(name)[1:])
    keys = ["META_ARCH.NAME", method, *TINY, *METHODS[method], *overrides]
    return trainer_of(load_config(None, keys))


class Listener(Hook):
    """Keeps the metrics of every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def after_step(self, step: Step) -> None:
        self.steps.append(dict(step.metrics))


def step_taken(trainer: Trainer, batch: DomainBatch) -> Step:
    """The record of a step, after it."""
    seen: list[Step] = []
    after_step = trainer.hooks[0].after_step
    trainer.hooks[0].after_step = lambda step: (seen.append(step), after_step(step))  # type: ignore[assignment, func-returns-value, method-assign]
    trainer.run_step(0, iter([batch]))
    return seen[0]


@pytest.mark.parametrize("path", sorted(PLUGINS.glob("*.py")), ids=lambda path: path.stem)
def test_no_plugin_uses_a_private_name(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names |= {alias.name for node in imports for alias in node.names}
    assert [name for name in names if re.match(r"_(?!_)", name)] == []


def test_a_discriminator_learns_with_an_optimizer_of_its_own(
    t2sda_inline: Run, tmp_path: Path
) -> None:
    steps = trained(
        t2sda_inline, tmp_path, WITH_TARGET + ADVERSARIAL, "run", "adversarial", "memory_bank"
    )
    states = [
        torch.load(tmp_path / f"run/checkpoint_000000{done}.pth", weights_only=True)
        for done in (3, 4)
    ]
    own = [name for name in states[0]["meta_arch"] if "discriminator" in name]
    assert len(own) == 4
    for name in own:
        assert not torch.equal(*(state["meta_arch"][name] for state in states)), name
    assert list(states[1]["pass_optimizers"]) == ["adversarial"]
    group = states[1]["pass_optimizers"]["adversarial"]["param_groups"][0]
    assert (group["betas"], group["weight_decay"]) == ((0.9, 0.99), 0.0)
    assert steps[1]["lr/adversarial"] == pytest.approx(1e-4 * (3 / 4) ** 0.9)
    assert steps[1]["grad_norm/adversarial"] > 0
    assert {"loss_source", "loss_adversarial", "loss_discriminator"} <= steps[0].keys()


def test_the_students_term_leaves_the_discriminator_alone_and_the_other_way_round() -> None:
    """Gradients as with the discriminator frozen, then the student."""
    trainer = loaded(
        "adversarial",
        *("META_ARCH.PASSES", "[sharing_source, adversarial]", "HOOKS.NAMES", "[]"),
        *("DATASETS.TARGET", "streets_hazy_train"),
        method="SourceOnly",
    )
    meta_arch, batch = trainer.meta_arch.train(), noise_batch(2)
    for term, learns in (("loss_adversarial", "student"), ("loss_discriminator", "passes")):
        meta_arch.zero_grad(set_to_none=True)
        step = step_of(batch)
        meta_arch("sharing_source", step)
        meta_arch("adversarial", step)[term].backward()
        gradients = {name: p.grad for name, p in meta_arch.named_parameters()}
        touched = {name.split(".")[0] for name, g in gradients.items() if g is not None}
        assert touched == {learns}


def test_owners_and_state_resume_bit_for_bit(t2sda_inline: Run, tmp_path: Path) -> None:
    text = on_two_scales(WITH_TARGET + ADVERSARIAL)
    words = arguments(tmp_path, text, "run", "adversarial", "memory_bank", "two_scales")
    words += ["--resume", "SOLVER.ACCUMULATION", 2]
    final, kept = tmp_path / "run/checkpoint_0000004.pth", tmp_path / "undisturbed.pth"
    for _ in range(2):  # the second time from the checkpoint after three steps
        with components_restored():
            result = t2sda_inline(*words)
            assert result.returncode == 0, result.stderr
        if not kept.exists():
            final.rename(kept)
    assert checkpoint_differences(kept, final) == []
    kept_state = torch.load(kept, weights_only=True)
    assert kept_state["hooks"]["SmoothLoss"]["mean"] > 0
    assert kept_state["meta_arch"]["passes.memory_bank.bank.known"].any()


def stepped_on_own_part(_: int) -> dict[str, Any]:
    """Metrics and weights after two steps of two owners, a memory bank and two scales."""
    with components_restored():
        load_components(given("adversarial", "memory_bank", "two_scales")[1::2])
        keys = [
            *("META_ARCH.PASSES", "[sharing_source, adversarial, memory_bank]"),
            *("DATASETS.TARGET", "streets_hazy_train", "MODEL.NAME", "TwoScales"),
            *("SOLVER.OPTIMIZER", "sgd", "SOLVER.BASE_LR", "1e-3", "SOLVER.WARMUP_ITERS", "0"),
            *("HOOKS.NAMES", "[Listener]", "MODEL.NORM", "frozen"),
        ]
        HOOKS.add("Listener", Listener)
        trainer = trainer_of(load_config(None, [*TINY, *keys]))
        (listener,) = trainer.hooks
        for iteration in range(2):
            trainer.run_step(iteration, iter([own_part(mini_batch(iteration))]))
    return {"steps": listener.steps, "state": trainer.meta_arch.state_dict()}  # type: ignore[attr-defined]


def test_owners_and_state_on_two_ranks_are_those_of_one(tmp_path: Path) -> None:
    one = stepped_on_own_part(0)
    assert one["state"]["passes.memory_bank.bank.known"].sum() > 2
    ranks = on_two_ranks(stepped_on_own_part, tmp_path)
    assert differences(ranks[0]["state"], ranks[1]["state"]) == []
    for two in ranks:
        for found, expected in zip(two["steps"], one["steps"], strict=True):
            assert found == pytest.approx(expected, rel=1e-4)
        for name, expected in one["state"].items():
            found = two["state"][name]
            if "discriminator" in name:
                # Adam moves by 1e-4 a step; where a gradient is near 0, rounding decides its sign.
                assert (found - expected).abs().mean() < 1e-6, name
            else:
                torch.testing.assert_close(
                    found, expected, rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
                )


def test_a_subclass_under_another_name_works_wherever_its_parent_does(
    t2sda_inline: Run, tmp_path: Path
) -> None:
    parents = trained(t2sda_inline, tmp_path, WITHOUT_DROPOUT + T2SDA_RUN, "parents")
    renamed = {
        "NAME: T2SDA": "NAME: MyMethod",
        "NAME: FDA": "NAME: MyStyle",
        "EmaTeacher": "MyTeacher",
        "DynamicReweighting": "MyWeights",
        "BACKBONE: {": "BACKBONE: {NAME: MyNetwork, ",
        "HEAD: {": "HEAD: {NAME: MyHead, ",
    }
    text = WITHOUT_DROPOUT + T2SDA_RUN
    for parent, child in renamed.items():
        assert parent in text
        text = text.replace(parent, child)
    children = trained(t2sda_inline, tmp_path, text, "children", "derived")
    assert len(parents) == 4
    for parent, child in zip(parents, children, strict=True):
        assert without_times(parent) == without_times(child)


def test_a_subclass_under_another_name_shows_in_the_plan_as_its_parent(
    t2sda_inline: Run, tmp_path: Path
) -> None:
    plans = []
    (tmp_path / "plan.yaml").write_text(WITHOUT_DROPOUT + T2SDA_RUN)
    for name, options in (("T2SDA", []), ("MyMethod", given("derived"))):
        words = ["show-config", "--config-file", tmp_path / "plan.yaml", *options, "--plan"]
        result = t2sda_inline(*words, "META_ARCH.NAME", name)
        assert result.returncode == 0, result.stderr
        plans.append(result.stdout.replace("MyMethod", "T2SDA").replace("my_", ""))
    assert plans[0].split() == plans[1].split()


def test_the_teacher_gives_the_views_that_a_pass_asks_for_on_one_forward_an_image() -> None:
    passes = ("META_ARCH.PASSES", "[source, mixed, consistency]")
    trainer = loaded("other_views", *passes, "MODEL.HEAD.DROPOUT", "0.0")
    seen: list[torch.Tensor] = []
    teacher = trainer.meta_arch.teacher
    teacher.model.backbone.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    batch = noise_batch(2)
    step = step_taken(trainer, batch)
    assert step.teacher is not None
    assert sorted(map(str, step.teacher.views)) == [
        "probs of the mirrored_target image",
        "probs of the source image",
        "probs of the target image",
    ]
    assert len(seen) == 3
    model = teacher.model
    shown = {"mirrored_target": batch.target_image.flip(-1), "source": batch.source_image}  # type: ignore[union-attr]
    for image, expected in zip(seen, sorted(shown), strict=False):
        normalised = (shown[expected].float() - model.pixel_mean) / model.pixel_std
        torch.testing.assert_close(image, normalised)
    assert step.losses["loss_consistency_target"] > 0


def test_a_view_of_the_source_needs_no_target_but_a_teacher() -> None:
    load_components(given("other_views")[1:])
    keys = ["META_ARCH.PASSES", "[source, consistency]", "DATASETS.TARGET", "streets_hazy_train"]
    with pytest.raises(ConfigError, match="SourceOnly lacks a teacher, which consistency learn"):
        load_config(None, keys)


def test_a_pass_trains_on_the_labels_of_the_target() -> None:
    trainer = loaded("offline_labels", "META_ARCH.PASSES", "[source, mixed, target_labelled]")
    batch = noise_batch(2)
    labels = torch.randint(0, 19, (2, 64, 96), generator=torch.Generator().manual_seed(3))
    labels[:, :10] = 255
    batch = dataclasses.replace(batch, target_label=labels)
    with torch.no_grad():
        torch.manual_seed(0)
        model = trainer.meta_arch.train().student.model
        logits = F.cross_entropy(
            model(batch.target_image), labels, ignore_index=255, reduction="sum"
        )
    found = step_taken(trainer, batch).losses["loss_target_labelled"]
    torch.testing.assert_close(found, logits / labels.numel())


def test_a_run_loads_the_labels_of_the_target_for_the_pass_that_reads_them(
    t2sda: Run, tmp_path: Path
) -> None:
    text = WITH_TARGET.replace("MAX_ITER: 4", "MAX_ITER: 2")
    text += "META_ARCH: {PASSES: [source, target_labelled]}\n"
    rows = trained(t2sda, tmp_path, text, "oracle", "offline_labels")
    assert len(rows) == 2
    assert all(row["loss_target_labelled"] > 0 for row in rows)


def test_labels_of_the_target_need_a_target() -> None:
    load_components(given("offline_labels")[1:])
    with pytest.raises(ConfigError, match=r"DATASETS\.TARGET: empty, but read by target_labelled"):
        load_config(None, ["META_ARCH.PASSES", "[source, target_labelled]"])


@pytest.mark.parametrize("passes", ["[adversarial, sharing_source]", "[source, adversarial]"])
def test_a_reader_behind_no_provider_is_refused(passes: str) -> None:
    load_components(given("adversarial")[1:])
    keys = ["META_ARCH.PASSES", passes, "DATASETS.TARGET", "streets_hazy_train"]
    with pytest.raises(ConfigError, match="reads 'source_logits', which no pass before it"):
        load_config(None, keys)


def test_two_providers_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    load_components(given("adversarial")[1:])
    monkeypatch.setattr(PASSES.get("source"), "provides", frozenset({"source_logits"}))
    keys = ["META_ARCH.PASSES", "[sharing_source, source]"]
    with pytest.raises(ConfigError, match="source provides 'source_logits', as a pass before it"):
        load_config(None, keys)


def test_a_model_of_two_scales_trains_with_every_pass(t2sda_inline: Run, tmp_path: Path) -> None:
    torch.manual_seed(1)
    torch.save(TimmCNN("test_resnet").net.state_dict(), tmp_path / "weights.pth")
    text = on_two_scales(WITH_TARGET + T2SDA_RUN)
    text = text.replace(
        "NAME: T2SDA}", "NAME: T2SDA, PASSES: [source, mixed, pull, masked, entropy]}"
    )
    text = text.replace("BACKBONE: {", f"BACKBONE: {{WEIGHTS: {tmp_path / 'weights.pth'}, ")
    text += "MASKED: {BLOCK_SIZE: 16}\n"
    text += "FEATURE_DISTANCE: {WEIGHT: 0.1, CLASSES: [road, building]}\n"
    (first, *_) = trained(t2sda_inline, tmp_path, text, "run", "two_scales")
    assert {name for name in first if name.startswith("loss_")} == {
        *("loss_source", "loss_mixed", "loss_pull", "loss_masked", "loss_entropy"),
        "loss_feature_distance",
    }


def test_a_model_of_two_scales_crops_with_a_generator_and_slides_without() -> None:
    trainer = loaded("two_scales", "MODEL.NAME", "TwoScales", "MODEL.HEAD.DROPOUT", "0.0")
    model = trainer.meta_arch.student.model.eval()
    image = noise_batch(1).source_image
    drawn = [model.features(image, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert [len(features.boxes) for features in drawn] == [1, 1, 1]
    assert drawn[0].boxes == drawn[1].boxes != drawn[2].boxes
    whole = model.features(image)
    assert len(whole.boxes) == 4
    assert torch.equal(model.logits(whole), model(image))
    predicted = TorchPredictor(model, CITYSCAPES_19, None, CPU).predict(
        image[0].permute(1, 2, 0).numpy()
    )
    assert torch.equal(torch.from_numpy(predicted), model(image)[0].argmax(dim=0).byte())
    # A box leaves the rest to the context.
    context = F.interpolate(
        type(model).__base__.logits(model, whole.context), (64, 96), mode="bilinear"
    )
    rows, columns = drawn[0].boxes[0]
    outside = torch.ones(64, 96, dtype=torch.bool)
    outside[rows, columns] = False
    found = model.logits(drawn[0])
    torch.testing.assert_close(found[..., outside], context[..., outside])
    assert not torch.allclose(found[..., rows, columns], context[..., rows, columns])


def test_passes_draw_boxes_of_their_own_and_the_teacher_none() -> None:
    trainer = loaded("two_scales", "MODEL.NAME", "TwoScales")
    boxes: dict[str, list[Any]] = {"student": [], "teacher": []}
    for branch, seen in boxes.items():
        model = getattr(trainer.meta_arch, branch).model

        def record(*arguments: Any, features: Any = model.features, seen: Any = seen) -> Any:
            seen.append(features(*arguments))
            return seen[-1]

        model.features = record
    step_taken(trainer, noise_batch(2))
    assert [len(features.boxes) for features in boxes["teacher"]] == [4]
    source, mixed = (features.boxes for features in boxes["student"])
    assert len(source) == len(mixed) == 1
    assert source != mixed
