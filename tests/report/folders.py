"""Folders of runs as a training leaves them, without a training; counts are given by hand."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from t2sda.config import dump_config, load_config
from t2sda.evaluation.entries import (
    FILE_NAME,
    ClassScores,
    Entry,
    ImageCounts,
    Protocol,
    Scores,
    write_entries,
)

CLASSES = ("quay", "water", "ship")
TINY = {"DATASETS.SOURCE": "streets_clear_train", "SOLVER.MAX_ITER": 60}


def scores_of(
    matrices: Mapping[str, Sequence[Sequence[int]]],
    dataset: str = "harbour_val",
    classes: Sequence[str] = CLASSES,
) -> Scores:
    """Scores of images by name, each with its (C, C) matrix; worked out anew, not by t2sda."""
    images = {name: np.array(matrix) for name, matrix in matrices.items()}
    total = sum(images.values(), np.zeros((len(classes), len(classes)), dtype=int))
    right = total.diagonal()
    with np.errstate(invalid="ignore"):
        iou = right / (total.sum(axis=0) + total.sum(axis=1) - right)
        accuracy = right / total.sum(axis=1)
        of_all = float(right.sum() / total.sum()) if total.any() else math.nan
    return Scores(
        dataset=dataset,
        num_images=len(images),
        protocol=Protocol(),
        classes=tuple(classes),
        confusion=tuple(tuple(row) for row in total.tolist()),
        iou=dict(zip(classes, iou.tolist(), strict=True)),
        class_accuracy=dict(zip(classes, accuracy.tolist(), strict=True)),
        accuracy=of_all,
        mean_iou=float(np.nanmean(iou)) if total.any() else math.nan,
        images=tuple(
            ImageCounts(
                name,
                *(tuple(c.tolist()) for c in (m.sum(axis=1), m.sum(axis=0), m.diagonal())),
            )
            for name, m in images.items()
        ),
    )


def grouped(
    matrices: Mapping[str, Sequence[Sequence[int]]], groups: Mapping[str, tuple[int, ...]]
) -> Scores:
    """Scores that are reported by groups of classes; worked out anew as well."""
    scores = scores_of(matrices)
    onto = np.array([[k in members for k in range(len(CLASSES))] for members in groups.values()])
    merged = {name: onto @ np.array(matrix) @ onto.T for name, matrix in matrices.items()}
    coarse = scores_of(merged, classes=tuple(groups))
    return dataclasses.replace(
        scores,
        groups=ClassScores(coarse.iou, coarse.mean_iou),
        group_classes=dict(groups),
        images=tuple(
            dataclasses.replace(fine, group_right=own.right)
            for fine, own in zip(scores.images, coarse.images, strict=True)
        ),
    )


def entry_of(scores: Scores, **changes: Any) -> Entry:
    """An entry of a student's checkpoint."""
    fields = {
        "model": "checkpoint_0000060.pth",
        "digest": "sha256:0",
        "iteration": 60,
        "branch": "student",
        "runtime": "torch",
        "date": "2026-01-01T00:00:00+00:00",
    }
    return Entry(**{**fields, **changes}, scores=scores)


def make_run(
    folder: Path,
    entries: Sequence[Entry] = (),
    metrics: Sequence[Mapping[str, float | None]] = (),
    **settings: Any,
) -> Path:
    """The folder of a run; settings are KEY__SUBKEY=value."""
    folder.mkdir(parents=True)
    overrides = {key.replace("__", "."): value for key, value in settings.items()}
    cfg = load_config(None, {**TINY, "OUTPUT_DIR": str(folder), **overrides})
    (folder / "config.yaml").write_text(dump_config(cfg))
    lines = [json.dumps(line) + "\n" for line in metrics]
    (folder / "metrics.jsonl").write_text("".join(lines))
    if entries:
        write_entries(folder / FILE_NAME, entries)
    return folder


def logged(iteration: int, dataset: str = "harbour_val", **iou: float) -> dict[str, float]:
    """A line of metrics with scores."""
    prefix = f"evaluation/{dataset}"
    by_class = {f"{prefix}/IoU/{name}": value for name, value in iou.items()}
    return {"iteration": iteration, f"{prefix}/mIoU": sum(iou.values()) / len(iou), **by_class}


def pixels(uri: str) -> np.ndarray:
    """(H, W, 4) uint8 of a data URI."""
    kind, content = uri.split(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return np.array(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGBA"))
