"""Nobody imports from a layer above, and `losses` knows tensors only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = (
    {
        *("constants", "errors", "files", "registry", "structures", "config"),
        *("distributed", "logs", "resources", "signals"),
    },
    {"images"},
    {"losses", "data", "weights", "streets"},
    {"modeling"},
    {"meta_arch"},
    {"analysis", "engine", "evaluation", "inference", "runtime"},
    {"training"},
    {"report", "serving"},
    {"export"},
    {"cli", "builtin", "plugins", "api", "datasets"},
)
LAYER_OF = {package: height for height, packages in enumerate(LAYERS) for package in packages}


def imports(path: Path) -> Iterator[str]:
    """Packages of t2sda that a module imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        for name in names:
            parts = name.split(".")
            if parts[0] == "t2sda" and len(parts) > 1:
                yield parts[1]


def modules() -> Iterator[tuple[str, Path]]:
    """(package, file) of everything that is shipped."""
    for path in (ROOT / "t2sda").rglob("*.py"):
        yield path.relative_to(ROOT / "t2sda").parts[0].removesuffix(".py"), path
    for path in (ROOT / "export").rglob("*.py"):
        yield "export", path


def test_every_package_has_a_layer() -> None:
    packages = {package for package, _ in modules()} - {"__init__", "__main__"}
    assert packages == set(LAYER_OF)


def test_nobody_imports_from_a_layer_above() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} ({package}) imports t2sda.{imported}"
        for package, path in modules()
        if package in LAYER_OF
        for imported in imports(path)
        if imported in LAYER_OF and LAYER_OF[imported] > LAYER_OF[package]
    ]
    assert wrong == []


def test_losses_know_tensors_only() -> None:
    allowed = {"losses", "structures"}
    wrong = [
        f"{path.relative_to(ROOT)} imports t2sda.{imported}"
        for package, path in modules()
        if package == "losses"
        for imported in imports(path)
        if imported not in allowed
    ]
    assert wrong == []


def test_running_an_exported_file_imports_no_torch() -> None:
    """Followed from `load_model` and `t2sda infer` through what every module imports at once."""
    light = {"numpy", "cv2", "PIL"}
    seen: set[str] = set()
    waiting = ["t2sda.runtime.loading", "t2sda.cli.main", "t2sda.cli.infer"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for imported in imported_at_once(name):
            top = imported.partition(".")[0]
            if top == "t2sda":
                waiting.append(imported)
            else:
                assert top in light | sys.stdlib_module_names, f"{name} imports {imported}"
    assert "t2sda.runtime.openvino_file" in seen
    assert "t2sda.runtime.checkpoints" not in seen


def imported_at_once(name: str) -> Iterator[str]:
    """Modules that `import name` imports: not what functions import, nor types alone."""
    path = ROOT / name.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield f"{name.rpartition('.')[0]}.{node.module}"
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [own for own in names if (ROOT / f"{own.replace('.', '/')}.py").is_file()]
            yield from found or [str(node.module)]


def test_only_builtin_imports_for_the_side_effect() -> None:
    """`import t2sda.x.y` binds nothing one would use; builtin does it to fill the registries."""
    wrong = [
        str(path.relative_to(ROOT))
        for package, path in modules()
        if package != "builtin"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import)
        and any(alias.name.startswith("t2sda.") for alias in node.names)
    ]
    assert wrong == []


def test_the_drawing_of_streets_has_one_door() -> None:
    """Outside of the package everybody imports `t2sda.streets`, nobody a module of it."""
    package = ROOT / "t2sda/streets"
    wrong = [
        f"{path.relative_to(ROOT)} imports from {node.module}"
        for folder in ("t2sda", "export", "tools", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if package not in path.parents
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("t2sda.streets.")
    ]
    assert wrong == []
