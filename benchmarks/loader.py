"""Training crops a second and core: ours, ours packed, and the pipeline of the DAFormer family.

All give 512x512 crops of source images with rare-class sampling, and of target images, from files
of the real sizes and formats (`benchmarks/street_files.py` says what they are). The peer pipeline
is that of mmsegmentation with DAFormer's dataset: OpenCV reads the image, Pillow the label (train
ids, converted on disk), both are resized, up to 10 crops are tried for the largest class share, and
for a crop without enough of the wanted class all of it is done again, up to 10 times. It is spared
what it does besides (float32 normalisation in the loader). One thread, one process; rounds are
interleaved, and files are in the page cache for all.

    python -m benchmarks.loader
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from benchmarks.ratios import Ratio, add_ratios_argument, save_ratios
from benchmarks.street_files import cityscapes_png, gta5_jpeg, gta5_png
from t2sda.data.catalog import DatasetSpec
from t2sda.data.dataset_files import read_dataset_file
from t2sda.data.datasets import FileDataset, SegmentationDataset
from t2sda.data.domains import DomainPairs
from t2sda.data.packing import DESCRIPTION_NAME, pack_dataset
from t2sda.data.rare_classes import RareClassSampler
from t2sda.data.transforms import Resize, keep_ratio_size

CROP = (512, 512)
MIN_PIXELS = 3000
SOURCE_BOUND, TARGET_BOUND = (720, 1280), (512, 1024)
WORKERS, BATCH_SIZE = 4, 2
TARGETS = {"ours": 2.0, "ours packed": 8.0}
"""How many times as fast as the peers, where they try again for a rare class."""

Load = Callable[[int], object]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=24, help="files of every kind")
    parser.add_argument("--samples", type=int, default=20, help="crops per round and candidate")
    parser.add_argument("--rounds", type=int, default=5)
    add_ratios_argument(parser)
    args = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        candidates = _candidates(Path(folder), args.images)
        seconds: dict[str, list[float]] = {name: [] for name in candidates}
        for round_ in range(args.rounds + 1):  # the first one warms up
            positions = range(round_ * args.samples, (round_ + 1) * args.samples)
            for name, load in candidates.items():
                taken = _timed(load, positions)
                if round_:
                    seconds[name].append(taken / args.samples)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    _report(medians)
    save_ratios(args.ratios, _ratios(medians))
    return 0


def _candidates(folder: Path, num_images: int) -> dict[str, Load]:
    candidates: dict[str, Load] = {}
    for kind, make in (("GTA5 PNG", gta5_png), ("GTA5 JPEG", gta5_jpeg)):
        original = _made(make, folder / kind, num_images)
        sampler = _rare_classes(original)
        packed = _packed(original, SOURCE_BOUND, folder / f"{kind} packed")
        for retries, minimum in (("", MIN_PIXELS / 2), (", no retries", 0.0)):
            name = f"source {kind}{retries}"
            peer = PeerSource(original, sampler, minimum)
            factor = 0.5 if minimum else 0.0
            candidates[f"{name}/peers"] = peer
            candidates[f"{name}/ours"] = _pairs(original, factor).__getitem__
            candidates[f"{name}/ours packed"] = _pairs(packed, factor).__getitem__
            print(f"{name}: the peers decode {peer.mean_decodings(400):.2f} times a crop")
    target = _made(cityscapes_png, folder / "target", num_images)
    name = "target Cityscapes PNG"
    candidates[f"{name}/peers"] = PeerTarget(target)
    candidates[f"{name}/ours"] = TargetOnly(target)
    packed_target = _packed(target, TARGET_BOUND, folder / "target packed")
    candidates[f"{name}/ours packed"] = TargetOnly(packed_target)
    return candidates


def _made(make: Callable[[Path, int], DatasetSpec], folder: Path, num_images: int) -> FileDataset:
    dataset = make(folder, num_images).open()
    sizes = [path.stat().st_size for path, _ in dataset.pairs]
    print(f"{dataset.name}: {num_images} images of {np.mean(sizes) / 1e6:.2f} MB")
    return dataset


def _packed(dataset: FileDataset, bound: tuple[int, int], folder: Path) -> FileDataset:
    pack_dataset(dataset, bound, folder)
    size = sum(path.stat().st_size for path in folder.rglob("*.png")) / len(dataset)
    print(f"{dataset.name} packed: {size / 1e6:.2f} MB an image with its label")
    (spec,) = read_dataset_file(folder / DESCRIPTION_NAME)
    opened = spec.open()
    assert isinstance(opened, FileDataset)
    return opened


def _rare_classes(dataset: SegmentationDataset, crop_factor: float = 0.5) -> RareClassSampler:
    pixels = np.stack([dataset.class_pixels(index) for index in range(len(dataset))])
    return RareClassSampler(
        pixels,
        dataset,
        temperature=0.01,
        min_pixels=MIN_PIXELS,
        min_share=0.0,
        crop_factor=crop_factor,
        seed=0,
    )


def _pairs(dataset: SegmentationDataset, crop_factor: float) -> DomainPairs:
    return DomainPairs(
        dataset,
        None,
        translator=None,
        source_resize=Resize(SOURCE_BOUND),
        target_resize=Resize(None),
        crop_size=CROP,
        max_class_share=0.75,
        target_margins=(0, 0, 0, 0),
        seed=0,
        rare_classes=_rare_classes(dataset, crop_factor),
    )


class TargetOnly:
    """The target half of `DomainPairs`, alone."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.pairs = DomainPairs(
            dataset,
            dataset,
            translator=None,
            source_resize=Resize(None),
            target_resize=Resize(TARGET_BOUND),
            crop_size=CROP,
            max_class_share=1.0,
            target_margins=(0, 0, 0, 0),
            seed=0,
        )

    def __call__(self, position: int) -> None:
        self.pairs._target_at(position)


class PeerSource:
    """Decode, resize, crop; all of it again for a crop without the wanted class."""

    def __init__(self, dataset: FileDataset, sampler: RareClassSampler, minimum: float) -> None:
        self.images = [path for path, _ in dataset.pairs]
        self.labels = [path.parent.parent / f"train_ids/{path.stem}.png" for path in self.images]
        self.sampler = sampler
        self.minimum = minimum
        self.decodings = 0

    def __call__(self, position: int) -> None:
        index, train_id = self.sampler.draw_at(position)
        generator = np.random.default_rng(position)
        for _ in range(11):
            image, label = self.crop(index, generator)
            if not self.minimum or np.sum(label == train_id) > self.minimum:
                break
        if generator.random() < 0.5:
            image, label = (
                np.ascontiguousarray(image[:, ::-1]),
                np.ascontiguousarray(label[:, ::-1]),
            )

    def crop(self, index: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One try."""
        self.decodings += 1
        image = cv2.imread(str(self.images[index]), cv2.IMREAD_COLOR)
        assert image is not None
        with Image.open(self.labels[index]) as opened:
            label = np.array(opened)
        height, width = keep_ratio_size(label.shape, SOURCE_BOUND)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)
        for _ in range(10):
            rows, columns = _window(label.shape, generator)
            ids, counts = np.unique(label[rows, columns], return_counts=True)
            counts = counts[ids != 255]
            if len(counts) > 1 and counts.max() / counts.sum() < 0.75:
                break
        return image[rows, columns].copy(), label[rows, columns].copy()

    def mean_decodings(self, num_samples: int) -> float:
        """How often an image is decoded for a crop, from the labels alone."""
        labels: dict[int, np.ndarray] = {}
        counted = 0
        for position in range(num_samples):
            index, train_id = self.sampler.draw_at(position)
            if index not in labels:
                with Image.open(self.labels[index]) as image:
                    full = np.array(image)
                size = keep_ratio_size(full.shape, SOURCE_BOUND)[::-1]
                labels[index] = cv2.resize(full, size, interpolation=cv2.INTER_NEAREST)
            generator = np.random.default_rng(position)
            for _ in range(11):
                counted += 1
                window = labels[index][_window(labels[index].shape, generator)]
                if not self.minimum or np.sum(window == train_id) > self.minimum:
                    break
        return counted / num_samples


class PeerTarget:
    """Decode, resize, crop."""

    def __init__(self, dataset: FileDataset) -> None:
        self.images = [path for path, _ in dataset.pairs]

    def __call__(self, position: int) -> None:
        generator = np.random.default_rng(position)
        path = self.images[int(generator.integers(len(self.images)))]
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        assert image is not None
        image = cv2.resize(image, TARGET_BOUND[::-1], interpolation=cv2.INTER_LINEAR)
        window = image[_window(image.shape, generator)]
        np.ascontiguousarray(window[:, ::-1] if generator.random() < 0.5 else window)


def _window(shape: tuple[int, ...], generator: np.random.Generator) -> tuple[slice, slice]:
    top = int(generator.integers(shape[0] - CROP[0] + 1))
    left = int(generator.integers(shape[1] - CROP[1] + 1))
    return slice(top, top + CROP[0]), slice(left, left + CROP[1])


def _timed(load: Load, positions: range) -> float:
    begin = time.process_time()  # one thread, no waiting for a disk: right on a busy machine too
    for position in positions:
        load(position)
    return time.process_time() - begin


def _ratios(seconds: dict[str, float]) -> list[Ratio]:
    """Ours beside the peers; with rare-class retries they have targets."""
    found = []
    for name, taken in seconds.items():
        what, candidate = name.rsplit("/", 1)
        peers = seconds[f"{what}/peers"]
        detail = f"{1000 * taken:.1f} ms a crop, the peers {1000 * peers:.1f} ms"
        retries = what.startswith("source") and "no retries" not in what
        target = TARGETS[candidate] if retries and candidate in TARGETS else None
        if candidate != "peers":
            title = f"loader, {what}, {candidate}: times as fast"
            found.append(Ratio(title, peers / taken, detail, at_least=target))
    return found


def _report(seconds: dict[str, float]) -> None:
    print(f"\n{'crops of 512x512':<32}{'candidate':<14}{'ms':>8}{'crops/s/core':>14}{'ratio':>8}")
    for name, taken in seconds.items():
        what, candidate = name.rsplit("/", 1)
        ratio = seconds[f"{what}/peers"] / taken
        print(f"{what:<32}{candidate:<14}{1000 * taken:8.2f}{1 / taken:14.1f}{ratio:8.2f}")
    for candidate in ("peers", "ours", "ours packed"):
        source, target = (
            seconds[f"{what}/{candidate}"] for what in ("source GTA5 PNG", "target Cityscapes PNG")
        )
        step = BATCH_SIZE * (source + target) / WORKERS
        print(
            f"{candidate}: {WORKERS} workers on {WORKERS} cores keep up with steps of "
            f"{1000 * step:.1f} ms (batch {BATCH_SIZE}, GTA5 PNG and Cityscapes PNG)"
        )


if __name__ == "__main__":
    raise SystemExit(main())
