"""Eq. (12) and (13), in loops and float64, from the paper alone."""

import numpy as np


def class_confidence(confidence, pseudo_labels, num_classes):
    """Eq. (13); 0 for a class that is never predicted."""
    result = np.zeros(num_classes)
    for c in range(num_classes):
        values = [
            float(value)
            for value, label in zip(np.ravel(confidence), np.ravel(pseudo_labels), strict=True)
            if label == c
        ]
        result[c] = sum(values) / len(values) if values else 0.0
    return result


def dynamic_class_weights(confidence_of_class, exponent, classes=None):
    """Eq. (12) and the normalisation above it, over `classes` (of all where there is none)."""
    ids = range(len(confidence_of_class))
    inside = [c for c in ids if classes is None or c in classes] or list(ids)
    gaps = {c: 1.0 - float(confidence_of_class[c]) for c in inside}
    weights = {c: (gap / max(gaps.values())) ** exponent for c, gap in gaps.items()}
    return np.array([weights.get(c, 0.0) / sum(weights.values()) for c in ids])
