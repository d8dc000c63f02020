"""MkDocs hook of `make docs`: what lies outside docs/ is named on the site, not linked."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The text of links that leave docs/; tests check that they lead somewhere in the tree."""
    return _OUTSIDE.sub(r"\1", markdown)
