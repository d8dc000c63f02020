"""The wheel, used without the source tree beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, environment

SOURCES = ("t2sda", "export", "configs", "docs")
SOURCES += ("setup.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, so that no old build is mixed in."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tree.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name)
        else:
            shutil.copy(ROOT / name, tree / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(tree)], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_code_and_configs_but_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "t2sda/export/__init__.py" in names
    assert "t2sda/configs/quickstart.yaml" in names
    assert "t2sda/configs/models/light.yaml" in names
    assert "t2sda/py.typed" in names
    assert {"t2sda/docs/deployment.md", "t2sda/docs/demo/NOTICE.md"} <= set(names)
    assert sum(name.startswith("t2sda/docs/demo/") and name.endswith(".jpg") for name in names) == 2
    assert {f"t2sda/report/{name}" for name in ("template.html", "style.css", "script.js")} <= set(
        names
    )
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"t2sda"}


def test_the_installed_wheel_trains(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    subprocess.run([*pip, str(wheel)], check=True)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(target / "bin" / "t2sda"), *arguments],
            cwd=tmp_path,
            env={**environment(), "PYTHONPATH": str(target)},
            capture_output=True,
            text=True,
        )

    where = subprocess.run(
        [sys.executable, "-c", "import t2sda, t2sda.export; print(t2sda.export.__file__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(target))
    photographs = subprocess.run(
        [sys.executable, "-c", "from t2sda.cli.quickstart import DEMO_IMAGES as d; print(d)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(photographs.stdout.strip()).is_relative_to(target)
    assert len(list(Path(photographs.stdout.strip()).glob("*.jpg"))) == 2
    shown = run("show-config", "--config-file", "quickstart.yaml")
    assert "NAME: T2SDA" in shown.stdout, shown.stderr
    trained = run(
        *("train", "--config-file", "configs/quickstart_source_only.yaml", "--output-dir", "run"),
        *("MODEL.BACKBONE.TIMM_NAME", "test_resnet", "MODEL.BACKBONE.WEIGHTS", ""),
        *("SOLVER.MAX_ITER", "1", "SOLVER.BATCH_SIZE", "1", "DATA.CROP_SIZE", "[64, 64]"),
        *("EVALUATION.PERIOD", "0"),
    )
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "run/checkpoint_0000001.pth").is_file()
