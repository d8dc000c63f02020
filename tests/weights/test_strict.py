"""Loading reports every tensor that has no place, and changes nothing then."""

import pytest
import torch
from torch import Tensor, nn

from t2sda.weights.strict import load_strict


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def full_state() -> dict[str, Tensor]:
    return {name: torch.full_like(value, 7) for name, value in network().state_dict().items()}


def test_every_tensor_arrives() -> None:
    module = network()
    report = load_strict(module, full_state(), "file.pth")
    assert len(report.loaded) == 7
    assert all((value == 7).all() for value in module.state_dict().values())


def test_missing_unknown_and_misshaped_are_reported_together_and_nothing_is_loaded() -> None:
    module, state = network(), full_state()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    del state["1.weight"], state["1.bias"]
    state |= {"0.weight": torch.ones(8, 3, 1, 1), "extra.a": torch.ones(1)}
    with pytest.raises(ValueError, match=r"file\.pth") as caught:
        load_strict(module, state, "file.pth")
    message = str(caught.value)
    assert "2 missing in the file (first 1.weight, 1.bias)" in message
    assert "1 unknown to the network (first extra.a)" in message
    assert "1 of another shape (first 0.weight (8, 3, 1, 1) for (4, 3, 1, 1))" in message
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_droppable_tensors_may_be_left_over_and_are_named() -> None:
    state = full_state() | {"classifier.weight": torch.ones(1)}
    report = load_strict(network(), state, "file.pth", droppable={"classifier.weight", "other"})
    assert report.dropped == ("classifier.weight",)


def test_step_counters_of_batch_norm_may_be_missing_or_left_over() -> None:
    state = full_state()
    del state["1.num_batches_tracked"]
    state["old.num_batches_tracked"] = torch.tensor(3)
    assert load_strict(network(), state, "file.pth").dropped == ()
