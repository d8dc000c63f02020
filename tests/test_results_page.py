"""docs/results.md is made of kept results; its numbers are worked out by hand here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import results_page
from benchmarks.result_statistics import (
    Spread,
    class_iou,
    mean_iou,
    paired_difference,
    share_of_gap,
    spread,
)
from benchmarks.results_page import main_table, page, paper_scores, stale_results
from benchmarks.stored_results import StoredResult, StoredScores, config_hash, write_result
from t2sda.errors import MissingFileError, UserError

ROOT = Path(__file__).parents[1]
Counts = tuple[int, int]
PERFECT = ((4, 4), (4, 4), (4, 4))
HALF = ((4, 4), (2, 6), (2, 4))  # IoU 1/2 and 2/3
NO_ROAD = ((4, 4), (0, 8), (0, 4))  # IoU 0 and 1/2
BETTER_AT_A = (PERFECT, NO_ROAD)
"""Road 4 / 8, car 8 / 12: mean IoU 7/12 of both images, 1 and 1/4 of each."""
BETTER_AT_B = (HALF, PERFECT)
"""Road 6 / 8, car 8 / 10: mean IoU 31/40 of both images, 7/12 and 1 of each."""
TEXT = "# Page\n\n{towns}\n\nThe end.\n"
ROWS = """
scored: {day: 1, night: 1}
source_only: source
baseline: base
method: ours
oracle: oracle
rows:
  source: {title: source only, paper: gta5_to_cityscapes/source_only_daformer_mit_b5}
  base: {title: baseline, paper: gta5_to_cityscapes/daformer_daformer_mit_b5}
  ours: {title: T2S-DA, paper: gta5_to_cityscapes/t2sda_daformer_mit_b5}
  oracle: {title: oracle}
main: [source, base, ours]
"""


def scores(images: Sequence[tuple[Counts, Counts, Counts]], iou: Counts | tuple) -> StoredScores:
    return StoredScores(
        protocol="whole",
        iou={"road": iou[0], "car": iou[1]},
        mean_iou=sum(share for share in iou if share is not None) / 2,
        accuracy=0.5,
        images={f"image_{index}": counts for index, counts in enumerate(images)},
    )


def result(name: str, day: Sequence, iou: tuple, seed: int = 0, **changes: object) -> StoredResult:
    settings = {"SEED": seed}
    values = {
        "name": name,
        "seed": seed,
        "sweep": "sweep.yaml",
        "config": "quickstart.yaml",
        "config_hash": config_hash(settings),
        "command": "t2sda train",
        "settings": settings,
        "commits": ["0123456789abcdef"],
        "machine": {"processor": "P"},
        "versions": {},
        "started": "2026",
        "ended": "2026",
        "seconds": 5400.0,
        "killed": 0,
        "peak_memory_mib": 700,
        "peak_gpu_memory_mib": None,
        "iterations": 10,
        "checkpoint": "sha256:1",
        "scores": {"day": scores(day, iou), "night": scores((HALF, HALF), (0.5, 0.5))},
    }
    return StoredResult(**{**values, **changes})


def write_benchmark(folder: Path, results: Sequence[StoredResult]) -> None:
    (folder / "towns.yaml").write_text(ROWS)
    for each in results:
        write_result(folder / "towns", each)


def test_mean_and_sample_standard_deviation() -> None:
    found = spread([0.1, 0.2, 0.6])  # deviations -.2, -.1, .3: .14 / 2
    assert found == Spread(pytest.approx(0.3), pytest.approx(0.07**0.5), 3)
    assert math.isnan(spread([0.5]).deviation)


def test_difference_and_interval_of_two_blocks_by_hand() -> None:
    pair = [result("x", BETTER_AT_A, (0.5, 2 / 3)), result("y", BETTER_AT_B, (0.75, 0.8))]
    found = paired_difference(pair[:1], pair[1:], {"day": 1})
    # Of two blocks a quarter of the draws holds the first alone, a quarter the second alone:
    # both ends of the interval are the difference on one of them.
    assert found is not None
    assert found.value == pytest.approx(7 / 12 - 31 / 40)
    assert found.low == pytest.approx(1 / 4 - 1)
    assert found.high == pytest.approx(1 - 7 / 12)
    # night has no difference at all, so the mean of both datasets has half of it
    of_both = paired_difference(pair[:1], pair[1:], {"day": 1, "night": 1})
    assert of_both is not None
    assert of_both.value == pytest.approx(found.value / 2)
    assert (of_both.low, of_both.high) == (
        pytest.approx(found.low / 2),
        pytest.approx(found.high / 2),
    )


def test_seeds_are_paired_and_averaged_over_the_same_draws() -> None:
    first = [result("x", BETTER_AT_A, (0.5, 2 / 3), seed) for seed in (0, 1, 2)]
    second = [
        result("y", BETTER_AT_B, (0.75, 0.8), 0),
        result("y", BETTER_AT_A, (0.5, 2 / 3), 1),  # no difference
        result("y", BETTER_AT_B, (0.75, 0.8), 5),  # a seed that the first has not
    ]
    found = paired_difference(first, second, {"day": 1})
    assert found is not None
    assert found.num_seeds == 2
    assert found.value == pytest.approx((7 / 12 - 31 / 40) / 2)
    assert found.low == pytest.approx(-3 / 8)
    assert paired_difference(first[2:], second, {"day": 1}) is None


def test_images_in_a_row_are_drawn_together() -> None:
    four = (*BETTER_AT_A, *BETTER_AT_A), (*BETTER_AT_B, *BETTER_AT_B)
    pair = [result("x", four[0], (0.5, 2 / 3)), result("y", four[1], (0.75, 0.8))]
    found = paired_difference(pair[:1], pair[1:], {"day": 2})
    assert found is not None
    assert found.low == pytest.approx(found.value)  # both blocks are alike
    assert found.high == pytest.approx(found.value)
    with pytest.raises(UserError, match="day: 4 images a block make a single one"):
        paired_difference(pair[:1], pair[1:], {"day": 4})


def test_results_on_other_images_are_no_pair() -> None:
    other = result("y", (PERFECT, ((3, 5), (3, 5), (3, 5))), (1.0, 1.0))
    with pytest.raises(UserError, match="of other images or labels"):
        paired_difference([result("x", BETTER_AT_A, (0.5, 2 / 3))], [other], {"day": 1})


def test_mean_of_datasets_leaves_out_a_class_that_one_lacks() -> None:
    run = result("x", BETTER_AT_A, (0.5, None))
    assert class_iou([run], ["day", "night"], "road").mean == 0.5
    assert class_iou([run], ["day", "night"], "car").mean == 0.5
    assert math.isnan(class_iou([run], ["day"], "car").mean)
    assert mean_iou([run], ["day", "night"]).mean == pytest.approx((0.25 + 0.5) / 2)


def test_share_of_the_gap_pairs_seeds() -> None:
    # of day and night (.5 throughout): source only .4 and .6, x .5, oracle .75
    source = [result("s", BETTER_AT_A, (0.2, 0.4), 0), result("s", BETTER_AT_A, (0.6, 0.8), 1)]
    first, second = (result("x", BETTER_AT_A, (0.4, 0.6), seed) for seed in (0, 1))
    oracle = [result("o", BETTER_AT_A, (1.0, 1.0), 0)]
    both = ["day", "night"]
    assert share_of_gap([first], source, oracle, both) == pytest.approx(0.1 / 0.35)
    assert share_of_gap([second], source, oracle, both) == pytest.approx(-0.1 / 0.35)
    assert share_of_gap([first, second], source, oracle, both) == pytest.approx(0)
    assert share_of_gap([first], source, oracle, ["day"]) == pytest.approx(0.2 / 0.7)


def test_no_share_of_a_gap_that_is_none() -> None:
    source = [result("s", BETTER_AT_A, (0.2, 0.4), 0)]
    better = [result("x", BETTER_AT_A, (0.4, 0.6), 0)]
    assert math.isnan(share_of_gap(better, source, source, ["day"]))
    assert math.isnan(share_of_gap(source, better, source, ["day"]))
    other_seed = [result("o", BETTER_AT_A, (1.0, 1.0), 7)]
    assert math.isnan(share_of_gap(better, source, other_seed, ["day"]))
    assert math.isnan(share_of_gap(other_seed, source, better, ["day"]))


def test_page_of_hand_made_results(tmp_path: Path) -> None:
    write_benchmark(
        tmp_path,
        [
            result("source", BETTER_AT_A, (0.2, 0.4), 0),
            result("source", BETTER_AT_A, (0.4, 0.6), 1),
            result("ours", BETTER_AT_B, (0.76, 0.8), 0),
            result("oracle", (PERFECT, PERFECT), (1.0, 1.0), 0, killed=1),
        ],
    )
    text = page(tmp_path, TEXT)
    for line in (
        "Not run: baseline.",
        "| class | source only | T2S-DA |",
        # of day and night: road (.2 + .5) / 2 and (.4 + .5) / 2, apart by .1 / √2
        "| road | 40.0 ± 7.1 | 63.0 |",
        # of day alone: .3 and .5, apart by .2 / √2
        "| **mIoU** | 40.0 ± 14.1 | 78.0 |",
        "| seeds | 2 | 1 |",
        # night is .5 for all; day's difference is -(7/12 - 31/40), halved by night
        "| T2S-DA | 1 | 64.0 | +9.6 (−20.8 to +37.5) | – | – | 69% |",
        "| source only | 2 | 45.0 ± 7.1 | – | – | −9.6 (−37.5 to +20.8; 1 of 2 seeds) | – |",
        "| `oracle` | 0 | `quickstart.yaml` | 10 | 1.5 + killed | 700 | P | `012345678` |",
        "- One seed, so nothing is known of its spread: T2S-DA; oracle.",
        "- Two seeds, a poor estimate of the spread: source only.",
    ):
        assert line in text.splitlines(), line
    assert "for the direction only" not in text  # there is no baseline to compare with
    assert text.startswith("# Page\n\nNot run")
    assert text.endswith("\n\nThe end.\n")


def test_main_rows_of_hand_made_results(tmp_path: Path) -> None:
    write_benchmark(
        tmp_path,
        [
            result("source", BETTER_AT_A, (0.2, 0.4)),
            result("ours", BETTER_AT_B, (0.76, 0.8)),
            result("oracle", (PERFECT, PERFECT), (1.0, 1.0)),
        ],
    )
    assert main_table(tmp_path / "towns.yaml").splitlines()[2:] == [
        "| source only | 1 | 40.0 | – | – |",
        "| T2S-DA | 1 | 64.0 | +9.6 (−20.8 to +37.5) | 69% |",
    ]
    with pytest.raises(MissingFileError, match="no such file; it lists the rows"):
        main_table(tmp_path / "gone.yaml")


def test_paper_is_shown_beside_for_its_direction(tmp_path: Path) -> None:
    write_benchmark(
        tmp_path,
        [
            result("base", BETTER_AT_A, (0.5, 2 / 3)),
            result("ours", BETTER_AT_B, (0.75, 0.8)),
        ],
    )
    # Table 1 of the paper: 70.0 and 68.3
    assert "| T2S-DA | +9.6 | 70.0 | +1.7 |" in page(tmp_path, TEXT)


def test_similarity_of_an_analysis_is_shown(tmp_path: Path) -> None:
    write_benchmark(tmp_path, [result("ours", BETTER_AT_B, (0.75, 0.8))])
    analysis = """{"source": "clear", "target": "day", "classes": ["road", "car"], "runs": [
        {"name": "first", "per_class": {"similarity": {"road": 0.876, "car": null}},
         "mean": {"similarity": 0.876}},
        {"name": "without", "per_class": {}, "mean": {}}]}"""
    (tmp_path / "towns/analysis.json").write_text(analysis)
    text = page(tmp_path, TEXT)
    assert "| class | first |\n| --- | ---: |\n| road | 0.88 |\n| car | – |\n" in text


def test_result_that_no_row_shows_is_an_error(tmp_path: Path) -> None:
    write_benchmark(tmp_path, [result("other", BETTER_AT_A, (0.5, 0.5))])
    with pytest.raises(UserError, match="towns/other.seed_0.json is in no row"):
        page(tmp_path, TEXT)


def test_result_without_scores_of_a_dataset_is_an_error(tmp_path: Path) -> None:
    whole = result("ours", BETTER_AT_A, (0.5, 0.5))
    part = dataclasses.replace(whole, scores={"day": whole.scores["day"]})
    write_benchmark(tmp_path, [part])
    with pytest.raises(UserError, match="ours.seed_0.json has no scores on night"):
        page(tmp_path, TEXT)


def test_benchmark_without_a_place_in_the_text_is_an_error(tmp_path: Path) -> None:
    write_benchmark(tmp_path, [])
    with pytest.raises(UserError, match="no line {towns}"):
        page(tmp_path, "# Page\n")


def test_stale_results_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_page, "ROOT", tmp_path)
    run = result("ours", BETTER_AT_A, (0.5, 0.5))
    write_benchmark(tmp_path, [run])
    assert "no such sweep file" in stale_results(tmp_path)[0]
    sweep = "output_dir: runs\nseeds: [0]\nruns: {ours: {config: quickstart.yaml}}\n"
    (tmp_path / "sweep.yaml").write_text(sweep)
    command = (
        "t2sda train --config-file quickstart.yaml --output-dir runs/ours/seed_0 --resume SEED=0"
    )
    write_result(tmp_path / "towns", dataclasses.replace(run, command=command))
    assert stale_results(tmp_path) == []
    (tmp_path / "sweep.yaml").write_text(sweep.replace("quickstart.yaml", "gone.yaml"))
    (message,) = stale_results(tmp_path)
    assert message.startswith("towns/ours.seed_0.json: ")
    assert "gone.yaml" in message


def test_kept_results_are_of_runs_that_their_sweep_files_still_have() -> None:
    assert stale_results() == []


def test_page_is_what_its_command_prints() -> None:
    advice = "stale: run `python -m benchmarks.results_page > docs/results.md`"
    assert (ROOT / "docs/results.md").read_text(encoding="utf-8") == page(), advice


def test_the_readmes_table_is_what_its_command_prints() -> None:
    advice = "stale: put what `python -m benchmarks.results_page photographs` prints there"
    table = main_table(results_page.FOLDER / "photographs.yaml")
    assert table in (ROOT / "README.md").read_text(encoding="utf-8"), advice


def test_paper_rows_of_all_benchmarks_are_in_the_map_of_its_tables() -> None:
    printed = paper_scores()
    assert printed["gta5_to_cityscapes/t2sda_daformer_mit_b5"] == 70.0
    for path in (ROOT / "benchmarks/results").glob("*.yaml"):
        assert printed.keys() >= set(results_page.read_benchmark(path).paper.values()), path
