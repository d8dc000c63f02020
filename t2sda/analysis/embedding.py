"""Features of several networks in the plane: t-SNE of some pixels of every class, as in Fig. S1."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from t2sda.errors import UserError
from t2sda.losses.numerics import l2_normalize
from t2sda.structures import RandomStreams

PERPLEXITY = 30
PRINCIPAL_COMPONENTS = 50


class ClassSample:
    """A uniform sample of the features of every class: at most `per_class` of each are kept.

    Every feature draws a number that follows from the seed and the image's index, and those with
    the smallest stay. So networks with one grid are shown by the same pixels, in whatever order
    images come.

    Args:
        num_classes: C.
        channels: D.
        per_class: how many features of a class stay.
        seed: of the drawing.
    """

    def __init__(self, num_classes: int, channels: int, per_class: int, seed: int) -> None:
        self.num_classes = num_classes
        self.per_class = per_class
        self.seed = seed
        self.features = torch.zeros(0, channels)
        self.labels = torch.zeros(0, dtype=torch.int64)
        self._keys = torch.zeros(0, dtype=torch.float64)

    def add(self, features: Tensor, labels: Tensor, index: int) -> None:
        """Offer the features of an image; see `ClassSums.add`.

        Args:
            features: (N, D).
            labels: (N,).
            index: of the image within its set.
        """
        generator = RandomStreams(self.seed, index, 0).generator("embedding")
        keys = torch.rand(len(labels), generator=generator, dtype=torch.float64)
        counted = labels < self.num_classes
        features = torch.cat([self.features, features[counted].float()])
        labels = torch.cat([self.labels, labels[counted].long()])
        keys = torch.cat([self._keys, keys[counted]])
        kept = _smallest_of_each_class(keys, labels, self.per_class)
        self.features, self.labels, self._keys = features[kept], labels[kept], keys[kept]


def _smallest_of_each_class(keys: Tensor, labels: Tensor, per_class: int) -> Tensor:
    """Rows, by class and then by key, of the `per_class` smallest keys of every class."""
    order = keys.argsort()
    order = order[labels[order].argsort(stable=True)]
    counts = torch.bincount(labels)
    first = (counts.cumsum(0) - counts)[labels[order]]
    return order[torch.arange(len(order)) - first < per_class]


def check_can_embed() -> None:
    """Raise UserError where the library is missing: before minutes of work."""
    if importlib.util.find_spec("sklearn") is None:
        raise UserError(
            "t-SNE needs scikit-learn, which is not installed here: pip install 't2sda[analysis]'"
        )


def embed(samples: Sequence[Tensor], seed: int) -> list[np.ndarray]:
    """One t-SNE embedding of all samples together, so that their panels can be compared.

    Features are scaled to length 1, as the pull loss compares them, Eq. (6), and reduced to their
    first principal components.

    Args:
        samples: (N_i, D) features of a network in a domain each.
        seed: of the optimisation.
    Returns:
        (N_i, 2) positions of each.
    Raises:
        UserError: if there are fewer than five features in all.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    joint = l2_normalize(torch.cat(list(samples)).double()).numpy()
    if len(joint) < 5:
        raise UserError(
            f"{len(joint)} labelled feature cells in all are too few for t-SNE; analyze more "
            f"images, or leave embedding out of --parts"
        )
    components = min(PRINCIPAL_COMPONENTS, *joint.shape)
    reduced = PCA(components, random_state=seed).fit_transform(joint)
    perplexity = min(PERPLEXITY, (len(joint) - 1) / 3)
    positions = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return np.split(positions, np.cumsum([len(sample) for sample in samples])[:-1])
