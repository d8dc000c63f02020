"""Images and videos recognized by what their files begin with, not by their endings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from t2sda.images.finding import IMAGE_SUFFIXES

VIDEO_SUFFIXES = frozenset(
    (
        *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
        *(".mts", ".webm", ".wmv"),
    )
)
"""A .ts may be a program's text as well: its content decides."""

Kind = Literal["image", "video"]

_IMAGES = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"qoif"),
)
_IMAGE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"hevc")
_AUDIO_BRANDS = (b"M4A ", b"M4B ")
_QUICKTIME = (b"moov", b"mdat", b"wide")
_VIDEOS = (
    *(b"\x1a\x45\xdf\xa3", b"FLV\x01", b"\0\0\x01\xba", b"\0\0\x01\xb3"),
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # Windows Media
)
_TRANSPORT_PACKETS = ((0, 188), (4, 192))  # first byte and length, without and with time codes
_START = 1024


def kind_of(path: Path) -> Kind | None:
    """Of a file that is there: by its content, else by its ending; None if it is neither."""
    found = kind_of_start(_start_of(path))
    if found is not None:
        return found
    ending = path.suffix.lower()
    if ending in VIDEO_SUFFIXES:
        return "video"
    return "image" if ending in IMAGE_SUFFIXES else None


def kind_of_start(start: bytes) -> Kind | None:
    """By a file's first bytes."""
    if start.startswith(_IMAGES) or _is_bitmap(start) or _is_portable_map(start):
        return "image"
    if start.startswith(_VIDEOS) or _is_transport_stream(start):
        return "video"
    if start[:4] == b"RIFF":
        kinds: dict[bytes, Kind] = {b"WEBP": "image", b"AVI ": "video"}
        return kinds.get(start[8:12])
    if start[4:8] == b"ftyp":
        if start[8:12] in _AUDIO_BRANDS:
            return None
        return "image" if start[8:12] in _IMAGE_BRANDS else "video"
    return "video" if start[4:8] in _QUICKTIME else None


def _is_bitmap(start: bytes) -> bool:
    """BMP: two letters alone would be a word of many texts."""
    return start[:2] == b"BM" and start[6:10] == bytes(4)


def _is_portable_map(start: bytes) -> bool:
    return start[:1] == b"P" and start[1:2] in b"123456fF" and start[2:3] in (b"\n", b" ", b"\t")


def _is_transport_stream(start: bytes) -> bool:
    return any(
        len(start) > first + 3 * length
        and all(start[first + packet * length] == 0x47 for packet in range(4))
        for first, length in _TRANSPORT_PACKETS
    )


def _start_of(path: Path) -> bytes:
    """Empty where it is no regular file, or cannot be read."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(_START)
    except OSError:
        return b""
