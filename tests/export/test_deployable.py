"""The network as it is shipped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from t2sda.export.deployable import Deployable
from t2sda.runtime.checkpoints import model_of_checkpoint, open_checkpoint
from tests.deployed import shared_checkpoint, street


@torch.inference_mode()
def test_it_is_the_model_between_other_layouts(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = model_of_checkpoint(open_checkpoint(shared_checkpoint(tmp_path_factory)))
    images = np.stack([street((67, 101), index) for index in range(2)])
    expected = model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))

    images = torch.from_numpy(images)
    logits = Deployable(model, "logits")(images)
    labels = Deployable(model, "labels")(images)

    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)  # other memory order
    assert labels.dtype == torch.uint8
    assert torch.equal(labels, logits.argmax(dim=1).to(torch.uint8))
