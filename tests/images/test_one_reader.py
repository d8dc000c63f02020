"""Training, evaluation and inference get one array of a file, whatever kind of file it is."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from t2sda.cli.inferring import Inference
from t2sda.data.catalog import DatasetSpec
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.errors import UserError
from t2sda.evaluation.evaluator import evaluate
from t2sda.inference.segmenter import Segmenter
from t2sda.inference.sources import find_sources
from t2sda.runtime.checkpoints import TorchPredictor
from t2sda.runtime.letterbox import Letterbox

HEIGHT, WIDTH = 6, 10
COLORS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = COLORS[..., 0]
GREY_3 = np.stack([GREY] * 3, axis=-1)
REFUSED = None
ORIENTATION = 0x0112


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_opencv(ending: str, samples: np.ndarray) -> bytes:
    ordered = samples if samples.ndim == 2 else samples[..., ::-1]
    return cv2.imencode(ending, ordered)[1].tobytes()


def turned(kind: str, orientation: int, **options: object) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return saved(Image.fromarray(COLORS), kind, exif=exif, **options)


SEEN: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, 3),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, 1),
}


def rgba(alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([COLORS, alpha]))


HALF_CLEAR = (np.indices((HEIGHT, WIDTH)).sum(axis=0) % 3 * 100).astype(np.uint8)


def palette_image(colors: np.ndarray, indices: np.ndarray) -> Image.Image:
    image = Image.fromarray(indices).convert("P")
    image.putpalette(colors.ravel().tolist())
    return image


INDICES = (np.arange(HEIGHT * WIDTH, dtype=np.uint8) % 4).reshape(HEIGHT, WIDTH)
FOUR = COLORS[0, :4]


def with_chunks(content: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with further chunks behind its header."""
    added = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return content[:33] + added + content[33:]


PNG = saved(Image.fromarray(COLORS), "PNG")
LONG_TEXT = b"comment\0\0" + zlib.compress(bytes(1 << 22))
"""Pillow refuses texts of more than a megabyte."""
UNIT = GREY.astype(np.float32) / 255
SIXTEEN = GREY.astype(np.uint16) * 256 + 77


def with_pillow(content: bytes) -> tuple[bytes, np.ndarray]:
    """A file that keeps no colors exactly, and what Pillow alone makes of it."""
    with Image.open(io.BytesIO(content)) as image:
        return content, np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


FILES: dict[str, tuple[bytes, np.ndarray | None]] = {
    **{
        f"orientation {n}, {kind}": (turned(kind, n, **options), SEEN[n](COLORS))
        for n in SEEN
        for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}))
    },
    **{f"orientation {n}, JPEG": with_pillow(turned("JPEG", n)) for n in SEEN},
    "orientation 9": (turned("PNG", 9), COLORS),
    "alpha, RGBA": (saved(rgba(HALF_CLEAR), "PNG"), COLORS),
    "alpha, RGBA TIFF": (saved(rgba(HALF_CLEAR), "TIFF"), COLORS),
    "alpha, RGBA WebP": (saved(rgba(HALF_CLEAR), "WEBP", lossless=True, exact=True), COLORS),
    "alpha, grey": (
        saved(Image.fromarray(np.dstack([GREY, HALF_CLEAR]), "LA"), "PNG"),
        GREY_3,
    ),
    "alpha, one color": (
        saved(Image.fromarray(COLORS), "PNG", transparency=tuple(map(int, COLORS[0, 0]))),
        COLORS,
    ),
    "alpha, palette": (
        saved(palette_image(FOUR, INDICES), "PNG", transparency=bytes([0, 9, 255])),
        FOUR[INDICES],
    ),
    "16 bits, PNG": (by_opencv(".png", SIXTEEN), GREY_3),
    "16 bits, RGB PNG": (by_opencv(".png", COLORS.astype(np.uint16) * 257), COLORS),
    "16 bits, TIFF": (saved(Image.fromarray(SIXTEEN), "TIFF"), GREY_3),
    "16 bits, RGB TIFF": (by_opencv(".tiff", COLORS.astype(np.uint16) * 257), COLORS),
    "16 bits, PGM": (saved(Image.fromarray(SIXTEEN), "PPM"), GREY_3),
    "32 bits, TIFF": (saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"), REFUSED),
    "32 bits, unsigned": (by_opencv(".tiff", GREY.astype(np.uint32) << 24), REFUSED),
    "32 bits, signed": (saved(Image.fromarray(-GREY.astype(np.int32)), "TIFF"), REFUSED),
    "float": (saved(Image.fromarray(UNIT), "TIFF"), GREY_3),
    "unknown, double": (by_opencv(".tiff", UNIT.astype(np.float64)), REFUSED),
    "unknown, RGB": (by_opencv(".tiff", COLORS.astype(np.float32) / 255), REFUSED),
    "float, PFM": (saved(Image.fromarray(UNIT), "PPM"), GREY_3),
    "float, beyond 1": (saved(Image.fromarray(UNIT * 255), "TIFF"), REFUSED),
    "float, NaN": (saved(Image.fromarray(np.where(UNIT > 0.5, np.nan, UNIT)), "TIFF"), REFUSED),
    "grey, PNG": (saved(Image.fromarray(GREY), "PNG"), GREY_3),
    "grey, BMP": (saved(Image.fromarray(GREY), "BMP"), GREY_3),
    "grey, 1 bit": (
        saved(Image.fromarray(GREY > 127), "PNG"),
        np.where(GREY_3 > 127, 255, 0).astype(np.uint8),
    ),
    "CMYK, TIFF": (
        saved(Image.fromarray(COLORS).convert("CMYK"), "TIFF"),
        COLORS,  # without black, which Pillow's conversion never makes
    ),
    "CMYK, JPEG": with_pillow(saved(Image.fromarray(COLORS).convert("CMYK"), "JPEG")),
    "CMYK, with black": with_pillow(
        saved(Image.fromarray(np.dstack([COLORS, GREY]), "CMYK"), "TIFF")
    ),
    "grey, JPEG": with_pillow(saved(Image.fromarray(GREY), "JPEG")),
    "palette, PNG": (saved(palette_image(FOUR, INDICES), "PNG"), FOUR[INDICES]),
    "palette, GIF": (saved(palette_image(FOUR, INDICES), "GIF"), FOUR[INDICES]),
    "palette, BMP": (saved(palette_image(FOUR, INDICES), "BMP"), FOUR[INDICES]),
    "text, packed": (with_chunks(PNG, (b"zTXt", LONG_TEXT)), COLORS),
    "text, several": (with_chunks(PNG, *[(b"zTXt", LONG_TEXT)] * 20), COLORS),
    "text, damaged": (with_chunks(PNG, (b"iTXt", b"\xff" * 40)), COLORS),
    "text, XMP orientation": (
        with_chunks(PNG, (b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<a tiff:Orientation="6"/>')),
        SEEN[6](COLORS),
    ),
    "text, gamma and profile": (
        with_chunks(PNG, (b"gAMA", struct.pack(">I", 20000)), (b"iCCP", b"a\0\0nothing")),
        COLORS,
    ),
}


class Recorder:
    """A model that keeps what it is given."""

    taxonomy = CITYSCAPES_19
    letterbox = Letterbox()
    scored_window = None

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def bounded(self, bound: tuple[int, int] | None) -> Recorder:
        return self

    def predict(
        self, images: np.ndarray | list[np.ndarray], batch_size: int = 1
    ) -> np.ndarray | list[np.ndarray]:
        if isinstance(images, np.ndarray):  # as an evaluation does
            return self.predict([images])[0]
        self.seen += images
        return [np.zeros(image.shape[:2], np.uint8) for image in images]

    def probabilities(self, images: list[np.ndarray], batch_size: int = 1) -> list[np.ndarray]:
        raise AssertionError("not asked for")


class Echo(torch.nn.Module):
    """A network that keeps what it is given, (B, 3, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen += list(image.permute(0, 2, 3, 1).numpy())
        return image.float()


def in_training(spec: DatasetSpec) -> np.ndarray:
    return spec.open().load_image(0)


def in_evaluation(spec: DatasetSpec, size: tuple[int, ...]) -> np.ndarray:
    labels = Path(spec.root) / "labels"
    labels.mkdir()
    Image.fromarray(np.zeros(size, np.uint8)).save(labels / "a.png")
    recorder = Recorder()
    evaluate(recorder, spec.open())  # type: ignore[arg-type]
    (seen,) = recorder.seen
    return seen


def in_infer(folder: Path) -> np.ndarray:
    recorder, output = Recorder(), folder / "out"
    output.mkdir()
    inference = Inference(Segmenter(recorder), output, ["trainid"], io.StringIO())
    inference.run(find_sources(str(folder / "images/a"), output).sources)
    if inference.left_out:
        raise inference.left_out[0]
    (seen,) = recorder.seen
    return seen


def in_predict(source: object) -> np.ndarray:
    """What a network sees of it, without the border that continues small images."""
    network = Echo()
    model = TorchPredictor(network, CITYSCAPES_19, None, torch.device("cpu"))  # type: ignore[arg-type]
    height, width = model.predict(source).shape  # type: ignore[arg-type, union-attr]
    return network.seen[0][:height, :width]


@pytest.mark.parametrize("kind", FILES)
def test_training_evaluation_and_inference_see_one_array(kind: str, tmp_path: Path) -> None:
    content, expected = FILES[kind]
    path = tmp_path / "images/a"
    path.parent.mkdir()
    path.write_bytes(content)
    size = (HEIGHT, WIDTH) if expected is None else expected.shape[:2]
    spec = DatasetSpec("one", str(tmp_path), "images/a", "labels/{stem}.png", CITYSCAPES_19)
    readers: dict[str, Callable[[], np.ndarray]] = {
        "training": lambda: in_training(spec),
        "evaluation": lambda: in_evaluation(spec, size),
        "infer": lambda: in_infer(tmp_path),
        "predict of a path": lambda: in_predict(path),
        "predict of bytes": lambda: in_predict(content),
        "predict of a file": lambda: in_predict(io.BytesIO(content)),
    }
    if not kind.startswith(("text", "unknown")):  # which Pillow itself refuses
        readers["predict of a PIL image"] = lambda: in_predict(Image.open(path))
    for name, read in readers.items():
        if expected is None:
            with pytest.raises(UserError, match="no defined white|floating-point|kind of TIFF"):
                read()
        else:
            np.testing.assert_array_equal(read(), expected, err_msg=name)
