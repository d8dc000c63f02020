"""Eq. (2) to (11), in loops and float64, from the paper alone.

What is drawn at random (positions of queries and of negatives) is given by the caller.
"""

import math
from fractions import Fraction

import numpy as np

IGNORED = 255


def norm(vector):
    return vector / math.sqrt(sum(float(value) ** 2 for value in vector))


def positions(embeddings):
    """(B, D, h, w) -> list of D-vectors in the order of (B, h, w)."""
    images, _, height, width = embeddings.shape
    return [
        np.asarray(embeddings[i, :, y, x], dtype=np.float64)
        for i in range(images)
        for y in range(height)
        for x in range(width)
    ]


def class_prototype(embeddings, labels, c):
    """Eq. (5); None for an absent class."""
    members = [
        vector
        for vector, label in zip(positions(embeddings), np.ravel(labels), strict=True)
        if label == c
    ]
    return sum(members) / len(members) if members else None


def num_queries(labels, num_classes, base):
    """n_q(c) = ceil(C * p(c) * n) with p of Eq. (11), without rounding errors."""
    counts = [int((np.asarray(labels) == c).sum()) for c in range(num_classes)]
    labelled = max(sum(counts), 1)
    return [math.ceil(num_classes * Fraction(count, labelled) * base) for count in counts]


def info_nce(query, positive, negatives, temperature):
    """Eq. (2) for one query; the vectors are normalised here."""
    query, positive = norm(query), norm(positive)
    numerator = math.exp(float(query @ positive) / temperature)
    others = sum(math.exp(float(query @ norm(negative)) / temperature) for negative in negatives)
    return -math.log(numerator / (numerator + others))


def mse(query, positive):
    """The squared distance between the normalised pair."""
    return float(((norm(query) - norm(positive)) ** 2).sum())


def is_source_negative(label, c):
    """Eq. (7), without unlabelled pixels."""
    return label not in (c, IGNORED)


def is_target_negative(pseudo_label, confidence, threshold, c):
    """Eq. (8)."""
    return confidence < threshold and pseudo_label != c


def pull_loss(losses_of_class, class_weights, reduction):
    """Eq. (3) of the losses of every class's queries (a list for each class).

    "query_sum" is the equation as printed; "class_mean" is Algorithm 1, whose cross entropy is the
    mean over a class's queries.
    """
    total = 0.0
    for weight, losses in zip(class_weights, losses_of_class, strict=True):
        if not losses:
            continue
        if reduction == "query_sum":
            total += float(weight) * sum(losses) / len(class_weights)
        else:
            total += float(weight) * sum(losses) / len(losses)
    return total
