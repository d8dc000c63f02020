"""`t2sda pseudo-label`: label a dataset with a trained network, to train on it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from t2sda.cli.common import ArgumentParser
from t2sda.cli.evaluate import add_protocol_arguments, protocol_of
from t2sda.cli.loading import add_branch_argument, add_model_arguments, description_of
from t2sda.data.catalog import open_dataset
from t2sda.data.packing import DESCRIPTION_NAME
from t2sda.distributed import is_main, process_group
from t2sda.engine.checkpoint import resolve_checkpoint
from t2sda.engine.device import choose_device
from t2sda.engine.metrics import standard_console
from t2sda.engine.progress import ConsoleProgress
from t2sda.evaluation.label_rules import CONSTANTS, RULES, LabelRule, label_rule
from t2sda.evaluation.pseudo_labelling import PseudoLabels, label_dataset
from t2sda.evaluation.views import Views
from t2sda.plugins import load_components
from t2sda.resources import named_shortages
from t2sda.runtime.identity import model_digest
from t2sda.runtime.loading import load_model
from t2sda.training.folder import register_datasets_of_runs


def command(argv: Sequence[str]) -> int:
    """Label, and say how to train on what was written; returns 0."""
    args = build_parser().parse_args(argv)
    load_components(args.plugin, args.file)
    files = [*args.file, *register_datasets_of_runs([Path(args.model)], [args.data])]
    rule = _rule(args)
    with process_group(choose_device(args.device)), named_shortages():
        dataset = open_dataset(args.data)
        file = resolve_checkpoint(Path(args.model))
        predictor = load_model(
            file,
            args.runtime,
            args.device,
            threads=args.threads,
            description=description_of(args),
            branch=args.branch,
        )
        views = Views(predictor, protocol_of(predictor, args), with_confidence=True)
        origin = {"model": f"sha256:{model_digest(file)}", **predictor.origin}
        console = standard_console(quiet=not is_main())
        found = label_dataset(
            views,
            predictor.taxonomy,
            dataset,
            rule,
            Path(args.output),
            origin,
            ConsoleProgress(console),
        )
        console.print(_summary(found, files), highlight=False, soft_wrap=True, markup=False)
    return 0


def _rule(args: argparse.Namespace) -> LabelRule:
    """The rule with the constants that are given; raises UserError for what does not fit it."""
    constants = {name: getattr(args, name) for name in CONSTANTS}
    return label_rule(args.rule, {name: v for name, v in constants.items() if v is not None})


def _summary(found: PseudoLabels, files: Sequence[str]) -> str:
    listed = ", ".join([*files, str(found.folder / DESCRIPTION_NAME)])
    missing = [name for name, pixels in found.class_pixels.items() if not pixels]
    without = f"; of no pixel: {', '.join(missing)}" if missing else ""
    return (
        f"{found.folder}: {100 * found.labelled_share:.1f} % of the pixels are labelled{without}; "
        f"train on them with META_ARCH.PASSES '[source, labelled_target]' DATASETS.FILES "
        f"'[{listed}]' DATASETS.TARGET {found.name}"
    )


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda pseudo-label",
        description="Label a dataset with a trained network: PNG files of train ids, a "
        "dataset.yaml to train on them with the pass labelled_target, and pseudo_labels.json. What "
        "was stopped goes on. For several GPUs start tools/pseudo_label.py with torchrun: the "
        "labels are the same.",
    )
    parser.add_argument(
        "model", metavar="RUN", help="run folder, checkpoint, or a file of `t2sda export`"
    )
    parser.add_argument("--data", required=True, metavar="NAME", help="dataset whose images it is")
    parser.add_argument(
        "--rule",
        required=True,
        choices=RULES,
        help="argmax: every pixel; threshold: the sure ones; cbst: an equal share of every class",
    )
    parser.add_argument(
        "--portion", type=float, metavar="P", help="share of every class, for cbst; default: 0.2"
    )
    parser.add_argument(
        "--threshold", type=float, metavar="T", help="confidence, for threshold; default: 0.9"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the labels")
    add_branch_argument(parser)
    add_protocol_arguments(parser)
    add_model_arguments(parser)
    return parser
