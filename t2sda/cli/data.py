"""`t2sda data VERB …`: what there is to know about datasets before they are trained on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from t2sda.cli.common import USER_ERROR, whole_verb
from t2sda.registry import nearest_first

VERBS = {
    "check": ("t2sda.cli.data_check", "find out what is wrong with a dataset before training"),
    "convert": (
        "t2sda.cli.data_convert",
        "annotations of COCO, CVAT, LabelMe and others, as a set",
    ),
    "list": ("t2sda.cli.data_list", "the datasets that are registered, and where they were found"),
    "pack": ("t2sda.cli.data_pack", "write a dataset resized, as files that are fast to read"),
}
"""Verb: module with `command(argv) -> int`, imported when it is asked for; one line of help."""


def command(argv: Sequence[str]) -> int:
    """Run what the first argument names."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage(), file=sys.stdout if argv else sys.stderr)
        return 0 if argv else USER_ERROR
    verb = whole_verb(argv[0], VERBS)
    if verb not in VERBS:
        nearest = ", ".join(nearest_first(verb, list(VERBS)))
        print(f"error: no command 'data {verb}'; known, nearest first: {nearest}", file=sys.stderr)
        return USER_ERROR
    return importlib.import_module(VERBS[verb][0]).command(argv[1:])


def _usage() -> str:
    verbs = "\n".join(f"  {verb:<9}{help_}" for verb, (_, help_) in VERBS.items())
    return f"usage: t2sda data VERB [options]   (t2sda data VERB --help)\n\n{verbs}"
