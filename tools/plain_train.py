"""The pieces without the framework's loop: `python tools/plain_train.py CONFIG [KEY VALUE ...]`.

One process, float32, one micro-step: SOLVER.ACCUMULATION, checkpoints, metrics and scores are what
`t2sda train` adds. Its losses are those of `t2sda train`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from fvcore.common.config import CfgNode

import t2sda
from t2sda.data.domains import DomainPairs
from t2sda.data.loader import DomainLoader
from t2sda.data.samplers import MicroBatchPositions
from t2sda.engine.device import lay_out_
from t2sda.engine.ema import ema_update_
from t2sda.engine.hooks import RunObjects
from t2sda.engine.optim import build_owners
from t2sda.engine.reweighting import DynamicReweighting
from t2sda.meta_arch.base import build_meta_arch
from t2sda.structures import RandomStreams, Step


def losses_of_steps(cfg: CfgNode) -> Iterator[dict[str, float]]:
    """Train T2S-DA; gives the losses of every step."""
    torch.manual_seed(cfg.SEED)
    pairs = DomainPairs.from_config(cfg)
    method = build_meta_arch(cfg, pairs.source.taxonomy)
    student, teacher = method.student, method.get_submodule("teacher")
    lay_out_(student, cfg)  # SOLVER.CHANNELS_LAST, COMPILE
    (owner,) = build_owners(cfg, method)  # of the student's parameters alone
    reweighting = DynamicReweighting.from_config(cfg, RunObjects(method, Path()))
    positions = MicroBatchPositions(batch_size=cfg.SOLVER.BATCH_SIZE, max_iter=cfg.SOLVER.MAX_ITER)
    ema_update_(teacher, student, ema_momentum=0.0)
    for iteration, batch in enumerate(DomainLoader(pairs, positions, cfg.DATA.NUM_WORKERS)):
        step = Step(iteration, 0, batch, RandomStreams(cfg.SEED, iteration, 0))
        method.train()
        owner.optimizer.zero_grad()
        with torch.no_grad():
            step.teacher = method.teach(step)  # what the passes and hooks read of the teacher
        reweighting.after_teacher(step)  # writes step.class_weights, Eq. (12)
        for name in method.pass_names:  # source, mixed, pull: one student forward each
            torch.manual_seed(step.streams.seed_of(f"{name}, rank 0"))  # dropout
            losses = method(name, step)
            torch.stack(list(losses.values())).sum().backward()
            step.add_losses(losses)
        owner.set_learning_rate_(iteration)
        owner.optimizer.step()
        ema_update_(teacher, student, min(1 - 1 / (iteration + 2), cfg.EMA.MOMENTUM))
        yield {name: loss.item() for name, loss in step.losses.items()}


if __name__ == "__main__":
    config = t2sda.load_config(sys.argv[1], sys.argv[2:])
    for number, found in enumerate(losses_of_steps(config), start=1):
        print(number, *(f"{name} {loss:.4f}" for name, loss in found.items()), flush=True)
