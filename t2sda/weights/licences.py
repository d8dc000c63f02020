"""Terms that come with published weights, said once where they are loaded."""

from __future__ import annotations

import logging
from functools import cache

from t2sda.distributed import is_main

logger = logging.getLogger(__name__)

MIT = (
    "NVIDIA publishes its Mix Transformer (SegFormer) weights for non-commercial use only: "
    "research or evaluation; see LICENSE in github.com/NVlabs/SegFormer"
)
DINOV3 = (
    "DINOv3 weights come under Meta's DINOv3 License, which binds whoever passes on the weights or "
    "a model trained from them; see ai.meta.com/resources/models-and-libraries/dinov3-license"
)

ADAPTSEGNET = (
    "AdaptSegNet's code and weights are for non-commercial use only; of weights of others that "
    "have its layout (DACS, ADVENT) ask their authors"
)


def note_of_timm(timm_name: str) -> None:
    """Log the terms of a network's weights in timm, where they are not just a permissive licence.

    DINOv3 is there as transformers and as ConvNeXt.
    """
    if "dinov3" in timm_name:
        note(DINOV3)


@cache
def note(text: str) -> None:
    """Log the terms, once a process and on the first rank only."""
    if is_main():
        logger.warning("licence of these weights: %s", text)
