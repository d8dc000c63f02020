"""HRDA's fusion, crops and windows, value by value in float64, from the paper alone."""

import numpy as np


def context_of(image):
    """(C, H, W) -> (C, H/2, W/2), the mean of 2x2 pixels."""
    channels, height, width = image.shape
    context = np.zeros((channels, height // 2, width // 2))
    for y in range(height // 2):
        for x in range(width // 2):
            context[:, y, x] = image[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean(axis=(1, 2))
    return context


def enlarged(maps, factor):
    """(C, h, w) -> (C, h * factor, w * factor), bilinear between the centers of the cells."""
    channels, height, width = maps.shape
    result = np.zeros((channels, height * factor, width * factor))
    for y in range(height * factor):
        for x in range(width * factor):
            row = min(max((y + 0.5) / factor - 0.5, 0), height - 1)
            column = min(max((x + 0.5) / factor - 0.5, 0), width - 1)
            top, left = int(row), int(column)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            down, across = row - top, column - left
            result[:, y, x] = (
                maps[:, top, left] * (1 - down) * (1 - across)
                + maps[:, top, right] * (1 - down) * across
                + maps[:, bottom, left] * down * (1 - across)
                + maps[:, bottom, right] * down * across
            )
    return result


def fused_in_box(context, detail, attention, box, stride):
    """(C, H, W) fused logits where details are known in a box alone.

    Args:
        context: (C, h, w) logits of the context, a cell for every 2 * stride pixels.
        detail: logits of the box, a cell for every stride pixels.
        attention: (C, h, w) in [0, 1], of the context.
        box: (top, left, height, width) in pixels.
        stride: of the heads.
    """
    top, left, height, width = box
    classes, rows, columns = context.shape
    masked = np.zeros_like(attention)
    for y in range(rows):
        for x in range(columns):
            in_rows = top <= 2 * stride * y < top + height
            if in_rows and left <= 2 * stride * x < left + width:
                masked[:, y, x] = attention[:, y, x]
    inserted = np.zeros((classes, 2 * rows, 2 * columns))
    for y in range(height // stride):
        for x in range(width // stride):
            inserted[:, top // stride + y, left // stride + x] = detail[:, y, x]
    return fused(context, inserted, masked, stride)


def fused(context, detail, attention, stride):
    """(C, H, W): the context is attenuated first, then enlarged."""
    attenuated = (1 - attention) * context
    on_fine_grid = enlarged(attention, 2) * detail + enlarged(attenuated, 2)
    return enlarged(on_fine_grid, stride)


def window_corners(size, window, step):
    """Upper left corners, row by row; the last window of a row ends at the border."""
    starts = []
    for side, part, by in zip(size, window, step, strict=True):
        found, start = [], 0
        while start + part < side:
            found.append(start)
            start += by
        starts.append([*found, side - part])
    return [(top, left) for top in starts[0] for left in starts[1]]


def averaged(windows, corners, size):
    """Windows (C, h, w) put at their corners -> (C, H, W), the mean where they overlap."""
    classes = windows[0].shape[0]
    result = np.zeros((classes, *size))
    for y in range(size[0]):
        for x in range(size[1]):
            seen = [
                window[:, y - top, x - left]
                for window, (top, left) in zip(windows, corners, strict=True)
                if 0 <= y - top < window.shape[1] and 0 <= x - left < window.shape[2]
            ]
            result[:, y, x] = np.mean(seen, axis=0)
    return result
