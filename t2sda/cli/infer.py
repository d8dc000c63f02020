"""`t2sda infer`: segment images and videos."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from t2sda.cli.common import ArgumentParser, positive_int
from t2sda.cli.infer_inputs import add_input_arguments, sources_of
from t2sda.cli.inferring import Inference
from t2sda.cli.loading import (
    add_branch_argument,
    add_model_arguments,
    description_of,
    load_for_models,
)
from t2sda.constants import IGNORE_INDEX
from t2sda.data.parallel import num_cores
from t2sda.errors import UserError
from t2sda.files import only_writer, remove_partials
from t2sda.inference.results import CONFIDENCE, KINDS, PROBABILITIES, check_label_ids
from t2sda.inference.segmenter import Segmenter
from t2sda.inference.shards import (
    Shard,
    check_alone,
    check_beside,
    note_begin,
    note_end,
    shard_called,
)
from t2sda.inference.sources import Source
from t2sda.inference.transfer import Transfer
from t2sda.inference.visualisation import PLAIN, OverlayStyle
from t2sda.inference.windows import check_stride, default_step
from t2sda.runtime.identity import model_digest
from t2sda.runtime.loading import load_model
from t2sda.runtime.predictor import FilePredictor, Predictor
from t2sda.runtime.runtimes import RUNTIMES, runtime_for

GPU_WORKERS = 4
"""Threads that decode, wait for the GPU and encode."""
AVERAGE, MIDDLE = "average", "middle"
WAITING = 2
"""Workers more than cores on a CPU: some wait until the disk has their files."""


def command(argv: Sequence[str]) -> int:
    """Segment everything; returns 0, or SOME_LEFT_OUT if files were left out."""
    args = build_parser().parse_args(argv)
    style = _style(args)
    shard = None if args.shard is None else shard_called(args.shard, os.environ)
    with Transfer() as transfer:
        output_dir = transfer.output(args.output)
        if shard is None:
            check_alone(output_dir)
        else:
            check_beside(shard, output_dir)
        with sources_of(args, output_dir, transfer) as sources:
            own = [one for one in sources if shard is None or shard.takes(str(one.name))]
            return _segment(args, own, output_dir, style, shard, transfer)


def _segment(
    args: argparse.Namespace,
    sources: Sequence[Source],
    output_dir: Path,
    style: OverlayStyle,
    shard: Shard | None,
    transfer: Transfer,
) -> int:
    load_for_models([Path(args.model)], args.plugin, args.file)
    workers, streams, threads = _shared_cores(args, len(sources))
    model = load_model(
        args.model,
        args.runtime,
        args.device,
        threads=threads,
        streams=streams,
        description=description_of(args),
        branch=args.branch,
    )
    segmenter = _segmenter(args, model)
    if "labelid" in args.kind:
        check_label_ids(model.taxonomy)
    cv2.setNumThreads(1)  # the images are what is done in parallel
    record_dir = output_dir if shard is None else shard.folder(output_dir)
    with (
        only_writer(record_dir, "--output"),
        transfer.recording(record_dir, args.resume),
    ):
        if shard is None:
            remove_partials({(output_dir / source.name).parent for source in sources})
        else:
            note_begin(record_dir)
        inference = Inference(
            segmenter,
            output_dir,
            args.kind,
            sys.stdout,
            num_workers=workers,
            resume=args.resume,
            settings=_settings(args, model, style),
            style=style,
            record_dir=record_dir,
            transfer=transfer,
        )
        code = inference.run(sources)
        if shard is not None:
            note_end(record_dir, inference.end(sources))
        return code


def _settings(args: argparse.Namespace, model: Predictor, style: OverlayStyle) -> dict[str, Any]:
    """What results depend on besides the kinds; a model goes by its content, not by its name."""
    path = Path(args.model)
    description = description_of(args)
    return {
        "model_sha256": model_digest(_newest_checkpoint(path) if path.is_dir() else path),
        "branch": args.branch,
        "description": asdict(description) if description else None,
        "window": args.window,
        "stride": args.stride,
        "overlap": _overlap(args, model),
        "min_confidence": args.min_confidence or None,
        **({"style": asdict(style)} if style != PLAIN else {}),
    }


def _style(args: argparse.Namespace) -> OverlayStyle:
    style = OverlayStyle(args.opacity, args.outlines, args.numbers)
    if style != PLAIN and not {"overlay", "panel"} & set(args.kind):
        raise UserError(
            "--opacity, --outlines and --numbers are of overlays; add overlay or panel to --kind"
        )
    return style


def _newest_checkpoint(run: Path) -> Path:
    from t2sda.engine.checkpoint import resolve_checkpoint  # needs torch, as checkpoints do

    return resolve_checkpoint(run)


def _shared_cores(args: argparse.Namespace, num_sources: int) -> tuple[int, int, int]:
    """(workers, networks at once, threads of each): networks have as many threads as cores."""
    runtime = RUNTIMES[runtime_for(Path(args.model), args.runtime)]
    if runtime.uses_gpu(args.device):
        return args.workers or GPU_WORKERS, 1, args.threads
    cores = num_cores()
    alone = num_sources == 1 and not args.workers
    # One image has all cores; of a video the next frame is decoded meanwhile.
    streams = 1 if alone else min(args.workers or cores, cores)
    return args.workers or streams + WAITING, streams, args.threads or max(cores // streams, 1)


def _segmenter(args: argparse.Namespace, model: Predictor) -> Segmenter:
    _check_output(args, model)
    window = tuple(args.window) if args.window else None
    if window is None and (args.stride or args.overlap):
        option = "--stride" if args.stride else "--overlap"
        raise UserError(f"{option}: there is no window to move; add --window HEIGHT WIDTH")
    stride = (0, 0)
    if window is not None:
        fixed = model.metadata.image_size if isinstance(model, FilePredictor) else None
        if fixed not in (None, window):
            assert fixed is not None
            raise UserError(
                f"--window {window[0]} {window[1]}: {args.model} takes images of "
                f"{fixed[0]}x{fixed[1]} only; use --window {fixed[0]} {fixed[1]}"
            )
        stride = tuple(args.stride) if args.stride else default_step(window)
        check_stride(window, stride)
    return Segmenter(
        model,
        args.batch or model.max_batch_size or 1,
        window,
        stride,
        with_probabilities=PROBABILITIES in args.kind,
        with_confidence=CONFIDENCE in args.kind,
        min_confidence=args.min_confidence,
        averages=_overlap(args, model) == AVERAGE,
    )


def _check_output(args: argparse.Namespace, model: Predictor) -> None:
    """Raise UserError for what a file of labels, or of probabilities, does not hold."""
    asked = [f"--kind {kind}" for kind in (PROBABILITIES, CONFIDENCE) if kind in args.kind]
    asked += ["--min-confidence"] if args.min_confidence else []
    if asked and model.output_kind == "labels":
        raise UserError(
            f"{asked[0]}: {args.model} holds labels alone; export it with --output-kind "
            f"probabilities, or use the checkpoint"
        )
    if args.overlap == AVERAGE and model.output_kind != "logits":
        raise UserError(
            f"--overlap {AVERAGE}: {args.model} holds {model.output_kind}; export it with "
            f"--output-kind logits, or use the checkpoint"
        )


def _overlap(args: argparse.Namespace, model: Predictor) -> str | None:
    """How pixels in several windows get their class; None without windows."""
    if not args.window:
        return None
    return args.overlap or (AVERAGE if model.output_kind == "logits" else MIDDLE)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 0 to 1")
    return share


def _kinds(text: str) -> list[str]:
    kinds = [kind.strip() for kind in text.split(",")]
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no kind '{unknown[0]}'; known: {', '.join(KINDS)}")
    return kinds


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda infer",
        description="Segment images and videos. For each it writes NAME_KIND, and for all "
        "together legend.png and classes.json. Files that cannot be read, or need more memory than "
        "there is, are listed at the end (exit code 3).",
    )
    parser.add_argument(
        "--model", required=True, help="run folder, checkpoint, or a file of `t2sda export`"
    )
    add_input_arguments(parser)
    parser.add_argument("--output", required=True, metavar="DIR|URL", help="folder for the results")
    parser.add_argument(
        "--kind",
        type=_kinds,
        default=["overlay", "color", "trainid"],
        metavar="KINDS",
        help=f"comma-separated, of {', '.join(KINDS)} (default: overlay,color,trainid)",
    )
    _add_drawing_arguments(parser)
    _add_window_arguments(parser)
    parser.add_argument(
        "--min-confidence",
        type=_share,
        default=0.0,
        metavar="P",
        help=f"pixels whose largest probability is below P get no class: {IGNORE_INDEX} in train "
        f"ids, no color",
    )
    parser.add_argument(
        "--batch",
        type=positive_int,
        metavar="N",
        help="images, frames of a video or windows at once; default: as many as the file takes, of "
        "one that takes any number and of a checkpoint 1",
    )
    parser.add_argument(
        "--resume", action="store_true", help="skip what an earlier run of these settings finished"
    )
    parser.add_argument(
        "--shard",
        nargs="?",
        const="",
        metavar="I/N",
        help="only the I-th of N shares of the images; several may write to one --output side by "
        "side, then `t2sda merge`. I, and of a Slurm array N, may be left out: /N, or nothing",
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        metavar="N",
        help="images in work at once; default: two more than cores, 4 on a GPU",
    )
    add_branch_argument(parser)
    add_model_arguments(parser)
    return parser


def _add_drawing_arguments(parser: argparse.ArgumentParser) -> None:
    """How overlays and panels look."""
    parser.add_argument(
        "--opacity",
        type=_share,
        default=PLAIN.opacity,
        metavar="SHARE",
        help="of the classes' colors in overlays and panels, 0 to 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--outlines",
        action="store_true",
        help="broad outlines in light shades of the classes' colors: for dark images",
    )
    parser.add_argument(
        "--numbers",
        action="store_true",
        help="train ids in regions and legends: for readers who cannot distinguish the colors",
    )


def _add_window_arguments(parser: argparse.ArgumentParser) -> None:
    """Windows, and what happens where they overlap."""
    parser.add_argument(
        "--window",
        nargs=2,
        type=positive_int,
        metavar=("HEIGHT", "WIDTH"),
        help="segment window by window; default: the whole image",
    )
    parser.add_argument(
        "--stride",
        nargs=2,
        type=positive_int,
        metavar=("HEIGHT", "WIDTH"),
        help="from one window to the next; default: two thirds of the window",
    )
    parser.add_argument(
        "--overlap",
        choices=(AVERAGE, MIDDLE),
        help="where windows overlap: the mean of their logits, or the window in whose middle a "
        "pixel lies; default: the mean, of files of labels or probabilities the middle",
    )
