"""`t2sda infer` and `merge` between URLs: what a local run makes, whatever happens on the way."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from t2sda.cli.main import main
from t2sda.errors import UserError
from t2sda.inference import remote, transfer
from t2sda.inference.shares import RECORD_NAME
from t2sda.inference.sources import find_all_sources
from tests.cli.test_shards import contents
from tests.cli.urls import IN, NAMES, OUT, infer, local, stored, write_png
from tests.tiny_onnx import tiny_model, write_tiny

pytestmark = pytest.mark.usefixtures("memory")


def test_the_same_bytes_as_between_folders(
    tmp_path: Path,
    model: Path,
    photos: Path,
    memory: MemoryFileSystem,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert infer(model, photos, tmp_path / "out") == 0
    capsys.readouterr()
    assert infer(model, IN, OUT) == 0
    shown = capsys.readouterr().out
    assert "passed over in memory://street: other files: 1" in shown
    assert "memory://street/bonn/1.png" in shown
    assert "results in memory://labels" in shown
    assert "/tmp" not in shown
    assert stored(memory) == local(tmp_path / "out")
    assert infer(model, photos, OUT) == 0  # from a folder to a URL
    assert stored(memory) == local(tmp_path / "out")
    assert infer(model, IN, tmp_path / "back") == 0
    assert local(tmp_path / "back") == local(tmp_path / "out")


def test_patterns_files_and_lists(
    tmp_path: Path, model: Path, photos: Path, memory: MemoryFileSystem
) -> None:
    def made(source: object, *options: str) -> set[str]:
        if memory.exists("/labels"):
            memory.rm("/labels", recursive=True)
        assert infer(model, source, OUT, *options) == 0
        return {name for name in stored(memory) if name.endswith("_trainid.png")}

    assert made(f"{IN}/bonn/*.png") == {"1_trainid.png", "2_trainid.png"}
    assert made(f"{IN}/{{bonn,köln}}/*.png") == {
        *("bonn/1_trainid.png", "bonn/2_trainid.png", "köln/3 a_trainid.png"),
    }
    assert made(f"{IN}/0.png") == {"0_trainid.png"}
    everything = {f"{Path(name).with_suffix('')}_trainid.png" for name in NAMES}
    lines = "".join(f"{IN}/{name}\n" for name in NAMES)
    (tmp_path / "list").write_text(lines)
    assert made(None, "--files-from", str(tmp_path / "list")) == everything
    memory.pipe_file("/list", lines.encode())
    assert made(None, "--files-from", "memory://list") == everything


def test_a_long_list_asks_for_folders_instead_of_files(
    tmp_path: Path, model: Path, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write_png(tmp_path / "0.png")
    for index in range(transfer.FEW + 1):
        memory.pipe_file(f"/street/{index}.png", content)
    monkeypatch.setattr(remote.Store, "find", lambda *_: pytest.fail("asks for one file"))
    (tmp_path / "list").write_text(
        "".join(f"{IN}/{index}.png\n" for index in range(transfer.FEW + 1))
    )
    assert infer(model, None, tmp_path / "out", "--files-from", str(tmp_path / "list")) == 0
    monkeypatch.undo()
    (tmp_path / "list").write_text(f"{IN}/none.png\n{(tmp_path / 'list').read_text()}")
    assert infer(model, None, tmp_path / "out", "--files-from", str(tmp_path / "list")) == 2


def test_resume_does_what_is_missing_and_what_has_changed(
    tmp_path: Path,
    model: Path,
    photos: Path,
    memory: MemoryFileSystem,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert infer(model, IN, OUT) == 0
    first = stored(memory)
    capsys.readouterr()
    assert infer(model, IN, OUT, "--resume") == 0
    assert "0 images" in capsys.readouterr().out
    assert stored(memory) == first
    memory.rm_file("/labels/0_trainid.png")  # the record says more than there is
    memory.pipe_file("/labels/bonn/1_json.json", b"")
    memory.pipe_file("/street/bonn/2.PNG", write_png(tmp_path / "other.png", 22))
    assert infer(model, IN, OUT, "--resume") == 0
    assert "3 images" in capsys.readouterr().out
    assert infer(model, IN, OUT, "--resume", "--min-confidence", "0.5") == 2
    assert "error: --min-confidence" in capsys.readouterr().err
    assert infer(write_tiny(tmp_path / "b.onnx", tiny_model("logits")), IN, OUT, "--resume") == 2
    assert "--resume: results in memory://labels were made with" in capsys.readouterr().err


def test_output_inside_of_input_is_not_taken_for_input(
    model: Path, photos: Path, memory: MemoryFileSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("out", "out2"):
        assert infer(model, IN, f"{IN}/{folder}") == 0
        assert "4 images" in capsys.readouterr().out
    assert infer(model, IN, IN) == 2
    assert "memory://street: results would lie among the images" in capsys.readouterr().err


def test_shards_and_merge(
    tmp_path: Path,
    model: Path,
    photos: Path,
    memory: MemoryFileSystem,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert infer(model, photos, tmp_path / "out") == 0
    assert infer(model, IN, OUT, "--shard", "1/2") == 0
    assert infer(model, IN, OUT, "--shard", "1/3") == 2
    assert "memory://labels/shards: holds shards of 2" in capsys.readouterr().err
    assert main(["merge", OUT]) == 2
    assert "memory://labels: shards 2/2 are missing" in capsys.readouterr().err
    assert infer(model, IN, OUT, "--shard", "2/2") == 0
    memory.rm_file("/labels/shards/2-of-2/done.json")
    assert main(["merge", OUT]) == 2
    assert "shard 2/2 did not come to its end" in capsys.readouterr().err
    assert not memory.exists("/labels/classes.json")
    assert infer(model, IN, OUT, "--shard", "2/2", "--resume") == 0
    assert "finished earlier" in capsys.readouterr().out
    assert main(["merge", OUT]) == 0
    assert "summary in memory://labels" in capsys.readouterr().out
    assert stored(memory) == local(tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("nowhere://b/a", "{tmp}/out", "nowhere://: cannot be opened (Protocol not known: nowhere"),
        (IN, "nowhere://b/a", "nowhere://: cannot be opened (Protocol not known: nowhere"),
        ("memory://none", "{tmp}/out", "memory://none: is not there"),
        (f"{IN}/*.jpg", OUT, "memory://street/*.jpg: no file matches"),
        (f"{IN}/../x", OUT, "names no file or folder"),
        ("memory://*/x", OUT, "memory://*/x: name the bucket"),
        ("memory://", OUT, "names no file or folder"),
        (IN, "memory://", "names no file or folder"),
        (IN, "memory:///", "names no file or folder"),
        ("github://a/b", OUT, "cannot be opened (GithubFileSystem.__init__() missing"),
        ("github://a/b", OUT, "from the environment, as in FSSPEC_GITHUB_HOST"),
        ("file:///etc", OUT, "file://: is this machine; write the path alone"),
        (IN, "file:///x", "file://: is this machine; write the path alone"),
        (f"{IN}/notes.txt", OUT, "notes.txt"),
    ],
)
def test_bad_urls_end_in_one_message_and_nothing_is_written(
    source: str,
    output: str,
    message: str,
    tmp_path: Path,
    model: Path,
    photos: Path,
    memory: MemoryFileSystem,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = infer(model, source, output.format(tmp=tmp_path))
    shown = capsys.readouterr().err
    assert message in shown
    assert "/tmp/t2sda-" not in shown
    if "notes" in source:
        assert code == 3
        return
    assert code == 2
    assert shown.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not memory.exists("/labels")


def test_names_of_urls_beside_paths_are_those_of_every_run_and_shard(
    tmp_path: Path, model: Path, photos: Path, memory: MemoryFileSystem
) -> None:
    inputs = ["--model", str(model), "--input", IN, str(photos), "--kind", "trainid"]
    one, many = tmp_path / "one", tmp_path / "many"
    assert main(["infer", *inputs, "--output", str(one)]) == 0
    assert (one / "memory/street/bonn/1_trainid.png").is_file()
    assert (one / str(photos).lstrip("/") / "bonn/1_trainid.png").is_file()
    for shard in ("1/2", "2/2"):
        assert main(["infer", *inputs, "--output", str(many), "--shard", shard]) == 0
    assert main(["merge", str(many)]) == 0
    both = [contents(folder) for folder in (one, many)]
    for found in both:  # of URLs it says where the image came from
        del found[RECORD_NAME]
    assert both[0] == both[1]


def test_a_path_that_is_called_like_a_url_is_refused(tmp_path: Path) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in files:
        write_png(file)
    with pytest.raises(UserError, match=r"b\.png: its results would be called like those of .*a\."):
        find_all_sources(list(map(str, files)), tmp_path / "out", lambda path: Path("/s3/a.png"))


@pytest.mark.parametrize("name", ["a?.png", "a*.png", "[a].png", "a#b.png", "a%20b.png", "ü b.png"])
def test_letters_of_patterns_in_a_name_are_letters(
    name: str, tmp_path: Path, model: Path, memory: MemoryFileSystem
) -> None:
    path = tmp_path / name
    write_png(path)
    assert infer(model, str(path), f"{OUT}/what?") == 0
    stem = Path(name).stem
    assert f"{stem}_trainid.png" in stored(memory, "/labels/what?")
    assert not [found for found in memory.find("/") if ".partial" in found]


def test_a_model_behind_a_url_is_to_be_copied_first(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(Path("s3://bucket/a.onnx"), IN, OUT) == 2
    assert "models are read from this machine, so copy it here" in capsys.readouterr().err


def test_merge_of_bad_urls(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", OUT]) == 2
    assert "memory://labels: holds no shards" in capsys.readouterr().err
    assert main(["merge", "nowhere://labels"]) == 2
    assert "Protocol not known" in capsys.readouterr().err


def test_a_missing_package_names_the_extra(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_s3fs(scheme: str, **options: Any) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", without_s3fs)
    assert infer(model, "s3://bucket/a", "out") == 2
    needed = "s3://: needs another package (Install s3fs to access S3); pip install 't2sda[cloud]'"
    assert capsys.readouterr().err == f"error: {needed}\n"
    assert infer(model, "gs://bucket/a", "out") == 2
    assert "t2sda[cloud]" not in capsys.readouterr().err  # it would not help
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert infer(model, "s3://bucket/a", "out") == 2
    needed = "s3://: needs the package fsspec; pip install 't2sda[cloud]'"
    assert capsys.readouterr().err == f"error: {needed}\n"


def test_names_that_no_file_here_can_have_are_counted(
    model: Path, photos: Path, memory: MemoryFileSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    content = memory.cat_file("/street/0.png")
    for name in (f"{'x' * 300}.png", "a/../../escape.png", "notes.txt/below.png"):
        MemoryFileSystem.store[f"/street/{name}"] = MemoryFileSystem.store["/street/0.png"]
    assert infer(model, IN, OUT) == 0
    assert "names that no file here can have: 3" in capsys.readouterr().out
    assert memory.cat_file("/street/0.png") == content
