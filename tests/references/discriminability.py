"""Eq. (14), (15) and the centroids of Fig. 2 by loops over pixels, in float64, from the paper."""

from __future__ import annotations

import numpy as np


def members(features: np.ndarray, labels: np.ndarray, num_classes: int) -> list[list[np.ndarray]]:
    """The features of every class."""
    found: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
    for feature, label in zip(features.astype(np.float64), labels, strict=True):
        if label < num_classes:
            found[label].append(feature)
    return found


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two vectors."""
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def center_distance(of_class: list[list[np.ndarray]], i: int) -> float:
    """Eq. (14), over the classes that are there."""
    centers = {c: np.mean(own, axis=0) for c, own in enumerate(of_class) if own}
    if i not in centers:
        return float("nan")
    compactness = np.mean([(x - centers[i]) @ (x - centers[i]) for x in of_class[i]])
    others = [j for j in centers if j != i]
    between = [(centers[i] - centers[j]) @ (centers[i] - centers[j]) for j in others]
    return float(sum(compactness / distance for distance in between) / len(others))


def pixel_distance(of_class: list[list[np.ndarray]], i: int) -> float:
    """Eq. (15), over the classes that are there."""
    centers = {c: np.mean(own, axis=0) for c, own in enumerate(of_class) if own}
    if i not in centers:
        return float("nan")
    ratios = []
    for x in of_class[i]:
        others = sum(cosine(x, centers[j]) for j in centers if j != i)
        ratios.append(cosine(x, centers[i]) / others)
    return float(1 - np.mean(ratios))
