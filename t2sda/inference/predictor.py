"""From a picture of any size to its labels, through a segmentation model in PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from t2sda.data.transforms import Resize, resize_image
from t2sda.modeling.segmentor import SegmentationModel


class Predictor:
    """Segments one picture at a time, whole.

    Args:
        model: in evaluation mode while it predicts; its mode is restored afterwards.
        resize: what the network sees; logits come back at the picture's own size.
        device: where the model is.
    """

    def __init__(self, model: SegmentationModel, resize: Resize, device: torch.device) -> None:
        self.model = model
        self.resize = resize
        self.device = device

    @torch.inference_mode()
    def logits(self, image: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 RGB -> (C, H, W) float32 on the model's device.

        The picture is resized to fit the bound, and the logits bilinearly back, so that scores are
        taken at the label's resolution, as in the DAFormer family.
        """
        size = image.shape[:2]
        resized = resize_image(image, self.resize.size_for(size))
        batch = torch.from_numpy(resized.transpose(2, 0, 1).copy())[None].to(self.device)
        was_training = self.model.training
        self.model.eval()
        try:
            logits = self.model(batch)
        finally:
            self.model.train(was_training)
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        return logits[0]

    def predict(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (H, W) uint8 train ids."""
        return self.logits(image).argmax(dim=0).to(torch.uint8).cpu().numpy()
