"""IoU per class as the paper prints it, Tables 1, 2 and S11: rows that a shipped file trains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from t2sda.config import load_config
from t2sda.config.schema import flat_items
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.report.read import plain

DECIDING = (
    *("META_ARCH.NAME", "META_ARCH.PASSES", "TRANSLATION.NAME", "HOOKS.NAMES"),
    *("MODEL.NAME", "MODEL.HEAD.NAME", "MODEL.BACKBONE.NAME", "MODEL.BACKBONE.VARIANT"),
    "MODEL.BACKBONE.DEPTH",
    *("DATASETS.SOURCE", "DATASETS.TARGET", "RARE_CLASSES.ENABLED", "FEATURE_DISTANCE.WEIGHT"),
)
"""A row fits a run whose values of these settings are those of the row's file."""

_GTA5 = CITYSCAPES_19.class_names
_SYNTHIA = tuple(name for name in _GTA5 if name not in ("terrain", "truck", "train"))
# Configuration, the paper's name, IoU in % in the order of the classes, then the printed mean.
_TABLE_1 = """
source_only_deeplabv2_r101|source only†|70.2 14.6 71.3 24.1 15.3 25.5 32.1 13.5 82.9 25.1 78.0 56.2 33.3 76.3 26.6 29.8 12.3 28.5 18.0|38.6
fda_deeplabv2_r101|FDA|92.5 53.3 82.4 26.5 27.6 36.4 40.6 38.9 82.3 39.8 78.0 62.6 34.4 84.9 34.1 53.1 16.9 27.7 46.4|50.5
t2sda_deeplabv2_r101|T2S-DA|96.2 73.4 88.6 45.1 37.4 40.7 54.0 55.5 88.9 48.6 88.2 72.2 45.0 89.6 53.8 56.2 1.3 53.0 59.6|60.4
source_only_daformer_mit_b5|source only†|76.1 18.7 84.6 29.8 31.4 34.5 44.8 23.4 87.5 42.6 87.3 63.4 21.2 81.1 39.3 44.6 2.9 33.2 29.7|46.1
daformer_daformer_mit_b5|DAFormer|95.7 70.2 89.4 53.5 48.1 49.6 55.8 59.4 89.9 47.9 92.5 72.2 44.7 92.3 74.5 78.2 65.1 55.9 61.8|68.3
t2sda_daformer_mit_b5|T2S-DA|95.9 71.1 89.9 54.5 46.6 52.4 61.6 61.0 90.3 49.8 92.5 74.6 46.3 93.2 75.8 76.3 72.4 58.9 66.8|70.0
daformer_hrda_mit_b5|HRDA|96.4 74.4 91.0 61.6 51.5 57.1 63.9 69.3 91.3 48.4 94.2 79.0 52.9 93.9 84.1 85.7 75.9 63.9 67.5|73.8
t2sda_hrda_mit_b5|T2S-DA with HRDA|96.8 76.2 90.8 67.3 56.1 59.7 64.3 68.9 90.7 53.0 92.5 78.3 56.1 93.7 81.8 86.3 76.2 67.3 70.1|75.1
"""  # noqa: E501
_TABLE_2 = """
source_only_deeplabv2_r101|source only†|55.6 23.8 74.6 9.2 0.2 24.4 6.1 12.1 74.8 79.0 55.3 19.1 39.6 23.3 13.7 25.0|33.5
fda_deeplabv2_r101|FDA|79.3 35.0 73.2 - - - 19.9 24.0 61.7 82.6 61.4 31.1 83.9 40.8 38.4 51.1|-
t2sda_deeplabv2_r101|T2S-DA|81.2 38.3 86.0 26.5 1.8 43.8 48.0 54.6 85.2 86.6 73.0 40.8 87.5 52.8 52.2 62.6|57.6
source_only_daformer_mit_b5|source only†|56.5 23.3 81.3 16.0 1.3 41.0 30.0 24.1 82.4 82.5 62.3 23.8 77.7 38.1 15.0 23.7|42.4
daformer_daformer_mit_b5|DAFormer|84.5 40.7 88.4 41.5 6.5 50.0 55.0 54.6 86.0 89.8 73.2 48.2 87.2 53.2 53.9 61.7|60.9
t2sda_daformer_mit_b5|T2S-DA|87.6 46.0 88.8 43.7 6.4 53.3 59.1 54.8 87.5 91.1 75.7 47.6 88.2 58.0 54.9 62.4|62.8
daformer_hrda_mit_b5|HRDA|85.2 47.7 88.8 49.5 4.8 57.2 65.7 60.9 85.3 92.9 79.4 52.8 89.0 64.7 63.9 64.9|65.8
t2sda_hrda_mit_b5|T2S-DA with HRDA|85.7 50.3 88.5 50.1 9.7 61.7 67.1 62.3 84.7 93.0 77.9 56.1 89.3 68.2 65.7 70.3|67.5
"""  # noqa: E501
_TABLE_S11 = """
source_only_daformer_mit_b5|source only|97.6 89.7 91.8 72.4 58.9 66.2 66.6 68.1 86.1 76.1 96.6 79.8 70.0 92.7 90.8 94.4 87.5 73.7 53.9|79.6
daformer_daformer_mit_b5|DAFormer|97.2 87.9 91.2 68.9 55.9 65.7 67.5 71.5 85.9 74.7 96.6 79.9 75.6 92.4 89.9 93.9 92.7 80.3 64.9|80.7
t2sda_daformer_mit_b5|T2S-DA|97.2 88.1 91.3 69.2 57.0 66.6 68.2 71.4 86.0 74.8 96.6 79.7 76.0 92.4 90.2 94.7 91.2 80.4 64.7|80.9
"""  # noqa: E501


@dataclass(frozen=True)
class PaperRow:
    """A row of Table 1, 2 or S11.

    Attributes:
        config: the shipped file that trains it.
        dataset: that it was scored on.
        method: as the paper calls it; † was reproduced by its authors.
        iou: by class, in percent; what the paper leaves out is not in it.
        mean_iou: as printed, in percent; NaN where the paper prints none.
    """

    config: str
    dataset: str
    method: str
    iou: Mapping[str, float]
    mean_iou: float

    @property
    def title(self) -> str:
        """The method, and over how many classes the mean is where it is not all of them."""
        few = len(self.iou) < CITYSCAPES_19.num_classes
        return f"{self.method}, {len(self.iou)} classes" if few else self.method


def paper_rows() -> list[PaperRow]:
    """All rows that a shipped file trains."""
    return [
        *_rows(_TABLE_1, "gta5_to_cityscapes", "cityscapes_val", _GTA5),
        *_rows(_TABLE_2, "synthia_to_cityscapes", "cityscapes_val", _SYNTHIA),
        *_rows(_TABLE_S11, "gta5_to_cityscapes", "gta5_train", _GTA5),
    ]


def paper_row(settings: Mapping[str, Any], dataset: str) -> PaperRow | None:
    """The row of the method, network and datasets that a run's settings name, if there is one.

    Args:
        settings: of the run, by dotted keys.
        dataset: that it was scored on.
    """
    rows = [row for row in paper_rows() if row.dataset == dataset]
    return next((row for row in rows if _fits(settings, row)), None)


def _fits(settings: Mapping[str, Any], row: PaperRow) -> bool:
    due = dict(flat_items(load_config(row.config)))
    return all(settings.get(key) == plain(due.get(key)) for key in DECIDING)


def _rows(table: str, folder: str, dataset: str, classes: tuple[str, ...]) -> list[PaperRow]:
    rows = []
    for line in table.strip().splitlines():
        config, method, cells, mean = line.split("|")
        by_class = zip(classes, cells.split(), strict=True)
        iou = {name: float(cell) for name, cell in by_class if cell != "-"}
        mean_iou = math.nan if mean == "-" else float(mean)
        rows.append(PaperRow(f"{folder}/{config}.yaml", dataset, method, iou, mean_iou))
    return rows
