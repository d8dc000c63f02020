"""timm imports with and without torchvision's compiled half."""

import subprocess
import sys

import pytest
import torch

from t2sda.modeling.backbones.timm_import import (
    declare_missing_torchvision_operators,
    import_timm,
)

EXTENSION_FAILS = """
import torch

def fails(path):
    raise OSError("built for another torch")

torch.ops.load_library = fails
from t2sda.modeling.backbones.timm_import import import_timm
timm = import_timm()
assert torch.ops.torchvision.nms and torch.ops.torchvision.qnms
print(timm.create_model("resnet18").num_classes)
"""


def test_timm_imports_where_the_extension_does_not_load() -> None:
    run = subprocess.run(
        [sys.executable, "-c", EXTENSION_FAILS], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "1000"


def test_nothing_is_declared_where_the_extension_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    assert declare_missing_torchvision_operators.__wrapped__() is None


def test_nothing_is_declared_where_torchvision_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: str) -> None:
        raise OSError(path)

    monkeypatch.setattr(torch.ops, "load_library", fails)
    import_timm()
    assert "torchvision" in sys.modules
    assert declare_missing_torchvision_operators.__wrapped__() is None


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_missing_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    import_timm()
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"need {package}.*pip install timm"):
        import_timm()
