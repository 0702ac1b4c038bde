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
    "dask",
    "distributed",
    "h5py",
    "jax_md",
    "matplotlib",
    "mdtraj",
    "networkx",
    "pandas",
    "parsl",
    "pyarrow",
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


def modules_after(program: str) -> set[str]:
    """What a new process has imported at the end."""
    program += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return set(json.loads(run.stdout.splitlines()[-1]))


def libraries(modules: set[str]) -> set[str]:
    return {name.split(".")[0] for name in modules}


def test_import_of_mdsens_alone_loads_next_to_nothing():
    modules = modules_after("import mdsens")
    assert {m for m in modules if m.startswith("mdsens")} == {"mdsens", "mdsens.errors", "mdsens.processes"}
    assert not libraries(modules) & {"jax", "numpy"}


def test_public_names_load_no_heavy_library():
    loaded = libraries(modules_after("import mdsens; mdsens.relax"))
    assert "jax" in loaded and not loaded & HEAVY


@pytest.mark.parametrize("words", ["--help", "relax --help", "flow train --help", "--version"])
def test_help_needs_neither_jax_nor_what_computes(words: str):
    arguments = ["mdsens", *words.split()]
    program = "\n".join(
        [
            "import sys",
            f"sys.argv = {arguments}",
            "from mdsens.cli.main import app",
            "app(standalone_mode=False)",
        ]
    )
    modules = modules_after(program)
    assert "mdsens.cli.main" in modules
    assert not libraries(modules) & (HEAVY | {"jax", "jaxlib", "equinox", "optax"}) - {"rich", "typer"}
    rooms = {name.split(".")[1] for name in modules if name.startswith("mdsens.")}
    assert {LAYERS[room] for room in rooms} <= {0, LAYERS["cli"]}


def test_every_public_name_is_there_once():
    assert len(set(ms.__all__)) == len(ms.__all__)
    assert [name for name in ms.__all__ if not hasattr(ms, name)] == []
    assert set(ms.__all__) <= set(dir(ms))


def test_every_module_can_be_the_first_that_is_imported():
    program = f"""
import importlib, sys
for room in {sorted(LAYERS)}:
    for name in [name for name in sys.modules if name.startswith("mdsens")]:
        del sys.modules[name]
    importlib.import_module("mdsens." + room)
"""
    assert "mdsens.units" in modules_after(program)


def test_a_misspelled_public_name_is_answered_by_the_nearest():
    program = "import mdsens; mdsens.rlax"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert "module 'mdsens' has no attribute 'rlax'. Did you mean: 'relax'?" in run.stderr
    with pytest.raises(ImportError, match="cannot import name 'rlax' from 'mdsens'"):
        exec("from mdsens import rlax")
