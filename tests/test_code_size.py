"""What benchmarks/code_size.py counts of a method."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import code_size

ROOT = Path(__file__).parents[1]


def test_modules_of_every_method_exist() -> None:
    for expected, modules in code_size.METHODS.values():
        assert expected is None or expected > 0
        assert all((ROOT / f"t2sda/{module}.py").is_file() for module in modules.split())


def test_a_methods_lines_are_its_own_and_the_imports_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(code_size, "METHODS", {"mine": (9, "a/one a/two")})
    files = {
        ROOT / "t2sda/a/one.py": '"""Text."""\nfrom t2sda.a.two import x\n\ny = x  # why\n',
        ROOT / "t2sda/a/two.py": "x = 1\n",
        ROOT / "t2sda/b.py": "import t2sda.a.one\nfrom t2sda.a.two import x\n",
        ROOT / "t2sda/c.py": "import t2sda.a.one_more\n# import t2sda.a.one\n",
    }
    assert code_size.method_rows(files, ROOT) == ["| mine | 9 | 3 | 2 |"]
