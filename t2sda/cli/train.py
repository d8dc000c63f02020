"""`t2sda train`: train, resume or score a network."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from rich.console import Console

from t2sda.cli.common import ArgumentParser, add_config_arguments, load_for_config
from t2sda.cli.score_table import print_scores
from t2sda.config import load_config
from t2sda.data.dataset_files import register_dataset_files
from t2sda.distributed import is_main, process_group
from t2sda.engine.device import choose_device
from t2sda.engine.metrics import standard_console
from t2sda.evaluation.entries import Scores
from t2sda.registry import check_registered
from t2sda.resources import named_shortages
from t2sda.training.run import run_training
from t2sda.training.scoring import score_checkpoint


def command(argv: Sequence[str]) -> int:
    """Train by a configuration.

    Returns:
        0; 128 + the signal's number after one of STOP_SIGNALS, which leaves a checkpoint behind.
    """
    args = build_parser().parse_intermixed_args(argv)
    overrides = load_for_config(args)
    if args.output_dir is not None:
        overrides += ["OUTPUT_DIR", json.dumps(args.output_dir)]  # as it is, not as YAML
    cfg = load_config(args.config_file, overrides)
    check_registered(cfg)
    register_dataset_files(cfg.DATASETS.FILES)

    device = choose_device(cfg.DEVICE)
    with process_group(device), named_shortages():
        console = standard_console(quiet=not is_main())
        if args.eval_only:
            show_scores(console, score_checkpoint(cfg, device, args.weights))
            return 0
        result = run_training(cfg, device, resume=args.resume, weights=args.weights)
        show_scores(console, result.scores)
    return 128 + result.stopped_by if result.stopped_by else 0


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda train",
        description="Train by a configuration. One process; for several GPUs start it with "
        "torchrun. Killed at any moment, it goes on with --resume as if nothing had happened.",
    )
    add_config_arguments(parser, required=True)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the newest checkpoint of the output folder, if it holds one",
    )
    parser.add_argument(
        "--eval-only",
        action="store_true",
        help="score --weights, or the newest checkpoint of the output folder; train nothing",
    )
    parser.add_argument(
        "--weights",
        metavar="PATH",
        help="checkpoint or run folder to start from, its student with a new classifier for other "
        "classes; or to score",
    )
    parser.add_argument("--output-dir", metavar="DIR", help="the same as OUTPUT_DIR DIR")
    return parser


def show_scores(console: Console, scores: list[Scores]) -> None:
    """Print a table for each dataset."""
    for item in scores:
        print_scores(console, {"student": item})
