"""Size of a checkout: code lines by package and by method, functions, helpers used once, settings.

`python benchmarks/code_size.py [CHECKOUT]` prints a Markdown table. A code line is one that is
neither blank nor comment nor part of a docstring. A private helper is a function whose name begins
with one underscore; it is used once if its name appears once beside its definition in the package.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from pathlib import Path

METHODS = {
    "AdaptSegNet and ADVENT": (360, "losses/adversarial meta_arch/adversarial meta_arch/owners"),
    "MinEnt": (None, "losses/entropy meta_arch/entropy"),
    "CBST and CRST": (
        380,
        "meta_arch/labelled_target evaluation/label_rules evaluation/pseudo_labelling "
        "data/relabelled cli/pseudo_label",
    ),
    "FST": (90, "engine/lookahead"),
    "MIC": (None, "losses/masking meta_arch/masked"),
    "VFM-UDA": (
        None,
        "meta_arch/mask_token modeling/backbones/timm_tokens modeling/heads/tokens",
    ),
    "AdaBN": (None, "meta_arch/target_statistics"),
    "SePiCo": (150, "losses/distribution meta_arch/sepico"),
    "SePiCo's target crops": (120, "data/target_crop"),
    "translated files": (30, "data/translation/files"),
    "T2S-DA": (
        None,
        "losses/pull losses/pull_sampling losses/sampling "
        "meta_arch/pull meta_arch/objectives meta_arch/t2sda",
    ),
}
"""Lines that were expected before a method was written, and the modules of t2sda/ it has alone."""
PACKAGES = ("t2sda", "export", "tools")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)


def code_lines(text: str) -> int:
    """Lines of `text` that hold code."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        # A string behind a field is its documentation as well.
        for item in getattr(node, "body", []) if isinstance(node, DOCUMENTED) else []:
            if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant):
                docstrings.update(range(item.lineno, (item.end_lineno or item.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT and token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def method_rows(files: dict[Path, str], root: Path) -> list[str]:
    """Of every method the code lines of its own modules, and of all others that name one of them.

    The second number is what adding it edited outside its own files: imports and registrations.
    """
    rows = []
    for name, (expected, modules) in METHODS.items():
        own = {root / "t2sda" / f"{module}.py" for module in modules.split()} & files.keys()
        named = "|".join(path.relative_to(root).with_suffix("").as_posix() for path in own)
        imports = re.compile(rf"^(?:from|import) (?:{named.replace('/', '[.]')})\b", re.MULTILINE)
        lines = sum(code_lines(files[path]) for path in own)
        outside = sum(len(imports.findall(text)) for path, text in files.items() if path not in own)
        rows.append(f"| {name} | {expected or ''} | {lines} | {outside if own else 0} |")
    return rows


def package_of(path: Path, root: Path) -> str:
    """The first two folders of a file below `root`."""
    parts = path.relative_to(root).parts[:-1]
    return "/".join(parts[:2]) if parts else "."


def main() -> None:
    """Print the tables."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    files = {path: path.read_text() for name in PACKAGES for path in (root / name).rglob("*.py")}
    lines: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    private: list[str] = []
    for path, text in files.items():
        package = package_of(path, root)
        lines[package] += code_lines(text)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                functions[package] += 1
                if re.match(r"_[a-z]", node.name):
                    private.append(node.name)
    words = Counter(re.findall(r"\b_[a-z]\w*", "\n".join(files.values())))
    used_once = sum(words[name] == 2 for name in private)
    print("| package | code lines | functions |\n| --- | --- | --- |")
    for package in sorted(lines):
        print(f"| {package} | {lines[package]} | {functions[package]} |")
    print(f"| all | {lines.total()} | {functions.total()} |")
    print("\n| method | expected | code lines of its own | imports of them elsewhere |")
    print("\n".join(["| --- | --- | --- | --- |", *method_rows(files, root)]))
    streets = sum(code_lines(text) for path, text in files.items() if "streets" in path.parts)
    print(f"\nwithout the drawn streets: {lines.total() - streets} code lines")
    print(f"private helpers used once: {used_once}")
    settings = re.findall(r"^\| `[A-Z]", (root / "docs/config.md").read_text(), re.MULTILINE)
    print(f"settings: {len(settings)}")
    block = (root / "setup.py").read_text().split("install_requires=[")[1].split("]")[0]
    required = re.findall(r'^\s*"(\S+?)[><=]', block, re.MULTILINE)
    print(f"hard dependencies: {len(required)}")


if __name__ == "__main__":
    main()
