"""What the documents say is true: commands and Python blocks run, names and links exist.

Commands run in order in one folder, as a reader would type them. Trainings are scaled down: SMALL
is appended to the command, where it wins. The datasets that they name are made here, tiny, in
their real layout. `make`, `pip` and `export` lines are checked, not run.
"""

from __future__ import annotations

import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from t2sda.cli.main import main
from t2sda.data.catalog import DATASETS_VARIABLE
from tests.components import components_restored

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    *(f"docs/{name}.md" for name in ("extending", "data", "reproducing", "training", "tutorial")),
    pytest.param("docs/deployment.md", marks=pytest.mark.slow),
)
"""Documents whose blocks are run."""
ALL_DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
MAX_README_LINES = 200

SMALL = {
    "SOLVER.BATCH_SIZE": "2",
    "DATA.CROP_SIZE": "[64, 64]",
    "DATA.NUM_WORKERS": "0",
    "MODEL.HEAD.CHANNELS": "16",
    "LOGGING.PERIOD": "1",
    "LOGGING.TENSORBOARD": "false",
    "DEVICE": "cpu",
}
"""Settings of a training of a second; see also `scaled_down`."""
SMALL_NETWORK = {
    "MODEL.BACKBONE.TIMM_NAME": "test_resnet",
    "MODEL.BACKBONE.WEIGHTS": "",
    "FEATURE_DISTANCE.WEIGHT": "0",  # is to weights that it has not
}
"""`test_resnet` is a network of timm's own tests."""

FEW_IMAGES = ("--max-images", "2", "--pixels", "8")
"""Of an analysis of seconds."""

EQUATIONS = [*(f"({number})" for number in range(1, 16)), "(S1)", "(S2)"]
CONTRIBUTING_ROW = re.compile(r"^\| `([\w./]+)` \|", re.MULTILINE)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FIDELITY_ROW = re.compile(r"^\| ([ABE]\d+) \|", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
NAME_IN_FILE = re.compile(r"`([\w/]+\.py): (\w+)`((?:, `\w+`)*)")


class UnknownCommandError(Exception):
    """A document holds what this file does not know how to run."""


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str

    @property
    def file_name(self) -> str | None:
        """The file that the block's first line names, as in `# harbour.py`."""
        found = re.match(r"# ([\w.]+\.(?:py|yaml))\n", self.text)
        return found[1] if found else None


def blocks_of(document: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(document.read_text(encoding="utf-8"))]


def commands_of(block: Block) -> list[str]:
    """One command a line; comments stand on lines of their own."""
    lines = [line.strip() for line in block.text.splitlines()]
    assert not any(line.endswith("\\") for line in lines), f"one command a line: {block.text}"
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what a clone has, and below `data` the datasets that documents name."""
    for name in ("configs", "docs", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    data = tmp_path / "data"
    for split in ("train", "val"):
        make_listed_set(data / "source_procgen", data / "source_procgen" / f"{split}.txt")
    for split in ("train", "val", "test_dusk"):
        make_listed_set(data / "target_camvid" / split, data / "target_camvid" / f"{split}.txt")
    camvid, dev = data / "target_camvid/train", ("0006R0_1", "0006R0_2")
    make_images(camvid, "", (360, 480), ".jpg", ids=tuple(range(16)), stems=dev)
    for split in ("", "train", "val"):
        make_images(data / "harbour", split, (200, 280), ".png", ids=(0, 7, 8))
        make_images(data / "photographs", split, (240, 320), ".jpg", ids=(0, 7, 8))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(DATASETS_VARIABLE, str(data))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_listed_set(root: Path, stems: Path) -> None:
    """Images of CamVid's size, and the list file beside or above them."""
    make_images(root, "", (360, 480), ".jpg", ids=tuple(range(16)))
    stems.write_text("a\nb\n")


def make_images(
    root: Path,
    split: str,
    size: tuple[int, int],
    suffix: str,
    ids: tuple[int, ...],
    stems: Sequence[str] = ("a", "b"),
) -> None:
    """images/SPLIT/STEM.SUFFIX and labels/SPLIT/STEM.png, of noise."""
    dice = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder / split).mkdir(parents=True, exist_ok=True)
    for stem in stems:
        image = dice.integers(0, 256, (*size, 3), dtype=np.uint8)
        label = dice.choice(np.array(ids, dtype=np.uint8), size)
        Image.fromarray(image).save(root / "images" / split / f"{stem}{suffix}")
        Image.fromarray(label).save(root / "labels" / split / f"{stem}.png")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_and_python_run_in_order(workshop: Path, document: str) -> None:
    for block in blocks_of(ROOT / document):
        if block.language == "bash":
            for command in commands_of(block):
                print(f"$ {command}")
                run(command)
        elif block.file_name is not None:
            (workshop / block.file_name).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            with components_restored():
                exec(compile(block.text, document, "exec"), {})
        elif block.language != "text":
            raise UnknownCommandError(f"{document}: a block of '{block.language}':\n{block.text}")


def run(command: str) -> None:
    """Run or check one command; raises UnknownCommandError for one of a new kind."""
    program, *words = shlex.split(command)
    if program not in RUNNERS:
        raise UnknownCommandError(f"'{command}': add a runner for {program} to {__file__}")
    RUNNERS[program](words)


def run_make(words: list[str]) -> None:
    """The target exists; it is not run."""
    (target,) = words
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"no target {target}"
    subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def run_pip(words: list[str]) -> None:
    """`pip install '.[extras]'` names extras of setup.py; nothing is installed."""
    found = re.fullmatch(r"install \.\[([\w,-]+)\]", " ".join(words))
    if found is None:
        raise UnknownCommandError(f"pip {' '.join(words)}")
    assert set(found[1].split(",")) <= extras()


def run_export(words: list[str]) -> None:
    """Only our own variable is set; here it must lead to the folder that `workshop` made."""
    name, _, value = " ".join(words).partition("=")
    if name != DATASETS_VARIABLE:
        raise UnknownCommandError(f"export {name}")
    assert os.path.expandvars(value) == os.environ[name]


def run_t2sda(words: list[str]) -> None:
    """In this process, and what a plugin registers is forgotten as at a process's end."""
    if words[0] == "train":
        words = scaled_down(words)
    elif words[0] == "evaluate":  # what the command scores takes minutes
        words = [*words[: words.index("--data") + 1], "rendered_val"]
    elif words[0] == "analyze":
        words = [*words, *FEW_IMAGES]
    with components_restored():
        assert main(words) == 0, words
    check_results(words)


def run_python(words: list[str]) -> None:
    """`python tools/NAME.py …`, in this process."""
    script, *arguments = words
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *arguments])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(script, run_name="__main__")
    assert left.value.code == 0


def run_torchrun(words: list[str]) -> None:
    """In processes of their own."""
    words = scaled_down(words)
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=240,
    )
    check_results(words)


RUNNERS: dict[str, Callable[[list[str]], None]] = {
    "make": run_make,
    "pip": run_pip,
    "export": run_export,
    "t2sda": run_t2sda,
    "python": run_python,
    "torchrun": run_torchrun,
}


def scaled_down(words: list[str]) -> list[str]:
    """The training with SMALL behind it: one step, a second one where it resumes.

    A training scores only datasets that its command names itself, as these are tiny. A network of
    a document's own, which a plugin brings, is small already.
    """
    settings = {
        **SMALL,
        "SOLVER.MAX_ITER": "2" if "--resume" in words else "1",
        "EVALUATION.PERIOD": "1" if "EVALUATION.DATASETS" in words else "0",
    }
    if value_of("--config-file", words).startswith("configs/") or "--plugin" not in words:
        settings |= SMALL_NETWORK
    return [*words, *(word for pair in settings.items() for word in pair)]


def check_results(words: list[str]) -> None:
    """What the command promises to write is there."""
    if words[0] == "evaluate":
        assert Path(words[1], "evaluation.json").is_file()
    elif "--output-dir" in words:
        last = int(value_of("SOLVER.MAX_ITER", words))
        assert Path(value_of("--output-dir", words), f"checkpoint_{last:07d}.pth").is_file()
    elif words[0] == "export":
        output = value_of("--output", words)
        assert Path(output).is_file() or Path(f"{output}.unverified").is_file()
    elif words[0] == "analyze":
        assert Path(words[1], "analysis", "analysis.json").is_file()
    elif words[0] == "infer":
        assert list(Path(value_of("--output", words)).glob("lund_street_01_*.*"))


def value_of(option: str, words: list[str]) -> str:
    """The last one: of settings that are given twice it counts."""
    return words[len(words) - words[::-1].index(option)]


def extras() -> set[str]:
    """Names of the extras in setup.py, which cannot be imported without installing."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXTRAS":
            assert isinstance(node.value, ast.Dict)
            return {ast.literal_eval(key) for key in node.value.keys if key is not None}
    raise AssertionError("setup.py has no EXTRAS")


@pytest.mark.parametrize(
    "command",
    ["curl example.org", "pip install torch", "export PATH=/bin", "make coffee", "t2sda brew"],
)
def test_a_command_of_a_new_kind_fails(workshop: Path, command: str) -> None:
    with pytest.raises((UnknownCommandError, AssertionError)):
        run(command)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


def test_the_readme_says_first_what_was_not_measured() -> None:
    title, first, *_ = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")
    assert title.startswith("# ")
    assert "no number of the paper's benchmarks" in first.replace("\n", " ")


def test_the_map_holds_every_equation() -> None:
    text = (ROOT / "docs/equations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\(.*?) \|", text, re.M)
    assert sorted(number for row in rows for number in row.split(", ")) == sorted(EQUATIONS)


def test_the_map_of_rooms_is_that_of_the_tree() -> None:
    shown = CONTRIBUTING_ROW.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert [room for room in shown if not (ROOT / room).exists()] == []
    rooms = {path.name for path in (ROOT / "t2sda").iterdir() if not path.name.startswith("_")}
    assert rooms - {"py.typed"} <= {Path(room).name for room in shown}


@pytest.mark.parametrize("document", ALL_DOCUMENTS, ids=lambda path: path.name)
def test_functions_and_classes_that_are_named_exist(document: Path) -> None:
    for file_name, first, others in NAME_IN_FILE.findall(document.read_text(encoding="utf-8")):
        tree = ast.parse((ROOT / "t2sda" / file_name).read_text(encoding="utf-8"))
        defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        assert {first, *re.findall(r"\w+", others)} <= defined, file_name


@pytest.mark.parametrize("document", ALL_DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = LINK.findall(document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_fidelity_has_exactly_the_rows_that_the_code_names() -> None:
    rows = FIDELITY_ROW.findall((ROOT / "docs/fidelity.md").read_text(encoding="utf-8"))
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "t2sda").rglob("*.py")]
    referring = [text for text in texts if "docs/fidelity.md" in text]
    named = {row for text in referring for row in re.findall(r"\b[ABE]\d{1,2}\b", text)}
    assert len(rows) == len(set(rows))
    assert set(rows) == named
