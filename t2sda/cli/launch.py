"""`t2sda launch --print`: how a command starts on many machines; nothing is started here."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence

from t2sda.cli.common import ArgumentParser, positive_int
from t2sda.errors import UserError

VERBS = ("train", "evaluate")
"""What several processes do together."""
PORT = 29500
SECONDS_TO_STOP = 120
"""Before a job's time is up, for a step and a checkpoint."""
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_RENDEZVOUS = re.compile(r"[A-Za-z0-9._-]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")
LARGEST_PORT = 65535
_OWN_OPTIONS = {
    "job-name": "--name says it",
    "nodes": "--nodes says it",
    "ntasks": "one task a node starts torchrun, and --processes says how many it starts",
    "ntasks-per-node": "one task a node starts torchrun, and --processes says how many it starts",
}
"""Of sbatch, which the job file gives."""
_SLURM = re.compile(r"[a-z][a-z-]*(=[^\s'\"]+)?")

SLURM_JOB = """\
#!/bin/bash
{directives}
# Slurm sends SIGTERM {seconds} s before the time is up: the step is finished, a checkpoint written.
set -euo pipefail
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT={patience}  # of torchrun, by default 30 s
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(head -n 1 <<< "$hosts")  # in a pipe it may end before scontrol, which ends the job
srun {torchrun}
"""


def command(argv: Sequence[str]) -> int:
    """Print a command or a job file."""
    args = build_parser().parse_args(argv)
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words or words[0] not in VERBS:
        raise UserError(
            f"{' '.join(words[:1]) or 'nothing to run'}: after -- comes the command to run, "
            f"{' or '.join(VERBS)} with its options"
        )
    if args.print == "torchrun":
        print(_torchrun_line(args, words))
    else:
        print(_slurm_job(args, words), end="")
    return 0


def _torchrun_line(args: argparse.Namespace, words: Sequence[str]) -> str:
    if args.slurm:
        raise UserError("--slurm: is for --print slurm alone")
    port = (args.rendezvous or "").rpartition(":")[2]
    if (
        args.rendezvous is None
        or _RENDEZVOUS.fullmatch(args.rendezvous) is None
        or not 0 < int(port) <= LARGEST_PORT
    ):
        found = args.rendezvous or "--rendezvous"
        raise UserError(
            f"{found}: name one of the nodes and a free port of it, --rendezvous HOST:{PORT}"
        )
    return _torchrun(args, words, str(args.nodes), args.name, args.rendezvous)


def _slurm_job(args: argparse.Namespace, words: Sequence[str]) -> str:
    if args.rendezvous is not None:
        raise UserError("--rendezvous: Slurm says where; leave it out with --print slurm")
    wrong = [text for text in args.slurm if _SLURM.fullmatch(text) is None]
    if wrong:
        raise UserError(f"--slurm {wrong[0]}: write OPTION or OPTION=VALUE, such as time=24:00:00")
    for text in args.slurm:
        if hint := _OWN_OPTIONS.get(text.partition("=")[0]):
            raise UserError(f"--slurm {text}: {hint}; leave it out")
    options = [
        f"job-name={args.name}",
        f"nodes={args.nodes}",
        "ntasks-per-node=1",
        f"gpus-per-node={args.processes}",
        f"signal=TERM@{SECONDS_TO_STOP}",
        *args.slurm,
    ]
    torchrun = _torchrun(
        args, words, '"$SLURM_JOB_NUM_NODES"', '"$SLURM_JOB_ID"', f'"$head:{PORT}"'
    )
    return SLURM_JOB.format(
        directives="\n".join(f"#SBATCH --{option}" for option in options),
        seconds=SECONDS_TO_STOP,
        patience=SECONDS_TO_STOP - 10,
        torchrun=torchrun,
    )


def _torchrun(
    args: argparse.Namespace, words: Sequence[str], nodes: str, name: str, rendezvous: str
) -> str:
    return (
        f"torchrun --nnodes {nodes} --nproc-per-node {args.processes} --rdzv-backend c10d "
        f"--rdzv-id {name} --rdzv-endpoint {rendezvous} -m t2sda {shlex.join(words)}"
    )


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"'{text}': letters, digits, '.', '_' and '-' make a name")
    return text


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda launch",
        usage="t2sda launch --print slurm|torchrun [options] -- train|evaluate …",
        description="Print the job file, or the command to run on every node, with which one "
        "training or scoring runs on many machines. All must see the same --output-dir and data.",
    )
    parser.add_argument(
        "--print",
        required=True,
        choices=("slurm", "torchrun"),
        help="a job file for sbatch, or the line to run on every node",
    )
    parser.add_argument("--nodes", type=positive_int, default=2, metavar="N", help="default: 2")
    parser.add_argument(
        "--processes",
        type=positive_int,
        default=1,
        metavar="N",
        help="of a node, one a GPU (default 1)",
    )
    parser.add_argument(
        "--rendezvous", metavar="HOST:PORT", help="torchrun: one of the nodes, and a free port"
    )
    parser.add_argument(
        "--name", type=_name, default="t2sda", help="of the job, the same on all nodes"
    )
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="further option of sbatch, such as time=24:00:00; repeatable",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser
