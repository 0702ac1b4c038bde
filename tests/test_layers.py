"""Rules of architecture: who may import whom, and what `import mdsens` must not load."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mdsens as ms

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mdsens"
FILES = sorted(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")

# seconds and hundreds of megabytes: imported inside the functions that use them
HEAVY = {
    "ase",
    "h5py",
    "jax_md",
    "matplotlib",
    "mdtraj",
    "networkx",
    "pandas",
    "rich",
    "scipy",
    "spglib",
    "typer",
}
# these modules are themselves imported only when somebody asks for them
AT_THE_TOP = {"calculators": {"ase"}, "cli": {"rich", "typer"}}


def layers() -> dict[str, int]:
    """Layer of each module and package, out of the table in CONTRIBUTING.md."""
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    return {name: int(layer) for layer, names in rows for name in re.findall(r"`(\w+)`", names)}


LAYERS = layers()


def imported(node: ast.AST, inside: Path) -> list[str]:
    """Full names of the modules an import statement asks for: of `from mdsens import x` it is mdsens.x."""
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom(level=0):
            module = node.module or ""
            return (
                [f"{module}.{alias.name}" for alias in node.names if alias.name != "__version__"]
                if module == "mdsens"
                else [module]
            )
        case ast.ImportFrom():
            raise AssertionError(f"mdsens/{inside}:{node.lineno}: imports are absolute here")
    return []


def at_the_top(tree: ast.Module) -> list[ast.stmt]:
    """Statements that run at import: not those in functions, nor under `if TYPE_CHECKING`."""
    return [node for node in tree.body if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.If))]


def test_table_of_layers_names_what_is_there():
    there = {p.parts[0].removesuffix(".py") for p in FILES}
    assert set(LAYERS) == there, "the table in CONTRIBUTING.md and the modules of mdsens differ"


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_come_from_lower_layers(file: Path):
    own = LAYERS[file.parts[0].removesuffix(".py")]
    for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
        for name in imported(node, file):
            if name.split(".")[0] == "mdsens":
                other = name.split(".")[1]
                assert other in LAYERS, (
                    f"mdsens/{file}:{node.lineno} imports {name}, which is no module with a layer "
                    "(CONTRIBUTING.md)"
                )
                assert LAYERS[other] <= own, (
                    f"mdsens/{file}:{node.lineno} (layer {own}) imports {name} (layer {LAYERS[other]})"
                )


@pytest.mark.parametrize("file", FILES, ids=str)
def test_heavy_libraries_are_imported_where_they_are_used(file: Path):
    allowed = AT_THE_TOP.get(file.parts[0], set())
    for node in at_the_top(ast.parse((PACKAGE / file).read_text())):
        for name in imported(node, file):
            library = name.split(".")[0]
            assert library not in HEAVY - allowed, (
                f"mdsens/{file}:{node.lineno}: import {library} inside the function that uses it"
            )


def test_import_of_mdsens_loads_no_heavy_library():
    program = "import json, sys, mdsens; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = {name.split(".")[0] for name in json.loads(run.stdout)}
    assert "mdsens" in loaded and not loaded & HEAVY


def test_every_public_name_is_there_once():
    assert len(set(ms.__all__)) == len(ms.__all__)
    assert [name for name in ms.__all__ if not hasattr(ms, name)] == []
