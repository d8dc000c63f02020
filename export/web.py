"""A static site that runs networks in the visitor's browser: nothing is sent anywhere."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from t2sda.errors import UserError
from t2sda.files import is_folder, make_writable_dir, unwritable
from t2sda.images import read_header
from t2sda.images.content import kind_of_start
from t2sda.images.files import content_of
from t2sda.runtime.metadata import Metadata
from t2sda.runtime.onnx_content import external_files
from t2sda.runtime.onnxruntime_file import checked_properties

from .ort_web import FILES, NOTICE, VERSION, runtime_files

PAGE = Path(__file__).with_name("site")
PAGE_FILES = ("index.html", "style.css", "app.js", "worker.js", "pixels.js")
DESCRIPTION = "site.json"
MODEL_FILES = ("adapted.onnx", "before.onnx")
SHOWN_BY_BROWSERS = (".jpg", ".jpeg", ".png", ".webp")


def write_site(
    models: Sequence[Path],
    site: Path,
    *,
    examples: Sequence[Path] = (),
    runtime: Mapping[str, bytes] | None = None,
) -> int:
    """Write the whole site; a site that was there before is replaced when the new one is complete.

    Args:
        models: ONNX files of ours: the adapted one, perhaps that before adaptation.
        site: the folder.
        examples: photographs that visitors can start with.
        runtime: of `prepared`, by default that of the package in the cache.

    Returns:
        Bytes of all files.

    Raises:
        UserError: if a file is none that the page can run, both do not fit together, an example is
            no image, or the folder holds something else than a site.
    """
    described = [_model(path, name) for path, name in zip(models, MODEL_FILES, strict=False)]
    metadata = [own for own, _ in described]
    _check_fit(metadata, models)
    _check_replaceable(site)
    shown = [_example(path, index) for index, path in enumerate(examples, start=1)]
    make_writable_dir(site.parent, "--output")
    files = {
        **(runtime or runtime_files(None)),
        "NOTICE.txt": NOTICE.encode(),
        **{name: (PAGE / name).read_bytes() for name in PAGE_FILES},
        **dict(shown),
        DESCRIPTION: _description(described, [name for name, _ in shown], examples),
    }
    try:
        return _write(files, models, site)
    except OSError as error:
        raise unwritable(site, error) from None


def _model(path: Path, name: str) -> tuple[Metadata, dict[str, Any]]:
    """Metadata of a file, and what the page knows of it."""
    properties = checked_properties(path)
    metadata = Metadata.from_properties(properties, path)
    if metadata.image_size is None or metadata.output_kind != "labels" or metadata.layout != "nhwc":
        raise UserError(
            f"{path}: takes images of {metadata.image_size or 'any size'} as {metadata.layout} and "
            f"gives {metadata.output_kind}; the page needs one size, nhwc and labels, as "
            f"`t2sda export onnx RUN --size HEIGHT WIDTH` writes it"
        )
    if external_files(path):
        raise UserError(f"{path}: its weights are in other files; export it again as one file")
    known = {"file": name, "precision": metadata.precision, "origin": dict(metadata.origin)}
    return metadata, {**known, "bytes": path.stat().st_size}


def _check_fit(metadata: Sequence[Metadata], paths: Sequence[Path]) -> None:
    for other, path in zip(metadata[1:], paths[1:], strict=True):
        first = metadata[0]
        if other.image_size != first.image_size or other.taxonomy != first.taxonomy:
            raise UserError(
                f"{path}: takes {other.image_size} and knows {other.taxonomy.name}, but {paths[0]} "
                f"takes {first.image_size} and knows {first.taxonomy.name}; both must be the same"
            )


def prepared(site: Path, archive: Path | None = None) -> Mapping[str, bytes]:
    """ONNX Runtime for `write_site`; what is wrong is said before exports that take minutes.

    Args:
        site: the folder.
        archive: see `runtime_files`.

    Raises:
        UserError: if the folder holds something else than a site, or ONNX Runtime is not there.
    """
    _check_replaceable(site)
    return runtime_files(archive)


def _check_replaceable(site: Path) -> None:
    """Raise UserError for a folder that holds anything but a site: it would be lost."""
    if site.is_symlink() or (site.exists() and not is_folder(site)):
        raise UserError(f"{site}: is no folder; choose another --output")
    found = sorted(path.name for path in site.iterdir()) if is_folder(site) else []
    foreign = [name for name in found if not _is_ours(name)]
    if found and DESCRIPTION not in found:
        raise UserError(
            f"{site}: holds something else than a site of `t2sda export web`, which would be "
            f"replaced; choose another --output"
        )
    if foreign:
        raise UserError(
            f"{site}: holds '{foreign[0]}', which `t2sda export web` has not written and would "
            f"remove; move it elsewhere, or choose another --output"
        )


def _is_ours(name: str) -> bool:
    known = {*PAGE_FILES, *MODEL_FILES, *FILES, DESCRIPTION, "NOTICE.txt"}
    return name in known or (name.startswith("example_") and name.endswith(SHOWN_BY_BROWSERS))


def _example(path: Path, index: int) -> tuple[str, bytes]:
    content = content_of(path)
    if path.suffix.lower() not in SHOWN_BY_BROWSERS or kind_of_start(content[:1024]) != "image":
        raise UserError(f"--example {path}: is no {', '.join(SHOWN_BY_BROWSERS)} image")
    read_header(path)
    return f"example_{index}{path.suffix.lower()}", content


def _description(
    described: Sequence[tuple[Metadata, dict[str, Any]]],
    names: Sequence[str],
    examples: Sequence[Path],
) -> bytes:
    """What the page reads: browsers' ONNX Runtime does not show metadata."""
    metadata = described[0][0]
    taxonomy = metadata.taxonomy
    content = {
        "runtime": f"onnxruntime-web {VERSION}",
        "size": metadata.image_size,
        "fill": metadata.letterbox.fill,
        "taxonomy": taxonomy.name,
        "classes": [
            {"name": name, "color": color}
            for name, color in zip(taxonomy.class_names, taxonomy.palette, strict=True)
        ],
        "models": [known for _, known in described],
        "examples": [
            {"file": name, "name": path.stem.replace("_", " ")}
            for name, path in zip(names, examples, strict=True)
        ],
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def _write(files: dict[str, bytes], models: Sequence[Path], site: Path) -> int:
    with tempfile.TemporaryDirectory(prefix=f".{site.name[:32]}-", dir=site.parent) as folder:
        new, old = Path(folder) / "new", Path(folder) / "old"
        new.mkdir()
        for name, content in files.items():
            (new / name).write_bytes(content)
        for path, name in zip(models, MODEL_FILES, strict=False):
            shutil.copyfile(path, new / name)
        num_bytes = sum(path.stat().st_size for path in new.iterdir())
        if site.exists():
            site.rename(old)
        new.rename(site)
        return num_bytes
