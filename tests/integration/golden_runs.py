"""Five steps of every shipped method in float64 on drawn streets: the losses that are kept.

`python -m tests.integration.golden_runs` records them anew in golden_losses.json. A change of these
numbers is a change of a method: CHANGELOG.md says why.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from fvcore.common.config import CfgNode

import t2sda.builtin  # noqa: F401  (fills the registries)
from t2sda.config import load_config
from t2sda.data.domains import DomainPairs
from t2sda.data.loader import DomainLoader
from t2sda.data.samplers import MicroBatchPositions
from t2sda.engine.hooks import Hook, RunObjects, build_hooks
from t2sda.engine.optim import build_owners
from t2sda.engine.precision import Precision
from t2sda.engine.trainer import Trainer, TrainerSettings
from t2sda.meta_arch.base import build_meta_arch, reads_target_labels
from t2sda.modeling.backbones.timm_cnn import TimmCNN
from t2sda.modeling.backbones.timm_vit import TimmViT
from t2sda.structures import Step

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
RECORD = Path(__file__).with_name("golden_losses.json")
METHODS = {
    **{
        name: f"gta5_to_cityscapes/{name}_deeplabv2_r101.yaml"
        for name in (
            *("source_only", "fda", "minent", "dacs", "daformer", "t2sda", "mic", "t2sda_mic"),
            *("adaptsegnet_multi", "advent", "advent_minent", "cbst"),
        )
    },
    "fst": "gta5_to_cityscapes/fst_daformer_mit_b5.yaml",
    "sepico": "gta5_to_cityscapes/sepico_deeplabv2_r101.yaml",
    **{
        f"{name}_vit": f"gta5_to_cityscapes/{name}_dinov2_vitb.yaml"
        for name in ("vfm_uda", "t2sda_mic", "source_only_linear")
    },
    "t2sda_running": "ablations/prototypes/running.yaml",
    "t2sda_dg": "dg/gta5_t2sda_daformer_mit_b5.yaml",
    **{
        f"{name}_hrda": f"gta5_to_cityscapes/{name}_hrda_mit_b5.yaml"
        for name in ("t2sda", "t2sda_mic")
    },
}
"""Shipped configurations; network, data and schedule are replaced by SMALL."""
STEPS = 5
SMALL = {
    "MODEL.BACKBONE.NAME": "TimmCNN",
    "MODEL.BACKBONE.TIMM_NAME": "test_resnet",
    "MODEL.BACKBONE.DROP_PATH": "0.0",
    "MODEL.HEAD.NAME": "LightHead",
    "MODEL.HEAD.CHANNELS": "16",
    "MODEL.HEAD.DROPOUT": "0.0",
    "DATASETS.SOURCE": "streets_clear_train",
    "DATA.SOURCE_SIZE": "[96, 192]",
    "DATA.SOURCE_WINDOW": "[]",
    "DATA.CROP_SIZE": "[64, 96]",
    "RARE_CLASSES.ENABLED": "false",  # counts classes in 2000 images; it has tests of its own
    "SOLVER.MAX_ITER": str(STEPS),
    "SOLVER.WARMUP_ITERS": "2",
    "SOLVER.BASE_LR": "1e-3",
}
SMALL_TARGET = {
    "DATASETS.TARGET": "streets_hazy_train",
    "DATA.TARGET_SIZE": "[96, 192]",
    "DATA.TARGET_MARGINS": "[3, 12, 0, 0]",
}
SMALL_THINGS = {"FEATURE_DISTANCE.CLASSES": "[road, building, vegetation, sky]"}
"""In images this small no thing fills a cell of 32 pixels."""
SMALL_CONFIDENCE = {"SELF_TRAINING.PSEUDO_LABEL_THRESHOLD": "0.06"}
"""Five steps make no teacher sure; at 0.968 all pseudo-labels would weigh 0."""
SMALL_HRDA = {
    "MODEL.HRDA.DETAIL_SIZE": "[64, 96]",
    "MODEL.HRDA.WINDOW_SIZE": "[128, 192]",
    "DATA.SOURCE_SIZE": "[192, 384]",
    "DATA.SOURCE_WINDOW": "[160, 320]",
    "DATA.TARGET_SIZE": "[192, 384]",
    "DATA.CROP_SIZE": "[128, 192]",
    "RARE_CLASSES.CROP_FACTOR": "0.5",
    "SELF_TRAINING.PSEUDO_LABEL_THRESHOLD": "0.055",
}
"""Twice the size of the others, as its context is half of it."""
OF_A_CNN = ("MODEL.BACKBONE.NAME", "MODEL.HEAD")
SMALL_VIT = {
    "MODEL.BACKBONE.TIMM_NAME": "test_vit",
    "DATA.SOURCE_SIZE": "[128, 256]",
    "DATA.SOURCE_WINDOW": "[96, 192]",
    "SOLVER.BATCH_SIZE": "2",
    "SOLVER.PRECISION": "fp32",
    "RARE_CLASSES.TEMPERATURE": "0.01",
    "RARE_CLASSES.CROP_FACTOR": "0.5",
}
"""In place of the settings of a CNN; the head and the tokens' stride stay."""


class Recorder(Hook):
    """Keeps the losses of every step in full precision."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def after_step(self, step: Step) -> None:
        """Append this step's."""
        self.losses.append({name: value.item() for name, value in step.losses.items()})


def small_config(name: str, weights: Path) -> CfgNode:
    """A shipped method on a small network and small images."""
    shipped = load_config(ROOT / "configs" / METHODS[name])
    settings = {**SMALL, "MODEL.BACKBONE.WEIGHTS": str(weights)}
    if shipped.MODEL.BACKBONE.NAME == "TimmViT":
        settings = {key: value for key, value in settings.items() if not key.startswith(OF_A_CNN)}
        settings |= SMALL_VIT
    if shipped.DATASETS.TARGET:
        settings |= SMALL_TARGET
    if shipped.META_ARCH.NAME != "SourceOnly" and shipped.DATASETS.TARGET:
        settings |= SMALL_CONFIDENCE
    if shipped.FEATURE_DISTANCE.WEIGHT > 0:
        settings |= SMALL_THINGS
    if shipped.META_ARCH.NAME == "SePiCo":
        settings |= {"SEPICO.START": "0", "SEPICO.TEMPERATURE": "1.0", "EMA.MOMENTUM": "0.0"}
        # Crops and a seed with which pseudo-labels are of classes that the source has shown.
        settings |= {"DATA.CROP_SIZE": "[96, 192]", "SEED": "1"}
    if shipped.MODEL.NAME == "HRDA":
        settings |= SMALL_HRDA
    overrides = [word for pair in settings.items() for word in pair]
    return load_config(ROOT / "configs" / METHODS[name], overrides)


def losses_of(name: str) -> list[dict[str, float]]:
    """The losses of every step, by name."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pth"
        torch.manual_seed(1)
        cfg = small_config(name, weights)
        small = TimmViT if cfg.MODEL.BACKBONE.NAME == "TimmViT" else TimmCNN
        torch.save(small(cfg.MODEL.BACKBONE.TIMM_NAME).net.state_dict(), weights)
        pairs = DomainPairs.from_config(cfg, target_labels=reads_target_labels(cfg))
        torch.manual_seed(cfg.SEED)
        meta_arch = build_meta_arch(cfg, pairs.source.taxonomy).double()
    recorder = Recorder()
    trainer = Trainer(
        meta_arch,
        build_owners(cfg, meta_arch),
        Precision(cfg.SOLVER.PRECISION, CPU),
        [*build_hooks(cfg, RunObjects(meta_arch, Path())).values(), recorder],
        TrainerSettings.from_config(cfg),
        CPU,
    )
    positions = MicroBatchPositions(
        batch_size=cfg.SOLVER.BATCH_SIZE,
        accumulation=1,
        world_size=1,
        rank=0,
        first_iteration=0,
        max_iter=STEPS,
    )
    trainer.run(DomainLoader(pairs, positions, 0, False))
    return recorder.losses


def main() -> None:
    """Record all methods, or those named on the command line."""
    kept = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    torch.set_num_threads(1)
    for name in sys.argv[1:] or METHODS:
        kept[name] = losses_of(name)
    ordered = {name: kept[name] for name in METHODS}
    RECORD.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()
