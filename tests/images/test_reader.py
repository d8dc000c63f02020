"""Every kind of image comes out right; every kind of damage is reported with the file's name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from t2sda.data.transforms import Resize, keep_ratio_size, resize_label
from t2sda.errors import MissingFileError, UnreadableFileError
from t2sda.images import faster, read_header, read_image, read_label, read_samples
from t2sda.images.files import MAX_PIXELS

HEIGHT, WIDTH = 40, 60


@pytest.fixture(autouse=True, params=["fastest", "plain"])
def decoders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs with the fastest decoders, and with Pillow and OpenCV alone."""
    if request.param == "plain":
        monkeypatch.setattr(faster, "simplejpeg", None)
        monkeypatch.setattr(faster, "imagecodecs", None)
    return request.param


NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = NOISE[..., 0]


def smooth(height: int, width: int) -> np.ndarray:
    """An image that JPEG keeps almost as it is."""
    rows, columns = np.mgrid[0:height, 0:width]
    red = 100 + 80 * np.sin(rows / 40)
    green = 120 + 90 * np.cos(columns / 50)
    return np.stack([red, green, (red + green) / 2], axis=-1).round().astype(np.uint8)


def png16(samples: np.ndarray) -> bytes:
    """A 16-bit PNG of (H, W) or (H, W, 3) RGB."""
    ordered = samples if samples.ndim == 2 else samples[..., ::-1]
    return cv2.imencode(".png", ordered)[1].tobytes()


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(kind: str) -> bytes:
    """A file of a few hundred bytes whose header promises 60000 x 60000 pixels."""
    if kind == "png":
        header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    content = bytearray(encoded(Image.fromarray(NOISE), kind))
    if kind == "jpeg":
        frame = content.index(b"\xff\xc0")
        content[frame + 5 : frame + 9] = struct.pack(">HH", 60000, 60000)
    else:
        content[18:26] = struct.pack("<ii", 60000, 60000)
    return bytes(content)


@pytest.mark.parametrize("name", ["street 1.png", "Straße_Å.png"])
def test_a_png_image_is_its_pixels_whatever_the_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(encoded(Image.fromarray(NOISE), "png"))
    np.testing.assert_array_equal(read_image(path), NOISE)
    assert read_header(path).size == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(Image.fromarray(GREY), "png"), np.stack([GREY] * 3, -1)),
        (encoded(Image.fromarray(NOISE).convert("RGBA"), "png"), NOISE),
        (encoded(Image.fromarray(GREY).convert("LA"), "png"), np.stack([GREY] * 3, -1)),
        (png16(NOISE.astype(np.uint16) * 257), NOISE),
        (png16(GREY.astype(np.uint16) * 256 + 77), np.stack([GREY] * 3, -1)),
        (encoded(Image.fromarray(GREY > 127), "png"), np.stack([(GREY > 127) * 255] * 3, -1)),
        (encoded(Image.fromarray(NOISE), "bmp"), NOISE),
        (encoded(Image.fromarray(NOISE), "webp", lossless=True), NOISE),
        (encoded(Image.fromarray(GREY.astype(np.uint16) * 256), "tiff"), np.stack([GREY] * 3, -1)),
    ],
    ids=["grey", "rgba", "grey+alpha", "16-bit", "grey16", "1-bit", "bmp", "webp", "tiff16"],
)
def test_images_of_every_kind_become_rgb(
    tmp_path: Path, content: bytes, expected: np.ndarray
) -> None:
    path = tmp_path / "image"
    path.write_bytes(content)
    image = read_image(path)
    assert (image.dtype, image.flags.c_contiguous) == (np.uint8, True)
    np.testing.assert_array_equal(image, expected)
    assert read_header(path).size == (HEIGHT, WIDTH)


def test_a_palette_image_gives_its_colors_and_a_palette_label_its_indices(tmp_path: Path) -> None:
    indices = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 19
    colors = np.random.default_rng(1).integers(0, 256, (19, 3), dtype=np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette(colors.ravel().tolist())
    image.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), colors[indices])
    np.testing.assert_array_equal(read_label(tmp_path / "palette.png"), indices)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_images_are_those_of_pillow(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(smooth(HEIGHT, WIDTH)).convert(mode).save(path, quality=95)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_image(path), expected)
    assert read_header(path).size == (HEIGHT, WIDTH)


@pytest.mark.parametrize("bound", [(360, 602), (180, 301), (181, 301), (200, 250), (91, 151)])
def test_a_jpeg_decoded_smaller_is_the_image_averaged(
    tmp_path: Path, bound: tuple[int, int]
) -> None:
    # The slow way: decode all of it, then average over areas. On a smooth image both agree within
    # JPEG's own error; the size is the one that the resize promises.
    path = tmp_path / "image.jpg"
    Image.fromarray(smooth(360, 600)).save(path, quality=98, subsampling=0)
    image = read_image(path, Resize(bound).size_for)
    size = keep_ratio_size((360, 600), bound)
    assert image.shape == (*size, 3)
    expected = cv2.resize(smooth(360, 600), size[::-1], interpolation=cv2.INTER_AREA)
    difference = np.abs(image.astype(int) - expected)
    assert difference.max() <= 6
    assert difference.mean() < 1.0


def test_a_jpeg_of_odd_size_does_not_drift_from_its_label(tmp_path: Path) -> None:
    # 605 columns at 1/4 would be 152, of which the last stands for one column: the edge would move.
    columns = np.where(np.arange(605) < 580, 40, 200).astype(np.uint8)
    drawn = np.broadcast_to(columns[None, :, None], (361, 605, 3))
    path = tmp_path / "image.jpg"
    Image.fromarray(np.ascontiguousarray(drawn)).save(path, quality=98, subsampling=0)
    image = read_image(path, Resize((90, 151)).size_for)
    label = resize_label((drawn[..., 0] > 120).astype(np.uint8), image.shape[:2])
    np.testing.assert_array_equal(image[..., 0] > 120, label == 1)


def test_a_png_is_resized_as_opencv_does(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(encoded(Image.fromarray(NOISE), "png"))
    expected = cv2.resize(NOISE, (30, 20), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(read_image(path, Resize((20, 30)).size_for), expected)


@pytest.mark.parametrize("kind", ["16-bit", "8-bit", "4-bit", "transparent"])
def test_label_ids_are_the_numbers_of_the_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "label.png"
    if kind == "16-bit":
        ids = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
        path.write_bytes(png16(ids))
    else:
        ids = (GREY % 16 if kind == "4-bit" else GREY).astype(np.uint8)
        image = Image.fromarray(ids, mode="P" if kind == "4-bit" else "L")
        if kind == "4-bit":
            image.putpalette([0, 0, 0] * 16)
            image.save(path, bits=4)
        else:
            image.save(path, **({"transparency": 3} if kind == "transparent" else {}))
    label = read_label(path)
    assert label.dtype in (np.uint8, np.uint16)
    np.testing.assert_array_equal(label, ids)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_labels_of_few_bits_give_their_numbers_and_not_shades(
    tmp_path: Path, bits: int
) -> None:
    path = tmp_path / "label.png"
    ids = np.arange(16, dtype=np.uint8).reshape(2, 8) % (1 << bits)
    unpacked = np.unpackbits(ids[..., None], axis=2)[..., -bits:].reshape(2, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(unpacked, axis=1))
    header = struct.pack(">IIBBBBB", 8, 2, bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    np.testing.assert_array_equal(read_label(path), ids)


def test_samples_keep_three_channels_of_16_bits(tmp_path: Path) -> None:
    samples = NOISE.astype(np.uint16) * 7
    (tmp_path / "label.png").write_bytes(png16(samples))
    np.testing.assert_array_equal(read_samples(tmp_path / "label.png"), samples)


@pytest.mark.parametrize("reader", [read_image, read_label, read_header])
def test_an_empty_and_a_missing_file(tmp_path: Path, reader) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "empty.png").touch()
    with pytest.raises(UnreadableFileError, match=r"empty\.png"):
        reader(tmp_path / "empty.png")
    with pytest.raises(MissingFileError, match=r"none\.png: no such file"):
        reader(tmp_path / "none.png")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.98])
def test_a_truncated_file_is_never_a_partial_image(tmp_path: Path, kind: str, kept: float) -> None:
    path = tmp_path / f"image.{kind}"
    content = encoded(Image.fromarray(NOISE), kind)
    path.write_bytes(content[: int(len(content) * kept)])
    for reader in (read_image, read_label):
        with pytest.raises(UnreadableFileError, match=rf"image\.{kind}: cannot be decoded"):
            reader(path)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_damaged_bytes_in_the_middle_are_reported(tmp_path: Path, kind: str, decoders: str) -> None:
    if (kind, decoders) == ("jpeg", "plain"):
        pytest.skip("libjpeg only warns of it, and Pillow passes no warning on")
    path = tmp_path / f"image.{kind}"
    content = bytearray(encoded(Image.fromarray(NOISE), kind))
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=rf"image\.{kind}: cannot be decoded"):
        read_image(path)


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bomb.{kind}"
    path.write_bytes(bomb(kind))
    for reader in (read_image, read_label, read_header):
        with pytest.raises(UnreadableFileError, match=rf"bomb\.{kind}: .*make the image smaller"):
            reader(path)


def test_the_limit_lies_above_every_benchmark_and_is_pillows() -> None:
    assert 6000 * 4000 < MAX_PIXELS == 2 * (Image.MAX_IMAGE_PIXELS or 0)


def test_colors_are_not_a_label(tmp_path: Path) -> None:
    path = tmp_path / "label.png"
    path.write_bytes(encoded(Image.fromarray(NOISE), "png"))
    with pytest.raises(UnreadableFileError, match="a label has one channel of class ids"):
        read_label(path)


@pytest.mark.parametrize("error", [struct.error("unpack"), IndexError("index"), TypeError("type")])
def test_whatever_a_decoder_stumbles_with_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.tif")

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    for read in (read_image, read_label, read_header):
        with pytest.raises(UnreadableFileError, match=rf"a\.tif: cannot be decoded \({error}\)"):
            read(tmp_path / "a.tif")
