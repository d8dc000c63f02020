"""`t2sda completion`: what bash offers, asked of bash."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from t2sda.cli.main import COMMANDS, main


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_verbs_options_and_choices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "t2sda.bash"
    script.write_text(capsys.readouterr().out)

    def offered(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in words)
        asked = (
            f"source {script}; COMP_WORDS=(t2sda {line}); COMP_CWORD={len(words)}; "
            f"_shtab_t2sda; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert offered("") >= set(COMMANDS)
    assert offered("infer", "--opac") == {"--opacity"}
    assert offered("data", "con") == {"convert"}
    assert offered("data", "convert", "label") == {"labelme", "labelstudio"}
    assert offered("export", "") >= {"onnx", "openvino", "tensorrt", "info"}
    assert offered("export", "onnx", "--precision", "in") == {"int8"}
    assert offered("train", "--config-file", str(script)) == {str(script)}


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_every_verb(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert [verb for verb in COMMANDS if verb not in script] == []


def test_a_shell_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "fish"])
    assert "choose from" in capsys.readouterr().err
