"""docs/config.md is what the schema says today."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from t2sda.config import reference_markdown

PAGE = Path(__file__).parents[2] / "docs" / "config.md"


def test_the_reference_page_is_up_to_date() -> None:
    import_module("t2sda.builtin")  # declares every setting
    page = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    assert page.strip() == reference_markdown().strip(), (
        "docs/config.md is stale: run `t2sda show-config --reference > docs/config.md`"
    )
