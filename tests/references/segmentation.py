"""Eq. (1), (S1) and (S2), pixel by pixel in float64, from the paper alone."""

import math

import numpy as np

IGNORED = 255


def cross_entropy(logits, labels, pixel_weight):
    """Sum of weight * -log softmax(logits)[label] over labelled pixels, by the number of pixels."""
    images, classes, height, width = logits.shape
    total = 0.0
    for i in range(images):
        for y in range(height):
            for x in range(width):
                label = int(labels[i, y, x])
                if label == IGNORED:
                    continue
                exponentials = [math.exp(logits[i, c, y, x]) for c in range(classes)]
                probability = exponentials[label] / sum(exponentials)
                total += float(pixel_weight[i, y, x]) * -math.log(probability)
    return total / (images * height * width)


def pseudo_label_quality(confidence, threshold):
    """Share of pixels that reach the threshold."""
    reached = [float(value) >= threshold for value in np.ravel(confidence)]
    return sum(reached) / len(reached)


def quality_of_images(confidence, threshold):
    """q_i of Eq. (S2), one for each image."""
    return [pseudo_label_quality(image, threshold) for image in confidence]


def target_loss(logits, labels, pasted, pseudo_labels, quality, valid):
    """Eq. (S1) on the mixed image, by the number of pixels.

    Args:
        logits: (B, C, H, W) of the student on the mixed image.
        labels: (B, H, W) of the source, taken where `pasted`.
        pseudo_labels: (B, H, W), taken elsewhere, with weight q where `valid`.
    """
    mixed = np.where(pasted, labels, pseudo_labels)
    weight = np.where(pasted, 1.0, quality * np.asarray(valid, dtype=np.float64))
    return cross_entropy(logits, mixed, weight)
