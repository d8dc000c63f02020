"""Settings of the samples that `DomainPairs` gives: sizes, scales, windows, crops, margins."""

from __future__ import annotations

from fvcore.common.config import CfgNode

from t2sda.config import SCHEMA, Field, unpaired_sizes

SCHEMA.declare(
    "DATA",
    {
        "SOURCE_SIZE": Field(
            (),
            "bound (height, width) that source images are resized to fit, ratio kept; empty: "
            "as they are",
            unit="pixels",
            low=1,
            element=int,
        ),
        "SOURCE_SCALE_RANGE": Field(
            (1.0, 1.0),
            "random factor of the source's size after SOURCE_SIZE, drawn evenly for every sample",
            low=0.0,
            exclusive_low=True,
            length=2,
        ),
        "SOURCE_WINDOW": Field(
            (),
            "(height, width) of the window that is cut out of the resized source first: a "
            "translator works on all of it, then the crop is cut out of it; the same in all rows "
            "of a table, with a translator or without; empty: the whole image",
            unit="pixels",
            low=1,
            element=int,
        ),
        "CROP_SIZE": Field(
            (512, 512), "training crop (height, width)", unit="pixels", low=1, length=2
        ),
        "MAX_CLASS_SHARE": Field(
            0.75,
            "a source crop in which one class has a larger share is drawn anew, up to 10 times; "
            "a class_balanced target crop is one of those with a smaller share",
            low=0.0,
            high=1.0,
            exclusive_low=True,
        ),
    },
)
SCHEMA.declare(
    "DATA",
    {
        "TARGET_SIZE": Field(
            (),
            "bound (height, width) that target images are resized to fit, ratio kept; empty: "
            "as they are",
            unit="pixels",
            low=1,
            element=int,
        ),
        "TARGET_SCALE_RANGE": Field(
            (1.0, 1.0),
            "random factor of the target's size after TARGET_SIZE, drawn evenly for every sample",
            low=0.0,
            exclusive_low=True,
            length=2,
        ),
        "TARGET_CROP": Field(
            "random",
            "target crops as drawn; or class_balanced: of ten the one that most classes share most "
            "evenly, by labels of the target set such as `t2sda pseudo-label` makes",
            choices=("random", "class_balanced"),
        ),
        "TARGET_MARGINS": Field(
            (0, 0, 0, 0),
            "rows and columns (top, bottom, left, right) of the target image within TARGET_SIZE "
            "where pseudo-labels do not count: rectification borders, the ego car",
            unit="pixels",
            low=0,
            length=4,
        ),
    },
    when=lambda cfg: bool(cfg.DATASETS.TARGET),
    when_text="DATASETS.TARGET is set",
)


@SCHEMA.check
def sizes_are_pairs(cfg: CfgNode) -> list[str]:
    """Those that may be empty."""
    return unpaired_sizes(
        {
            "DATA.SOURCE_SIZE": cfg.DATA.SOURCE_SIZE,
            "DATA.SOURCE_WINDOW": cfg.DATA.SOURCE_WINDOW,
            "DATA.TARGET_SIZE": cfg.DATA.TARGET_SIZE,
        }
    )


@SCHEMA.check
def the_window_holds_a_crop(cfg: CfgNode) -> str | None:
    """The crop is cut out of the window."""
    window, crop = cfg.DATA.SOURCE_WINDOW, cfg.DATA.CROP_SIZE
    if len(window) != 2 or (window[0] >= crop[0] and window[1] >= crop[1]):
        return None
    return (
        f"DATA.SOURCE_WINDOW: {window[0]}x{window[1]} (height x width) is smaller than "
        f"DATA.CROP_SIZE {crop[0]}x{crop[1]}, which is cut out of it; make it as large, or give [] "
        f"for the whole image"
    )


@SCHEMA.check
def scale_ranges_are_in_order(cfg: CfgNode) -> list[str]:
    """A range is a smallest and a largest factor."""
    ranges = {
        "SOURCE_SCALE_RANGE": cfg.DATA.SOURCE_SCALE_RANGE,
        "TARGET_SCALE_RANGE": cfg.DATA.TARGET_SCALE_RANGE,
    }
    return [
        f"DATA.{name}: {low} is larger than {high}; give the smallest factor first"
        for name, (low, high) in ranges.items()
        if low > high
    ]
