"""Ranks: who we are, and the few collective operations that training and scoring need.

The mini-batch means the whole mini-batch: class statistics, the ClassMix pool and every loss's
denominator are taken over all ranks, so that two ranks give the numbers of one. A loss therefore
divides its local sum by `mean_over_ranks(count)`: averaging the gradients over the ranks then gives
the gradient of the whole batch's loss, however the pixels are spread. Every function here is the
identity where there is a single process.

That holds exactly where nothing is drawn for a single image: dropout and DropPath draw masks of
their own on every rank, so with them two ranks are one process in distribution only.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from t2sda.errors import UserError, printable

BUCKET_ELEMENTS = 8_000_000
"""Gradients travel in flat buffers of about this many elements (32 MB of float32)."""


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, 0 for the one that writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this process is the one that writes files and prints."""
    return rank() == 0


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes that `torchrun` started; nothing to do for a single one.

    Raises:
        UserError: in a process that waits for another one which failed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    # Confusion matrices are summed on the CPU, which NCCL cannot do.
    backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=30))
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo/transport" in str(error):
            raise UserError("another process of this run failed; see its message") from None
        raise
    except UserError as error:
        _tell_torchrun(printable(str(error)))
        raise
    # Not after an error: it may wait for the others, and they wait for this process to go.
    dist.destroy_process_group()


def _tell_torchrun(message: str) -> None:
    """Put the message at the end of the report that `torchrun` prints of a failed process.

    It is read from a file, whose form is that of `torch.distributed.elastic`'s `record`.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        content = {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}
        with contextlib.suppress(OSError):  # the process itself prints it as well
            Path(path).write_text(json.dumps({"message": content}), encoding="utf-8")


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        dist.barrier()


def check_shared_folder(folder: Path) -> None:
    """Find out before the work whether all ranks see one folder.

    Raises:
        UserError: in all of them, if one does not see what the first writes.
    """
    if world_size() == 1:
        return
    number = torch.tensor(secrets.randbelow(1 << 62) if is_main() else 0)
    path = folder / f".seen-{int(sum_over_ranks(number)):x}"
    if is_main():
        path.touch()
    barrier()
    num_blind = int(sum_over_ranks(torch.tensor(int(not path.exists()))))
    if is_main():
        path.unlink()
    if num_blind:
        raise UserError(
            f"{folder}: {num_blind} of {world_size()} processes do not see what the first one "
            f"writes there; --output-dir must be a folder that all nodes share"
        )


@torch.no_grad()
def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of `value` over all ranks, as a new tensor without gradient."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def any_over_ranks(value: Tensor) -> Tensor:
    """Element-wise `or` of a bool tensor over all ranks."""
    return sum_over_ranks(value.float()) > 0 if world_size() > 1 else value


def own_share(num_samples: int) -> slice:
    """Where this rank's samples lie among those of all ranks, each with `num_samples`."""
    return slice(rank() * num_samples, (rank() + 1) * num_samples)


def differentiable_sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of `value` over all ranks; its gradient is summed over the ranks likewise."""
    if world_size() == 1:
        return value
    return _SumOverRanks.apply(value)


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return sum_over_ranks(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_ranks(gradient)


@torch.no_grad()
def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of `value` over all ranks, as a new float tensor without gradient."""
    value = value if value.is_floating_point() else value.float()
    return sum_over_ranks(value) / world_size()


@torch.no_grad()
def gather_over_ranks(value: Tensor) -> Tensor:
    """Concatenate `value` (b, ...) of all ranks along dim 0, in rank order; no gradient.

    Every rank must hold the same shape. This is how the whole batch's teacher embeddings, labels
    and confidences (small, on the feature grid) reach the statistics of every rank.
    """
    if world_size() == 1:
        return value.detach()
    parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in _ranks()]
    dist.all_gather(parts, value.detach().contiguous())
    return torch.cat(parts)


def gather_shares(rows: Tensor, total: int) -> Tensor:
    """Rows of all samples in their order, where this rank has those of every world-size-th one.

    Args:
        rows: (n, ...) of the samples rank, rank + world size, …
        total: how many samples there are; the ranks' numbers may differ by one.
    Returns:
        (total, ...) on every rank.
    """
    share = -(-total // world_size())
    padded = rows.new_zeros(share, *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = gather_over_ranks(padded).unflatten(0, (world_size(), share))
    return gathered.transpose(0, 1).flatten(0, 1)[:total]


class ClassSums(nn.Module):
    """State of a pass or a hook that follows sums by class of the whole mini-batch.

    Values of micro-steps are added up, and summed over the ranks once in an optimizer step: neither
    changes the result. What becomes of a step's sums are buffers of the classes below, saved with a
    checkpoint and resumed exactly.

    Args:
        num_classes: C.
        channels: D, of a value.
    """

    _pending: Tensor

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        pending = torch.zeros(num_classes, channels + 1)  # sums, and counts in the last column
        self.register_buffer("_pending", pending, persistent=False)

    @torch.no_grad()
    def update_(self, values: Tensor, labels: Tensor, *, last: bool) -> None:
        """Take in a micro-step's values of this rank; every rank calls it alike.

        Args:
            values: (N, D).
            labels: (N,) int64; ids outside [0, C) are left out.
            last: whether it is the iteration's last micro-step: `step.is_last_micro_step`.
        """
        members = labels == torch.arange(len(self._pending), device=labels.device)[:, None]
        rows = values.to(self._pending.dtype).where(members.any(dim=0)[:, None], 0)
        # A product is summed in order, and on a CPU eight times as fast as `index_add_`.
        with torch.autocast(device_type=rows.device.type, enabled=False):
            self._pending[:, :-1] += members.to(rows.dtype) @ rows
        self._pending[:, -1] += members.sum(dim=1)
        if last:
            self._take_(*sum_over_ranks(self._pending).split([rows.shape[1], 1], dim=1))
            self._pending.zero_()

    def _take_(self, sums: Tensor, counts: Tensor) -> None:
        """Take in an iteration's (C, D) sums and (C, 1) counts."""
        raise NotImplementedError


class RunningClassMeans(ClassSums):
    """Moving means by class, such as prototypes.

    m_c ← momentum · m_c + (1 - momentum) · mean of the step's values of class c. A class begins
    with its first mean, and one without values stays as it is.

    Args:
        num_classes: C.
        channels: D, of a value.
        momentum: weight of the old mean.
    """

    means: Tensor
    known: Tensor

    def __init__(self, num_classes: int, channels: int, momentum: float) -> None:
        super().__init__(num_classes, channels)
        self.momentum = momentum
        self.register_buffer("means", torch.zeros(num_classes, channels))  # (C, D)
        self.register_buffer("known", torch.zeros(num_classes, dtype=torch.bool))

    def _take_(self, sums: Tensor, counts: Tensor) -> None:
        seen = counts > 0
        new = torch.where(
            self.known[:, None], self.means.lerp(sums / counts, 1 - self.momentum), sums / counts
        )
        self.means.copy_(torch.where(seen, new, self.means))
        self.known.logical_or_(seen[:, 0])


class CumulativeClassMeans(ClassSums):
    """Means by class of all values of all steps so far; nothing is forgotten.

    Args:
        num_classes: C.
        channels: D, of a value.
    """

    means: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__(num_classes, channels)
        self.register_buffer("means", torch.zeros(num_classes, channels))  # (C, D)
        self.register_buffer("counts", torch.zeros(num_classes, 1, dtype=torch.float64))

    @property
    def known(self) -> Tensor:
        """(C,) bool: classes that have had a value."""
        return self.counts[:, 0] > 0

    def _take_(self, sums: Tensor, counts: Tensor) -> None:
        self.counts += counts
        share = (counts / self.counts.clamp(min=1)).to(self.means.dtype)
        self.means.lerp_(sums / counts.clamp(min=1), share)


@torch.no_grad()
def broadcast_from_main_(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    if world_size() == 1:
        return
    for tensor in [*module.parameters(), *module.buffers()]:
        dist.broadcast(tensor.detach(), src=0)


@torch.no_grad()
def average_gradients_(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the ranks, in flat buckets.

    A gradient missing on one rank counts as zero; one missing on all ranks stays missing, so that
    the optimizer passes its parameter over just as it would in a single process.
    """
    if world_size() == 1:
        return
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    present = torch.tensor([float(p.grad is not None) for p in trainable])
    present = sum_over_ranks(present.to(trainable[0].device)) > 0
    used = [p for p, has_gradient in zip(trainable, present.tolist(), strict=True) if has_gradient]
    for bucket in _buckets(used):
        _average_bucket_(bucket)


def _average_bucket_(bucket: list[nn.Parameter]) -> None:
    for parameter in bucket:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [p.grad for p in bucket if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Runs of parameters of one dtype, about BUCKET_ELEMENTS each; the same on every rank."""
    bucket: list[nn.Parameter] = []
    elements = 0
    for parameter in parameters:
        full = elements + parameter.numel() > BUCKET_ELEMENTS
        if bucket and (full or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, elements = [], 0
        bucket.append(parameter)
        elements += parameter.numel()
    if bucket:
        yield bucket


def _ranks() -> range:
    return range(world_size())
