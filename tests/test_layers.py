"""Who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import duologue

ROOT = Path(duologue.__file__).parent

MAY_IMPORT = {
    "errors": "",
    "numbers": "",
    "config": "errors",
    "audio": "errors",
    "streaming": "errors",
    "nn": "errors streaming",
    "codecs": "errors config audio streaming nn",
    "vocoders": "errors config audio streaming nn",
    "models": "errors config numbers audio streaming nn codecs vocoders",
    "checkpoints": "errors config codecs vocoders models",
    "data": "errors config numbers audio codecs",
    "pipeline": "errors config audio streaming checkpoints models",
    "engine": "errors config audio streaming",
    "eval": "errors config audio streaming data checkpoints pipeline engine",
    "train": "errors config audio data models codecs vocoders nn streaming checkpoints eval",
    "skills": "errors config numbers",
    "server": "errors config audio streaming engine pipeline skills",
}
EVERYTHING = {"cli", "__init__", "__main__"}  # the command line, and the package's front door


def part(path: Path) -> str:
    """The layer that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(source: str) -> set[str]:
    """Every layer that a source imports, at whatever depth; relative imports count as '.'."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            names = ["duologue.."]
        elif isinstance(node, ast.ImportFrom) and node.module == "duologue":
            names = [f"duologue.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            head, *rest = name.split(".")
            if head == "duologue":
                found.add(rest[0] if rest and rest[0] else "." if rest else "duologue")
    return found


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down_the_table(path):
    layer = part(path)
    if layer in EVERYTHING:
        return
    assert layer in MAY_IMPORT, f"{layer} is not in the table: add it here and in docs/architecture.md"
    allowed = {layer, *MAY_IMPORT[layer].split()}
    forbidden = imports(path.read_text(encoding="utf-8")) - allowed
    assert not forbidden, f"{path.relative_to(ROOT)} may import {sorted(allowed)}, not {sorted(forbidden)}"


def test_a_family_imports_no_family():
    families = [path.name for path in (ROOT / "models").iterdir() if path.is_dir() and path.name != "__pycache__"]
    for family in families:
        for path in (ROOT / "models" / family).rglob("*.py"):
            for other in set(families) - {family}:
                assert f"duologue.models.{other}" not in path.read_text(encoding="utf-8"), f"{path.name}: {other}"


def test_the_scan_sees_every_kind_of_import():
    source = "import duologue.nn.conv\nfrom duologue import models\ndef f():\n    from duologue.train.loop import run\n"
    assert imports(source) == {"nn", "models", "train"}
    assert imports("from . import x") == {"."}
    assert imports("import duologue") == {"duologue"}


def test_the_table_has_no_circle():
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        ready = [name for name in MAY_IMPORT if name not in order and set(MAY_IMPORT[name].split()) <= set(order)]
        assert ready, f"a circle among {sorted(set(MAY_IMPORT) - set(order))}"
        order += ready
