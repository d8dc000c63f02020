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


def dynamic_class_weights(confidence_of_class, exponent):
    """Eq. (12) and the normalisation above it."""
    gaps = [1.0 - float(value) for value in confidence_of_class]
    weights = [(gap / max(gaps)) ** exponent for gap in gaps]
    return np.array([weight / sum(weights) for weight in weights])
