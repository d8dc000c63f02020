"""`t2sda merge`: record, legend and shares of what `infer --shard` made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from t2sda.cli.common import ArgumentParser
from t2sda.cli.inferring import SOME_LEFT_OUT, write_summary
from t2sda.files import only_writer, remove_partials
from t2sda.inference.shards import DONE_NAME, Merged, finished_shards, merge
from t2sda.inference.shares import RECORD_NAME, SHARDS_NAME
from t2sda.inference.transfer import Transfer


def command(argv: Sequence[str]) -> int:
    """Merge; returns 0, or SOME_LEFT_OUT if a shard did."""
    args = build_parser().parse_args(argv)
    with Transfer() as transfer:
        output_dir = transfer.output(args.output)
        shards = sorted((output_dir / SHARDS_NAME).glob("*-of-*"))
        transfer.pull(one / name for one in shards for name in (RECORD_NAME, DONE_NAME))
        merged = _merged(output_dir, transfer)
    print(f"{len(merged.names)} images and videos of all shards; summary in {args.output}")
    if merged.num_left_out:
        print(f"{merged.num_left_out} files were left out, as their shards said")
    if merged.num_incomplete:
        print(f"{merged.num_incomplete} videos are damaged, as their shards said")
    return SOME_LEFT_OUT if merged.num_left_out or merged.num_incomplete else 0


def _merged(output_dir: Path, transfer: Transfer) -> Merged:
    found = finished_shards(output_dir)  # before anything is written
    with only_writer(output_dir, "DIR"), transfer.recording(output_dir, resume=False):
        merged = merge(output_dir, found)
        remove_partials({(output_dir / name).parent for name in merged.names})
        numbers = merged.record.settings.get("style", {}).get("numbers", False)
        write_summary(merged.record, output_dir, merged.names, merged.taxonomy, numbers=numbers)
    return merged


def build_parser() -> ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda merge",
        description="Write images.jsonl, legend.png and classes.json of all shards, as one run "
        "without --shard would have. Every shard must have come to its end.",
    )
    parser.add_argument("output", metavar="DIR|URL", help="the --output of `t2sda infer --shard`")
    return parser
