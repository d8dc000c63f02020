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


def positive_key(embeddings, labels, c, prototype_norm="after"):
    """k+ of Eq. (5), (6) ("after"), or of Algorithm 1 ("before"); "both" normalises twice."""
    members = [
        vector if prototype_norm == "after" else norm(vector)
        for vector, label in zip(positions(embeddings), np.ravel(labels), strict=True)
        if label == c
    ]
    mean = sum(members) / len(members)
    return mean if prototype_norm == "before" else norm(mean)


def num_queries(labels, num_classes, base, strategy="cbqs"):
    """n_q(c): ceil(C * p(c) * n) with p of Eq. (11), without rounding errors ("cbqs"); n of every
    class that is there ("ceqs"); C * n of all positions alike, in expectation ("uniform").
    """
    counts = [int((np.asarray(labels) == c).sum()) for c in range(num_classes)]
    if strategy == "ceqs":
        return [base if count else 0 for count in counts]
    shares = [num_classes * Fraction(count, max(sum(counts), 1)) * base for count in counts]
    return [math.ceil(share) for share in shares] if strategy == "cbqs" else shares


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


def on_grid(values, grid):
    """Nearest neighbour: row i of the grid is row floor(i * H / h)."""
    (height, width), (rows, columns) = values.shape[1:], grid
    return np.array(
        [
            [
                [image[y * height // rows][x * width // columns] for x in range(columns)]
                for y in range(rows)
            ]
            for image in values
        ]
    )


def unreliable_threshold(confidence, alpha):
    """Eq. (9)."""
    return np.percentile(np.ravel(confidence), 100 * alpha)


def weighted_negatives(c, source, target, num_negatives, strategy="domain_equalized"):
    """(key, how often) for all candidates of Eq. (7) and (8): m / 2 from each domain, m from the
    union of both, or m from the source alone.

    Args:
        source: (vector, label) of every source position.
        target: (vector, pseudo-label, confidence, threshold) of every target position.
    """
    from_source = [vector for vector, label in source if is_source_negative(label, c)]
    from_target = [vector for vector, *rest in target if is_target_negative(*rest, c)]
    half = num_negatives // 2
    if strategy == "source":
        shares = [(from_source, num_negatives)]
    elif strategy == "union":
        shares = [(from_source + from_target, num_negatives)]
    elif from_source and from_target:
        shares = [(from_source, half), (from_target, num_negatives - half)]
    else:
        shares = [(from_source or from_target, num_negatives)]
    return [(norm(key), share / len(keys)) for keys, share in shares if share for key in keys]


def exact_info_nce(query, positive, negatives, temperature):
    """Eq. (2) where a negative may count any number of times; the positive as it is."""
    numerator = math.exp(float(norm(query) @ positive) / temperature)
    others = sum(
        times * math.exp(float(norm(query) @ key) / temperature) for key, times in negatives
    )
    return -math.log(numerator / (numerator + others))


def exact_loss(queries, source, target, labels, class_weights, settings):
    """Eq. (2) to (8), (10), (11), with every position as a query and every candidate as a negative.

    Args:
        queries, source: (B, D, h, w) embeddings, with `labels` (B, h, w).
        target: (vector, pseudo-label, confidence, threshold) of every target position.
        settings: what `PullLoss` is built from, by name.
    """
    num_classes, total = len(class_weights), 0.0
    source_side = list(zip(positions(source), np.ravel(labels).tolist(), strict=True))
    wanted = num_queries(
        labels, num_classes, settings["queries_per_class"], settings["query_strategy"]
    )
    for c in range(num_classes):
        members = [
            query
            for query, label in zip(positions(queries), np.ravel(labels), strict=True)
            if label == c
        ]
        negatives = weighted_negatives(
            c, source_side, target, settings["num_negatives"], settings["negative_strategy"]
        )
        if not members or (settings["objective"] == "info_nce" and not negatives):
            continue
        positive = positive_key(source, labels, c, settings["prototype_norm"])
        if settings["objective"] == "mse":
            losses = [float(((norm(query) - positive) ** 2).sum()) for query in members]
        else:
            losses = [
                exact_info_nce(query, positive, negatives, settings["temperature"])
                for query in members
            ]
        scale = wanted[c] / num_classes if settings["reduction"] == "query_sum" else 1
        total += float(class_weights[c]) * float(scale) * sum(losses) / len(losses)
    return total


def exact_pull_loss(queries, source, target, labels, probs, class_weights, settings):
    """`exact_loss` from labels and the teacher's predictions on.

    Args:
        queries, source, target: (B, D, h, w) embeddings.
        labels: (B, H, W) of the source.
        probs: (B, C, H, W) of the teacher on the target.
        settings: as in `exact_loss`, and the unreliable_fraction.
    """
    grid = queries.shape[2:]
    confidence = on_grid(probs.max(axis=1), grid)
    pseudo_labels = on_grid(probs.argmax(axis=1), grid)
    threshold = unreliable_threshold(confidence, settings["unreliable_fraction"])
    target_side = [
        (vector, label, value, threshold)
        for vector, label, value in zip(
            positions(target), np.ravel(pseudo_labels), np.ravel(confidence), strict=True
        )
    ]
    return exact_loss(queries, source, target_side, on_grid(labels, grid), class_weights, settings)
