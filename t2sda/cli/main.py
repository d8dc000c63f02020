"""`t2sda VERB …`: every command of the project."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import t2sda
from t2sda.cli.common import USER_ERROR, run_command, whole_verb
from t2sda.errors import printable
from t2sda.registry import nearest_first

COMMANDS = {
    "quickstart": ("t2sda.cli.quickstart", "the whole way once, on drawn streets, in minutes"),
    "train": ("t2sda.cli.train", "train, resume or score a network"),
    "sweep": ("t2sda.cli.sweep", "train many runs that one file lists"),
    "launch": ("t2sda.cli.launch", "print how a training starts on many machines"),
    "evaluate": ("t2sda.cli.evaluate", "score models of any runtime on labelled datasets"),
    "pseudo-label": ("t2sda.cli.pseudo_label", "label a dataset with a network, to train on it"),
    "compare": ("t2sda.cli.compare", "runs side by side: settings, scores, differences"),
    "analyze": ("t2sda.cli.analyze", "distances and similarity of features, t-SNE, pseudo-labels"),
    "report": ("t2sda.cli.report", "one HTML page about runs: scores, curves, classes, images"),
    "export": ("t2sda.cli.export", "write a network for ONNX, OpenVINO, TensorRT, Triton, the web"),
    "verify": ("t2sda.cli.verify", "check an exported file again, also beside its run"),
    "infer": ("t2sda.cli.infer", "segment images and videos"),
    "merge": ("t2sda.cli.merge", "put the shards of `infer --shard` together"),
    "serve": ("t2sda.cli.serve", "label images over HTTP"),
    "benchmark": ("t2sda.cli.benchmark", "time models side by side, in every runtime"),
    "data": ("t2sda.cli.data", "list, check, convert and pack datasets"),
    "weights": ("t2sda.cli.weights", "import what others trained, as a checkpoint"),
    "show-config": ("t2sda.cli.show_config", "print a configuration, resolved and checked"),
    "gpu-check": ("t2sda.cli.gpu_check", "does all that needs a GPU work here? a report"),
    "completion": ("t2sda.cli.completion", "print a script that lets a shell complete commands"),
    "env": ("t2sda.cli.env", "print what works on this machine"),
}
"""Verb: module with `command(argv) -> int`, imported when it is asked for; one line of help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that the command line names; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else USER_ERROR
    if arguments[0] == "--version":
        print(f"t2sda {t2sda.__version__}")
        return 0
    verb = whole_verb(arguments[0], COMMANDS)
    if verb not in COMMANDS:
        nearest = ", ".join(nearest_first(verb, list(COMMANDS)))
        print(
            printable(f"error: no command '{verb}'; known, nearest first: {nearest}"),
            file=sys.stderr,
        )
        return USER_ERROR
    return run_verb(verb, arguments[1:])


def run_verb(verb: str, argv: Sequence[str] | None = None) -> int:
    """Run one command; what `tools/*.py` call, with the process's arguments by default."""

    def command(arguments: Sequence[str]) -> int:
        # Imported within: what a package that is missing says is one message, too.
        return importlib.import_module(COMMANDS[verb][0]).command(arguments)

    return run_command(command, sys.argv[1:] if argv is None else argv)


def _usage() -> str:
    verbs = "\n".join(f"  {verb:<14}{help_}" for verb, (_, help_) in COMMANDS.items())
    return f"usage: t2sda VERB [options]   (t2sda VERB --help)\n\n{verbs}\n  --version"
