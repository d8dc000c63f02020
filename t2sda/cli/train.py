"""`t2sda train`: train, resume or score a network."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from t2sda.cli.common import ArgumentParser, add_config_arguments, load_components
from t2sda.cli.training import TrainingRun, score
from t2sda.config import load_config
from t2sda.data.dataset_files import register_dataset_files
from t2sda.distributed import is_main, process_group
from t2sda.engine.device import choose_device
from t2sda.files import only_writer
from t2sda.registry import check_registered
from t2sda.resources import named_shortages


def command(argv: Sequence[str]) -> int:
    """Train by a configuration.

    Returns:
        0; 128 + the signal's number after one of STOP_SIGNALS, which leaves a checkpoint behind.
    """
    args = _parser().parse_intermixed_args(argv)
    load_components(args.plugin)
    overrides = list(args.overrides)
    if args.output_dir is not None:
        overrides += ["OUTPUT_DIR", json.dumps(args.output_dir)]  # as it is, not as YAML
    cfg = load_config(args.config_file, overrides)
    check_registered(cfg)
    register_dataset_files(cfg.DATASETS.FILES)

    device = choose_device(cfg.DEVICE)
    with process_group(device), named_shortages():
        if args.eval_only:
            score(cfg, device, args.weights)
            return 0
        with only_writer(Path(cfg.OUTPUT_DIR), "--output-dir") if is_main() else nullcontext():
            return TrainingRun(cfg, device, resume=args.resume, weights=args.weights).run()


def _parser() -> argparse.ArgumentParser:
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
        help="checkpoint or run folder whose student to start from (or to score)",
    )
    parser.add_argument("--output-dir", metavar="DIR", help="the same as OUTPUT_DIR DIR")
    return parser
