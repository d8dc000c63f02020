"""`t2sda weights VERB …`: what others trained, as a checkpoint of ours."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fvcore.common.config import CfgNode
from rich.console import Console

from t2sda.cli.common import ArgumentParser, add_dataset_arguments, load_datasets
from t2sda.config import changed_keys, load_config
from t2sda.data.taxonomies import Taxonomy
from t2sda.engine.checkpoint import Checkpoint
from t2sda.engine.importing import Imported, Network, import_network, network_of, write_imported
from t2sda.engine.metrics import standard_console
from t2sda.errors import UserError
from t2sda.files import atomic_writer, check_writable_file
from t2sda.runtime.checkpoints import open_checkpoint
from t2sda.runtime.description import taxonomy_called
from t2sda.weights.formats import BRANCHES
from t2sda.weights.published import OwnCheckpointError, read_weight_file
from t2sda.weights.sources import WEIGHT_PATHS

CHECKPOINT_SUFFIX = ".pth"
REPORT_SUFFIX = ".tensors.txt"


def command(argv: Sequence[str]) -> int:
    """Say what a file is; with `import`, write it as a checkpoint."""
    args = build_parser().parse_intermixed_args(argv)
    if (args.verb == "import") != (args.output is not None):
        raise UserError("--output OUT.pth: needed by `weights import`, and by it alone")
    load_datasets(args)
    console = standard_console()
    path = Path(WEIGHT_PATHS.get_local_path(args.weights))
    try:
        file = read_weight_file(path)
    except OwnCheckpointError:
        if args.output is not None:
            raise
        _describe_checkpoint(console, open_checkpoint(path))
        return 0
    network = network_of(file, args.branch)
    _describe(console, network)
    imported = import_network(network, taxonomy_called(args.taxonomy), args.to, args.overrides)
    _describe_network(console, imported)
    if args.output is not None:
        _write(console, imported, args.output)
    return 0


def _write(console: Console, imported: Imported, output: Path) -> None:
    if output.suffix != CHECKPOINT_SUFFIX:
        raise UserError(f"--output {output}: a checkpoint's name ends in {CHECKPOINT_SUFFIX}")
    check_writable_file(output, "--output")
    write_imported(imported, output)
    report = output.with_name(output.name + REPORT_SUFFIX)
    with atomic_writer(report) as partial:
        partial.write_text(_report(imported) + "\n", encoding="utf-8")
    _print(console, f"written to {output}; every tensor is in {report}")


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _describe(console: Console, network: Network) -> None:
    file = network.file
    _print(console, f"{file.path}: {network.layout.name}, the {network.branch}")
    _print(console, f"sha256 {file.sha256}")
    if prefixes := [text for text in (*file.wrappers, network.prefix) if text]:
        _print(console, f"names are read without {', '.join(map(repr, prefixes))}")
    for name, what in file.others.items():
        _print(console, f"left out: {name}, {what}, no part of a network")
    _print(console, f"licence: {network.layout.licence}")
    if network.layout.notes:
        _print(console, f"note: {network.layout.notes}")


def _describe_checkpoint(console: Console, checkpoint: Checkpoint) -> None:
    names = {name.split(".")[0] for name in checkpoint.meta_arch}
    branches = " and ".join(branch for branch in ("student", "teacher") if branch in names)
    _print(
        console,
        f"{checkpoint.path}: a checkpoint of t2sda after {checkpoint.iteration} iterations, with "
        f"{branches}",
    )
    _print_settings(console, checkpoint.cfg, checkpoint.taxonomy)
    _print(console, ", ".join(f"{name} {text}" for name, text in checkpoint.versions.items()))
    for name, text in checkpoint.provenance.items():
        _print(console, f"imported, {name}: {text}")


def _print_settings(console: Console, cfg: CfgNode, taxonomy: Taxonomy) -> None:
    changes = changed_keys(load_config(None), cfg)
    settings = " ".join(
        f"{key}={new}" for key, _, new in changes if key.startswith(("MODEL.", "EVALUATION."))
    )
    _print(console, f"network: {settings}")
    _print(console, f"classes: {taxonomy.name} ({taxonomy.num_classes})")


def _describe_network(console: Console, imported: Imported) -> None:
    _print_settings(console, imported.cfg, imported.taxonomy)
    left_out = Counter(row.left_out for row in imported.rows if row.left_out)
    used = len(imported.rows) - left_out.total()
    _print(console, f"tensors: {len(imported.rows)} in the file, {used} used")
    for why, count in left_out.items():
        _print(console, f"  {count} left out: {why}")
    for why, count in Counter(imported.added.values()).items():
        _print(console, f"  {count} not in the file: {why}")


def _report(imported: Imported) -> str:
    """One line for each tensor of the file, then for each that it does not hold."""
    others = imported.network.file.others
    beside = [f"{name} not: {what}, no part of a network" for name, what in others.items()]
    added = [f"{name} not in the file: {why}" for name, why in imported.added.items()]
    return "\n".join([*map(str, imported.rows), *beside, *added])


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda weights",
        description="Turn weights that others trained into a checkpoint: SegFormer, DAFormer, "
        "HRDA, MIC, mmsegmentation, Hugging Face, segmentation_models_pytorch, AdaptSegNet, "
        "ADVENT, DACS, timm. Every tensor is used, or left out for a reason; nothing in a file is "
        "executed.",
    )
    parser.add_argument(
        "verb",
        choices=("import", "inspect"),
        metavar="import|inspect",
        help="write a checkpoint, or only say what the file is",
    )
    parser.add_argument(
        "weights",
        metavar="FILE",
        help=".pth, .pt, .bin or .safetensors, or a source as for MODEL.BACKBONE.WEIGHTS, such as "
        "hf://OWNER/NAME",
    )
    parser.add_argument("--output", type=Path, metavar="OUT.pth", help="checkpoint to write")
    parser.add_argument(
        "--branch",
        choices=tuple(BRANCHES),
        default="student",
        help="of a training checkpoint, the network to take (default: %(default)s)",
    )
    parser.add_argument(
        "--to",
        metavar="CONFIG",
        help="configuration whose MODEL it is to be (default: what the tensors show)",
    )
    parser.add_argument(
        "--taxonomy",
        default="cityscapes_19",
        metavar="NAME",
        help="of its classes: a label set, or a dataset's name (default: %(default)s)",
    )
    add_dataset_arguments(parser)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="settings of the network")
    return parser
