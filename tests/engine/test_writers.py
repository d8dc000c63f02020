"""Weights & Biases and MLflow as writers, in their offline modes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from t2sda.config import ConfigError, load_config
from t2sda.engine.metrics import MetricsHook, MetricWriter
from t2sda.engine.mlflow_writer import MlflowWriter
from t2sda.engine.wandb_writer import WandbWriter
from t2sda.engine.writers import SERVICES, WRITERS, build_writers, check_writers, image_writers
from t2sda.errors import UserError

IMAGE = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run whose services write to files beside it."""
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "MLFLOW_TRACKING_URI": f"file:{tmp_path / 'mlruns'}",
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "my run"
    folder.mkdir()
    return folder


def logged(writer: MetricWriter, first_iteration: int, *iterations: int) -> None:
    writer.start(first_iteration)
    for iteration in iterations:
        writer.write(iteration, {"loss": iteration / 10, "IoU/traffic light (red)": float("nan")})
    writer.write_images(iterations[-1], {"images/source": IMAGE})
    writer.close()


def test_wandb_gets_numbers_and_images_offline(offline: Path) -> None:
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    logged(WandbWriter(offline, {"SOLVER.MAX_ITER": 10}), 0, 3, 6)
    (folder,) = (offline / "wandb").glob("offline-run-*")
    content = next(folder.glob("run-*.wandb")).read_bytes()
    for expected in (b"loss", b"iteration", b"SOLVER.MAX_ITER", b"my run", b"IoU/traffic light"):
        assert expected in content
    (image,) = folder.rglob("*.png")
    assert image.parent.name == "images"
    known = (offline / "wandb_run_id.txt").read_text().strip()
    logged(WandbWriter(offline, {}), 6, 9)
    assert len(list((offline / "wandb").glob(f"offline-run-*-{known}"))) == 2, "the same run"


def test_mlflow_gets_numbers_and_images_in_files(offline: Path) -> None:
    pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    from mlflow import MlflowClient

    logged(MlflowWriter(offline, {f"KEY.{number}": number for number in range(150)}), 0, 3, 6)
    logged(MlflowWriter(offline, {}), 6, 9)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("t2sda")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "my run"
    assert run.info.status == "FINISHED"
    assert run.data.params["KEY.149"] == "149"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(item.step, item.value) for item in history] == [(3, 0.3), (6, 0.6), (9, 0.9)]
    assert np.isnan(run.data.metrics["IoU/traffic light _red_"])
    images = [item.path for item in client.list_artifacts(run.info.run_id, "images")]
    assert sum(path.endswith(".png") for path in images) == 2


def test_who_is_not_logged_in_is_told_before_the_training(
    offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="the extra `wandb` is not installed")

    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(UserError, match=r"No API key configured; run `wandb login`, or set WANDB"):
        WandbWriter(offline, {}).start(0)


def test_a_store_that_mlflow_refuses_is_said_before_the_training(
    offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    with pytest.raises(UserError, match=r"LOGGING.WRITERS: mlflow: .*set MLFLOW_TRACKING_URI"):
        MlflowWriter(offline, {}).start(0)


def test_a_server_that_is_gone_is_no_reason_to_stop(
    offline: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    writer = MlflowWriter(offline, {})
    writer.start(0)

    def refuse(*_: object, **__: object) -> None:
        raise mlflow.MlflowException("the server is gone")

    for name in ("log_batch", "log_image", "set_terminated"):
        monkeypatch.setattr(writer._client, name, refuse)
    hook = MetricsHook([writer], period=1, max_iter=9)
    hook.write(1, {"loss": 1.0})
    hook.write_images(1, {"images/source": IMAGE})
    hook.after_train(1)
    assert caplog.text.count("metrics cannot be written (the server is gone)") == 1


def test_writers_are_a_setting() -> None:
    cfg = load_config(None, ["LOGGING.WRITERS", "[mlflow, wandb]"])
    assert image_writers(cfg) == ["tensorboard", "mlflow", "wandb"]
    found = build_writers(cfg, Path("run"))
    assert [type(writer).__name__ for writer in found] == [
        *("TensorBoardWriter", "MlflowWriter", "WandbWriter"),
    ]
    assert set(WRITERS) == {"tensorboard", *SERVICES}
    with pytest.raises(ConfigError, match="LOGGING.WRITERS"):
        load_config(None, ["LOGGING.WRITERS", "[wandbee]"])


def test_a_package_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    cfg = load_config(None, ["LOGGING.WRITERS", "[wandb]", "LOGGING.TENSORBOARD", "false"])
    with pytest.raises(
        UserError, match=r"wandb is not installed here; `pip install 't2sda\[wandb\]'"
    ):
        check_writers(cfg)
