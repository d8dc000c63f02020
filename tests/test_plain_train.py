"""`tools/plain_train.py` shows the pieces without the framework's loop, and computes the same."""

from __future__ import annotations

import runpy
from pathlib import Path

import t2sda
from t2sda.engine.hooks import Hook
from t2sda.structures import Step

SCRIPT = Path(__file__).parents[1] / "tools/plain_train.py"
SETTINGS = {
    **{"MODEL.BACKBONE.TIMM_NAME": "test_resnet", "MODEL.BACKBONE.WEIGHTS": ""},
    **{"DATA.CROP_SIZE": [64, 64], "DATA.NUM_WORKERS": 0, "MODEL.HEAD.CHANNELS": 16},
    **{"SOLVER.MAX_ITER": 4, "SOLVER.BATCH_SIZE": 2, "SOLVER.WARMUP_ITERS": 1},
    **{"SOLVER.BASE_LR": 1e-3, "EMA.MOMENTUM": 0.6, "LOGGING.TENSORBOARD": False},
    **{"EVALUATION.PERIOD": 0, "DEVICE": "cpu"},
}


class Recorder(Hook):
    """Keeps the losses of every step."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def after_step(self, step: Step) -> None:
        self.losses.append({name: loss.item() for name, loss in step.losses.items()})


def test_it_computes_the_losses_of_the_trainer(tmp_path: Path) -> None:
    recorder = Recorder()
    t2sda.train("quickstart.yaml", overrides=SETTINGS, output_dir=tmp_path, hooks=[recorder])
    plain = runpy.run_path(str(SCRIPT))["losses_of_steps"]
    found = list(plain(t2sda.load_config("quickstart.yaml", SETTINGS)))
    assert len(found) == 4
    assert found[0].keys() == {"loss_source", "loss_mixed", "loss_pull"}
    assert found == recorder.losses, "bit-identical on a CPU"
    assert len({losses["loss_source"] for losses in found}) == 4


def test_it_is_short() -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 60
