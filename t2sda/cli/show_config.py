"""`t2sda show-config`: what a configuration resolves to."""

from __future__ import annotations

from collections.abc import Sequence

from t2sda.cli.common import ArgumentParser, add_config_arguments, load_for_config
from t2sda.config import dump_config, load_config, reference_markdown, shipped_configs
from t2sda.registry import check_registered
from t2sda.training.plan import plan_text


def command(argv: Sequence[str]) -> int:
    """Print the resolved configuration, the plan of its run, or the reference of all settings."""
    args = build_parser().parse_intermixed_args(argv)
    if args.list:
        for name, about in shipped_configs().items():
            print(f"{name:<56} {about}".rstrip())
        return 0
    overrides = load_for_config(args)
    if args.reference:
        print(reference_markdown(), end="")
        return 0
    cfg = load_config(args.config_file, overrides)
    check_registered(cfg)
    print(plan_text(cfg) if args.plan else dump_config(cfg), end="\n" if args.plan else "")
    return 0


def build_parser() -> ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda show-config", description="Print a configuration, resolved and checked."
    )
    add_config_arguments(parser, required=False)
    parser.add_argument(
        "--reference", action="store_true", help="print the reference of all settings instead"
    )
    parser.add_argument(
        "--plan", action="store_true", help="print what `train` would run instead; needs no data"
    )
    parser.add_argument(
        "--list", action="store_true", help="print the names of all shipped configurations instead"
    )
    return parser
