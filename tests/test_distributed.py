"""Collective operations on two real gloo processes, and as identities in one."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from t2sda import distributed as ours
from t2sda.errors import UserError, printable
from t2sda.modeling.normalization import share_statistics
from tests.distributed import on_two_ranks


def collectives(rank: int) -> dict[str, Any]:
    value = torch.tensor([1.0, 10.0]) * (rank + 1)
    return {
        "sum": ours.sum_over_ranks(value),
        "mean": ours.mean_over_ranks(torch.tensor(rank)),
        "any": ours.any_over_ranks(torch.tensor([rank == 1, False])),
        "gathered": ours.gather_over_ranks(torch.full((1, 2), rank)),
        "share": ours.own_share(3),
        "gradients": averaged_gradients(rank),
        "broadcast": broadcast_weight(rank),
        "class means": class_means(slice(6 * rank, 6 * rank + 6), micro_steps=2),
        "cumulative": cumulative_means(slice(6 * rank, 6 * rank + 6), micro_steps=2),
    }


def class_means(own: slice, micro_steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Means, and which are known, after each of two steps with 12 values on all ranks."""
    return followed(ours.RunningClassMeans(4, 3, momentum=0.75), own, micro_steps)


def cumulative_means(own: slice, micro_steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The same of `CumulativeClassMeans`."""
    return followed(ours.CumulativeClassMeans(4, 3), own, micro_steps)


def followed(
    running: ours.RunningClassMeans | ours.CumulativeClassMeans, own: slice, micro_steps: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for classes in (2, 4):  # class 2 is new in the second step, class 3 never there
        values = torch.randn(12, 3, generator=generator)
        labels = torch.randint(0, classes, (12,), generator=generator)
        labels[labels == 3] = 255
        parts = zip(values[own].chunk(micro_steps), labels[own].chunk(micro_steps), strict=True)
        for number, (some, their) in enumerate(parts, start=1):
            running.update_(some, their, last=number == micro_steps)
        found.append((running.means.clone(), running.known.clone()))
    return found


def test_running_class_means_by_hand() -> None:
    running = ours.RunningClassMeans(num_classes=3, channels=2, momentum=0.75)
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0], [5.0, 5.0]])
    running.update_(values, torch.tensor([0, 0, 255, -1]), last=True)
    assert running.means.tolist() == [[2, 3], [0, 0], [0, 0]]
    assert running.known.tolist() == [True, False, False]
    running.update_(values, torch.tensor([0, 255, 1, 255]), last=True)
    assert running.means.tolist() == [[1.75, 2.75], [9, 9], [0, 0]]
    assert running.state_dict().keys() == {"means", "known"}


def test_cumulative_class_means_are_those_of_all_values() -> None:
    generator = torch.Generator().manual_seed(0)
    running = ours.CumulativeClassMeans(num_classes=4, channels=3)
    values = 2 + torch.randn(20, 500, 3, generator=generator)
    labels = torch.randint(0, 3, (20, 500), generator=generator)
    labels[:, ::7] = 255
    labels[:10][labels[:10] == 2] = -1  # class 2 comes late, class 3 never
    for number, (some, their) in enumerate(zip(values, labels, strict=True)):
        running.update_(some, their, last=number % 2 == 1)
    assert running.known.tolist() == [True, True, True, False]
    for index in range(3):
        expected = values.double()[labels == index].mean(dim=0)
        # float32 sums of 500 values, then means of 10 steps
        torch.testing.assert_close(running.means[index].double(), expected, rtol=1e-6, atol=1e-6)
    assert running.state_dict().keys() == {"means", "counts"}


def averaged_gradients(rank: int) -> list[torch.Tensor | None]:
    """Three parameters: a gradient on both ranks, on rank 1 alone, on none."""
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.full((2,), 2.0 * rank)
    if rank == 1:
        parameters[1].grad = torch.ones(2)
    ours.average_gradients_(parameters)
    return [parameter.grad for parameter in parameters]


def broadcast_weight(rank: int) -> torch.Tensor:
    module = nn.Linear(1, 1)
    nn.init.constant_(module.weight, 7.0 + rank)
    ours.broadcast_from_main_(module)
    return module.weight.detach()


def test_two_ranks(tmp_path: Path) -> None:
    for rank, found in enumerate(on_two_ranks(collectives, tmp_path)):
        assert found["sum"].tolist() == [3, 30]
        assert found["mean"] == 0.5
        assert found["any"].tolist() == [True, False]
        assert found["gathered"].tolist() == [[0, 0], [1, 1]]
        assert found["share"] == slice(3 * rank, 3 * rank + 3)
        both, one, none = found["gradients"]
        assert both.tolist() == [1, 1]
        assert one.tolist() == [0.5, 0.5]  # missing on rank 0 counts as zero
        assert none is None  # so that AdamW decays nothing that had no gradient anywhere
        assert found["broadcast"].item() == 7
        for name, means in (("class means", class_means), ("cumulative", cumulative_means)):
            whole = means(slice(12), micro_steps=1)
            for ours_, theirs in zip(found[name], whole, strict=True):
                torch.testing.assert_close(ours_[0], theirs[0])
                assert torch.equal(ours_[1], theirs[1])
            assert whole[1][1].tolist() == [True, True, True, False]


def test_many_small_buckets_average_like_one(monkeypatch: Any) -> None:
    parameters = [nn.Parameter(torch.zeros(n)) for n in (3, 5, 2, 9)]
    monkeypatch.setattr(ours, "BUCKET_ELEMENTS", 8)
    assert [len(bucket) for bucket in ours._buckets(parameters)] == [2, 1, 1]


def test_a_single_process_changes_nothing() -> None:
    value = torch.tensor([3.0])
    assert ours.sum_over_ranks(value).item() == 3
    assert ours.gather_over_ranks(value).item() == 3
    assert ours.differentiable_sum_over_ranks(value) is value
    parameter = nn.Parameter(torch.zeros(1))
    ours.average_gradients_([parameter])
    assert parameter.grad is None


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)
    ).double()


def whole_batch() -> torch.Tensor:
    return torch.randn(4, 3, 6, 7, generator=torch.Generator().manual_seed(5)).double()


def normalised_on_a_share(rank: int) -> dict[str, Any]:
    net = share_statistics(network())
    output = net(whole_batch()[ours.own_share(2)])
    output.pow(3).mean().backward()
    ours.average_gradients_(net.parameters())
    return {
        "output": output.detach(),
        "gradients": [parameter.grad for parameter in net.parameters()],
        "buffers": dict(net.named_buffers()),
    }


def test_batch_norm_over_two_ranks_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    ranks = on_two_ranks(normalised_on_a_share, tmp_path)
    net = network()
    output = net(whole_batch())
    output.pow(3).mean().backward()
    # float64: only the order of summation differs.
    torch.testing.assert_close(
        torch.cat([found["output"] for found in ranks]), output, rtol=0, atol=1e-12
    )
    for found in ranks:
        for own, expected in zip(found["gradients"], net.parameters(), strict=True):
            torch.testing.assert_close(own, expected.grad, rtol=0, atol=1e-12)
        for name, buffer in net.named_buffers():
            torch.testing.assert_close(found["buffers"][name], buffer, rtol=0, atol=1e-12)


def test_shared_batch_norm_keeps_keys_and_predictions() -> None:
    net = network()
    net(whole_batch())
    state, expected = net.state_dict(), net.eval()(whole_batch())
    shared = share_statistics(net)
    assert shared.state_dict().keys() == state.keys()
    torch.testing.assert_close(shared(whole_batch()), expected)


@pytest.fixture
def error_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torchrun looks for what ended a process; the processes are not really joined."""
    path = tmp_path / "error.json"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    monkeypatch.setattr(ours.dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(ours.dist, "destroy_process_group", lambda: None)
    return path


def failing(error: Exception) -> None:
    with ours.process_group(torch.device("cpu")):
        raise error


@pytest.mark.parametrize(
    "message",
    ["a.png: damaged; remove it", "iteration 3: not finite: loss=nan", "käse 'x' \x1b[31m"],
)
def test_the_report_of_torchrun_ends_with_the_message(error_file: Path, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        failing(UserError(message))
    failure = ProcessFailure(local_rank=1, pid=7, exitcode=2, error_file=str(error_file))
    assert abs(failure.timestamp - time.time()) < 60
    report = str(ChildFailedError("train_net.py", {1: failure}))
    last = report.rstrip().splitlines()[-2]
    assert last.strip() == f"traceback : {printable(message)}"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer"),  # it waited
        KeyError("a bug"),
        KeyboardInterrupt(),
    ],
)
def test_who_did_not_cause_it_or_prints_a_traceback_adds_nothing(
    error_file: Path, error: Exception
) -> None:
    with pytest.raises((UserError, KeyError, KeyboardInterrupt)):
        failing(error)
    assert not error_file.exists()


def test_a_report_that_cannot_be_written_does_not_hide_the_message(
    error_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(error_file / "nowhere/error.json"))
    with pytest.raises(UserError, match=r"a\.png: damaged"):
        failing(UserError("a.png: damaged"))
