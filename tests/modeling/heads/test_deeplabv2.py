"""DeepLabV2's head by hand."""

import numpy as np
import pytest
import torch

from t2sda.config import ConfigError, load_config
from t2sda.modeling.heads.deeplabv2 import DeepLabV2Head
from t2sda.structures import FeatureSpec


@torch.no_grad()
def test_logits_are_the_sum_of_dilated_neighbourhoods() -> None:
    head = DeepLabV2Head((FeatureSpec(3, 4), FeatureSpec(2, 8)), num_classes=2, dilations=(1, 3))
    coarse = torch.randn(1, 2, 7, 9)
    found = head((torch.randn(1, 3, 14, 18), coarse))
    expected = np.zeros((2, 7, 9))
    for branch, dilation in zip(head.aspp_modules, (1, 3), strict=True):
        weight, bias = branch.conv.weight.numpy(), branch.conv.bias.numpy()
        for y, x in np.ndindex(7, 9):
            expected[:, y, x] += bias
            for i, j in np.ndindex(3, 3):
                row, column = y + dilation * (i - 1), x + dilation * (j - 1)
                if 0 <= row < 7 and 0 <= column < 9:
                    expected[:, y, x] += weight[:, :, i, j] @ coarse[0, :, row, column].numpy()
    torch.testing.assert_close(found[0].numpy(), expected.astype(np.float32), atol=1e-6, rtol=0)


def test_settings_of_other_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match="MODEL.HEAD.DROPOUT.*as all but DeepLabV2Head"):
        load_config(None, ["MODEL.HEAD.NAME", "DeepLabV2Head", "MODEL.HEAD.DROPOUT", "0.2"])
    with pytest.raises(ConfigError, match="MODEL.HEAD.DILATIONS.*is DeepLabV2Head"):
        load_config(None, ["MODEL.HEAD.NAME", "LightHead", "MODEL.HEAD.DILATIONS", "[6]"])
