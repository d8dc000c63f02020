"""Finding config files, own and shipped, and following their bases."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from t2sda.config import ConfigError, Schema, files, find_config, load_config
from t2sda.errors import UserError

Write = Callable[[str, str], Path]


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of shipped configs, beside an empty working directory."""
    folder = tmp_path / "site" / "configs"
    folder.mkdir(parents=True)
    monkeypatch.setattr(files, "_shipped_dir", lambda: folder)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def problem_of(path: Path, schema: Schema) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, schema=schema)
    (problem,) = caught.value.problems
    return problem.replace(f"{path.parent}/", "")


# Bases --------------------------------------------------------------------------------------


def test_a_file_overrides_its_base_key_by_key(schema: Schema, write: Write) -> None:
    write("base.yaml", "SOLVER: {NUM_STEPS: 7, AMP: true}\nSEED: 1\n")
    path = write("runs/a.yaml", "_BASE_: ../base.yaml\nSOLVER: {NUM_STEPS: 8}\n")
    cfg = load_config(path, schema=schema)
    assert (cfg.SOLVER.NUM_STEPS, cfg.SOLVER.AMP, cfg.SEED) == (8, True, 1)


def test_the_later_of_several_bases_wins(schema: Schema, write: Write) -> None:
    write("one.yaml", "SEED: 1\nSOLVER: {NUM_STEPS: 1}\n")
    write("two.yaml", "SEED: 2\n")
    cfg = load_config(write("a.yaml", "_BASE_: [one.yaml, two.yaml]\n"), schema=schema)
    assert (cfg.SEED, cfg.SOLVER.NUM_STEPS) == (2, 1)


def test_a_base_in_the_home_folder(
    schema: Schema, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = write("home/base.yaml", "SEED: 5\n").parent
    monkeypatch.setenv("HOME", str(home))
    cfg = load_config(write("a.yaml", "_BASE_: ~/base.yaml\n"), schema=schema)
    assert cfg.SEED == 5


def test_a_base_that_two_bases_share_is_no_cycle(schema: Schema, write: Write) -> None:
    write("root.yaml", "SEED: 1\n")
    write("b.yaml", "_BASE_: root.yaml\n")
    write("c.yaml", "_BASE_: root.yaml\n")
    assert load_config(write("a.yaml", "_BASE_: [b.yaml, c.yaml]\n"), schema=schema).SEED == 1


def test_a_problem_in_a_shared_base_is_reported_once(schema: Schema, write: Write) -> None:
    write("root.yaml", "SEED: -1\n")
    write("b.yaml", "_BASE_: root.yaml\n")
    path = write("a.yaml", "_BASE_: [b.yaml, root.yaml]\n")
    assert problem_of(path, schema) == "SEED: found -1 (root.yaml:1); must be >= 0"


def test_a_base_behind_a_linked_folder_is_found(schema: Schema, write: Write) -> None:
    folder = write("deep/real/a.yaml", "_BASE_: ../base.yaml\n").parent
    write("deep/base.yaml", "SEED: 4\n")
    link = folder.parents[1] / "link"
    link.symlink_to(folder, target_is_directory=True)
    write("base.yaml", "SEED: 9\n")  # beside the link, not beside the folder
    assert load_config(link / "a.yaml", schema=schema).SEED == 4


def test_a_cycle_is_reported_with_the_chain(schema: Schema, write: Write) -> None:
    write("b.yaml", "_BASE_: c.yaml\n")
    write("c.yaml", "_BASE_: a.yaml\n")
    path = write("a.yaml", "_BASE_: b.yaml\n")
    assert problem_of(path, schema) == (
        "_BASE_: the bases form a cycle: a.yaml -> b.yaml -> c.yaml -> a.yaml; "
        "remove one of the links"
    )


def test_a_missing_base_names_who_asked_and_the_nearest_files(
    schema: Schema, write: Write, shipped: Path
) -> None:
    write("base_mit.yaml", "")
    write("other.yaml", "")
    path = write("zzz.yaml", "SEED: 1\n_BASE_: base_mitt.yaml\n")
    assert problem_of(path, schema) == (
        "base_mitt.yaml: no such file; nearest existing: base_mit.yaml, other.yaml, zzz.yaml; "
        "_BASE_ in zzz.yaml:2 asks for it"
    )


@pytest.mark.parametrize(
    ("base", "found"),
    [("3", "3"), ("", "null"), ("[a.yaml, 1]", "['a.yaml', 1]"), ("{A: 1}", "a section")],
)
def test_a_base_that_is_no_file_name_is_reported(
    schema: Schema, write: Write, base: str, found: str
) -> None:
    assert problem_of(write("a.yaml", f"_BASE_: {base}\n"), schema) == (
        f"_BASE_: found {found} (a.yaml:1); must be a file name or a list of file names"
    )


# Finding ------------------------------------------------------------------------------------


def test_an_existing_file_comes_before_the_shipped_one(shipped: Path) -> None:
    (shipped / "a.yaml").write_text("SEED: 1\n")
    Path("a.yaml").write_text("SEED: 2\n")
    assert find_config("a.yaml") == Path("a.yaml")


@pytest.mark.parametrize("name", ["models/a.yaml", "configs/models/a.yaml"])
def test_a_shipped_config_is_found_with_and_without_its_folder(
    shipped: Path, schema: Schema, name: str
) -> None:
    (shipped / "models").mkdir()
    (shipped / "base.yaml").write_text("SEED: 6\n")
    (shipped / "models" / "a.yaml").write_text("_BASE_: ../base.yaml\n")
    assert find_config(name) == shipped / "models" / "a.yaml"
    assert load_config(name, schema=schema).SEED == 6


def test_an_own_file_can_stand_on_a_shipped_one(shipped: Path, schema: Schema) -> None:
    (shipped / "base.yaml").write_text("SEED: 6\n")
    Path("own.yaml").write_text("_BASE_: configs/base.yaml\n")
    assert load_config("own.yaml", schema=schema).SEED == 6


def test_a_missing_file_names_the_nearest_in_its_folder_and_among_the_shipped(
    shipped: Path,
) -> None:
    (shipped / "quickstart.yaml").write_text("")
    Path("quickstep.yaml").write_text("")
    with pytest.raises(ConfigError) as caught:
        find_config("quikstart.yaml")
    assert caught.value.problems == [
        "quikstart.yaml: no such file; nearest existing: quickstep.yaml, configs/quickstart.yaml"
    ]


def test_a_file_that_may_not_be_read_is_reported(
    schema: Schema, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("a.yaml", "SEED: 1\n")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    assert problem_of(path, schema) == "a.yaml: cannot be read (Permission denied)"


def test_a_folder_is_no_config_file(shipped: Path) -> None:
    with pytest.raises(ConfigError, match="configs: no such file; nearest existing: none"):
        find_config("configs")


def test_a_shipped_name_cannot_leave_the_shipped_folder(shipped: Path) -> None:
    (shipped.parent / "secret.yaml").write_text("")
    with pytest.raises(ConfigError, match="no such file"):
        find_config("configs/../secret.yaml")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package t2sda.configs, as an installation has it."""
    import t2sda

    folder = tmp_path / "installed" / "configs"
    folder.mkdir(parents=True)
    (folder / "only_installed.yaml").write_text("")
    monkeypatch.setattr(t2sda, "__path__", [*t2sda.__path__, str(folder.parent)])
    yield folder
    sys.modules.pop("t2sda.configs", None)


def test_the_installed_package_of_configs_is_searched(installed: Path) -> None:
    assert find_config("configs/only_installed.yaml") == installed / "only_installed.yaml"


def test_a_source_tree_is_searched_beside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "a.yaml").write_text("")
    monkeypatch.setattr(files, "__file__", str(tmp_path / "t2sda" / "config" / "files.py"))
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    assert find_config("a.yaml") == tmp_path / "configs" / "a.yaml"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "link to itself"])
def test_what_is_no_file_is_named_and_not_read(
    schema: Schema, write: Write, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "x.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link to itself":
        path.symlink_to(path)
    else:
        path.symlink_to("/dev/zero")
    words = {"pipe": "is a pipe", "folder": "is a folder", "device": "is a device"}
    for config in (path, write("run.yaml", "_BASE_: x.yaml\n")):
        assert words.get(kind, "cannot be read") in problem_of(config, schema)


@pytest.mark.parametrize("name", ["a" * 300, "~nosuchuser/x.yaml", "\udce4.yaml", "a/" * 3000])
def test_names_that_no_file_has_are_reported(schema: Schema, write: Write, name: str) -> None:
    assert problem_of(Path(name), schema)
    assert problem_of(write("run.yaml", f"_BASE_: {json.dumps(name)}\n"), schema)


def test_a_name_with_a_nul_character_is_reported(schema: Schema, write: Write) -> None:
    with pytest.raises(UserError, match="NUL"):
        load_config("a\0b", schema=schema)
    assert "must be a file name" in problem_of(write("run.yaml", '_BASE_: "a\\0b"\n'), schema)


def test_a_base_that_many_name_is_read_once_and_wins_where_it_came_last(
    schema: Schema, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for level in range(40):
        write(f"{level}.yaml", f"_BASE_: [{level + 1}.yaml, {level + 1}.yaml]\n")
    write("40.yaml", "SEED: 40\n")
    assert load_config(write("run.yaml", "_BASE_: 0.yaml\n"), schema=schema).SEED == 40
    # a sets the seed over the common base, then the common base comes again with b
    write("common.yaml", "SEED: 1\nSOLVER: {NUM_STEPS: 1}\n")
    write("a.yaml", "_BASE_: common.yaml\nSEED: 2\nSOLVER: {AMP: true}\n")
    write("b.yaml", "_BASE_: common.yaml\nSOLVER: {NUM_STEPS: 2}\n")
    cfg = load_config(write("run.yaml", "_BASE_: [a.yaml, b.yaml]\n"), schema=schema)
    assert (cfg.SEED, cfg.SOLVER.NUM_STEPS, cfg.SOLVER.AMP) == (1, 2, True)


def test_a_chain_of_bases_has_an_end(schema: Schema, write: Write) -> None:
    for level in range(2000):
        path = write(f"{level}.yaml", f"_BASE_: {level + 1}.yaml\n")
    write("2000.yaml", "SEED: 1\n")
    assert "more than 50 files" in problem_of(path.with_name("0.yaml"), schema)


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"KEY_{number}: 1\n" for number in range(20_000)),
        "K" * 100_000 + ": 1\n",
        "SOLVER:\n" + "".join(f"  LR_{number}: 1\n" for number in range(20_000)),
        "MODEL: {NAME: " + "x" * 100_000 + "}\n",
    ],
)
def test_thousands_of_unknown_keys_and_letters_take_no_minute(
    schema: Schema, write: Write, text: str
) -> None:
    begin = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_config(write("run.yaml", text), schema=schema)
    assert time.process_time() - begin < 15
    assert len(str(caught.value)) < 20_000


@pytest.mark.parametrize(
    ("text", "words"), [("<!DOCTYPE html>", "web page"), ("version https://git-lfs.x/v1", "LFS")]
)
def test_a_download_that_went_wrong_is_named(
    schema: Schema, write: Write, text: str, words: str
) -> None:
    assert words in problem_of(write("run.yaml", text), schema)
