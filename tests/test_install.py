"""What gets installed: a wheel that holds the package, the parameter sets and the console script.

And works on its own.
"""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from mdsens.potentials.parameter_sets import available_potentials

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    run = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def site(wheel: Path) -> Path:
    """The wheel unpacked, as pip does it."""
    folder = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def test_wheel_holds_package_parameter_sets_and_license(wheel: Path):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "mdsens").rglob("*.py")}
    sets = {f"mdsens/_potentials/{p.name}" for p in (ROOT / "potentials").glob("*.toml")}
    assert sets and modules | sets | {"mdsens/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "docs/", "data/", "potentials/"))]


def test_installed_package_finds_the_same_parameter_sets_by_name(site: Path):
    program = "\n".join(
        [
            "import json, mdsens",
            "from mdsens.potentials.parameter_sets import available_potentials, load_potential",
            "sets = {r.name: mdsens.parameter_values(load_potential(r.name)) for r in "
            "available_potentials()}",
            "print(json.dumps([mdsens.__file__, mdsens.__version__, sets]))",
        ]
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "JAX_ENABLE_X64": "1"}
    # from another folder, so that only the unpacked wheel can be found
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=site.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    file, version, sets = json.loads(run.stdout)
    assert Path(file).is_relative_to(site)
    assert (site / f"mdsens-{version}.dist-info" / "METADATA").is_file()
    assert set(sets) == {record.name for record in available_potentials()}
    assert sets["si-stillinger-weber-1985"]["sigma"] == 2.0951  # Stillinger, Weber 1985


def test_console_script_points_to_the_command_line(site: Path):
    (entry_points,) = site.glob("*.dist-info/entry_points.txt")
    target = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["mdsens"]
    assert f"mdsens = {target}" in entry_points.read_text()
    module, name = target.split(":")
    file = site / Path(*module.split(".")).with_suffix(".py")
    assert file.is_file() and f"\n{name} = " in file.read_text(), f"{target} is not there"


def test_a_checkout_reads_its_own_parameter_sets():
    assert {record.file.parent for record in available_potentials()} == {ROOT / "potentials"}
