"""What every command says when something is wrong: one line, whatever is in names and plugins."""

from __future__ import annotations

import errno
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from t2sda.cli import infer, main, show_config
from t2sda.cli.common import distinct_names, load_components, run_command
from t2sda.errors import UserError
from t2sda.files import json_text


@pytest.fixture(autouse=True)
def _path_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--model", "m"],
            "error: the following arguments are required: --output",
        ),
        (["--batch", "-3"], "error: argument --batch: "),
        (["--model", "m", "\x1b[31m", "--batch", "\x1b[31m"], "error: argument --batch: "),
    ],
)
def test_wrong_arguments_are_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(infer.command, argv)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
    assert line.isprintable()


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\rb", "\u202eevil", "\udce4"])
def test_names_in_messages_are_spelled_out(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([name]) == 2
    assert run_command(show_config.command, ["--config-file", f"{name}.yaml"]) == 2
    for line in capsys.readouterr().err.splitlines():
        assert line.isprintable()


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [
        ("ascii", rb"Br\xfccke \udce4 \u9435"),
        ("cp437", b"Br\x81cke \\udce4 \\u9435"),
        ("latin-1", b"Br\xfccke \\udce4 \\u9435"),
        ("utf-8", "Brücke \\udce4 鐵".encode()),
    ],
)
def test_a_code_page_without_a_letter_is_no_error(
    monkeypatch: pytest.MonkeyPatch, encoding: str, printed: bytes
) -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", output)

    def command(_: Sequence[str]) -> int:
        print("Brücke \udce4 鐵")
        return 0

    assert run_command(command, []) == 0
    output.flush()
    assert output.buffer.getvalue() == printed + b"\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.ENAMETOOLONG, errno.EMFILE])
def test_what_the_system_refuses_is_one_line(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(_: Sequence[str]) -> int:
        raise OSError(number, "refused", "a\x1bb.png")

    assert run_command(command, []) == 2
    assert capsys.readouterr().err == "error: a\\x1bb.png: refused\n"


def test_our_own_errors_keep_their_traceback() -> None:
    def command(_: Sequence[str]) -> int:
        raise OSError(errno.EINVAL, "invalid")

    with pytest.raises(OSError, match="invalid"):
        run_command(command, [])


@pytest.mark.parametrize("plugin", ["", ".", "./my_plugin", "a-b", "..x", "/etc/passwd", "x."])
def test_what_is_no_name_of_a_module_is_refused(plugin: str) -> None:
    with pytest.raises(UserError, match="neither the name of a module nor"):
        load_components([plugin])


def test_the_working_directory_takes_no_module_s_place(tmp_path: Path) -> None:
    for name in ("json", "colorsys", "tabnanny", "numpy"):
        (tmp_path / f"{name}.py").write_text("open('it_ran', 'w')\n")
    (tmp_path / "my_plugin.py").write_text("import json, colorsys, tabnanny, numpy, my_helper\n")
    (tmp_path / "my_helper.py").write_text("")
    sys.modules.pop("tabnanny", None)
    load_components(["my_plugin"])
    assert not (tmp_path / "it_ran").exists()
    assert "my_helper" in sys.modules


@pytest.mark.parametrize("name", ["json.py", "torch.py", "t2sda.py"])
def test_a_file_takes_no_module_s_place_either(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    module = sys.modules[name.removesuffix(".py")]
    with pytest.raises(UserError, match="is loaded already; give the file another name"):
        load_components([name])
    assert sys.modules[name.removesuffix(".py")] is module


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = (", "SyntaxError: .*broken_plugin.py:1"),
        ("\n1 / 0", "ZeroDivisionError: division by zero .*broken_plugin.py:2"),
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named .*plugin.py:1"),
        ("\0", "null bytes"),
    ],
)
@pytest.mark.parametrize("plugin", ["broken_plugin", "broken_plugin.py"])
def test_an_error_in_a_plugin_is_placed(
    tmp_path: Path, plugin: str, code: str, message: str
) -> None:
    (tmp_path / "broken_plugin.py").write_text(code)
    with pytest.raises(UserError, match=f"--plugin {plugin}: .*{message}"):
        load_components([plugin])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "MODEL.HEAD.NAME",
            "LightHed",
            "no head is called 'LightHed'; known, nearest",
        ),
        ("MODEL.BACKBONE.NAME", "MiTT", "no backbone is called 'MiTT'"),
        ("HOOKS.NAMES", "[EmaTeacher, DynamicReweighting, Nothing]", "no hook is called 'Nothing'"),
    ],
)
def test_an_unknown_component_is_found_when_the_configuration_is_read(
    key: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(show_config.command, ["--config-file", "quickstart.yaml", key, value]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_dataset_says_where_own_ones_are_named() -> None:
    from t2sda.data.catalog import open_dataset

    with pytest.raises(UserError, match=r"DATASETS.FILES lists \(or --file"):
        open_dataset("nowhere")


def test_json_is_json() -> None:
    value = {"a": [float("nan"), 1.0, (float("inf"), None)], "b": {"c": -float("inf"), "d": "NaN"}}
    expected = {"a": [None, 1.0, [None, None]], "b": {"c": None, "d": "NaN"}}
    assert json.loads(json_text(value), parse_constant=pytest.fail) == expected


def test_names_are_as_short_as_they_can_be_and_no_path_is_given_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert distinct_names(["runs/a", Path("runs/b")]) == ["a", "b"]
    assert distinct_names(["one/run", "two/run"]) == ["one/run", "two/run"]
    (tmp_path / "runs").mkdir()
    (tmp_path / "link").symlink_to("runs")
    (tmp_path / "loop").symlink_to("loop")
    assert distinct_names(["loop", "runs"]) == ["loop", "runs"]
    for same in ("runs/", "./runs", "link", "runs/../runs"):
        with pytest.raises(UserError, match=f"^{same}: given twice; name each once"):
            distinct_names([same, "runs"])
