"""The files that LAMMPS brings: each one of a form that mdsens has is read."""

import pytest
from lammps_program import files_of_lammps

import mdsens as ms
from mdsens.potentials.parameter_sets import READERS

FILES = files_of_lammps()
OTHERS = {".toml", ".xml"}  # of mdsens and OpenMM
TABLES = (".alloy", ".fs", ".eam")  # seconds for each; their energies are those of LAMMPS in tests beside
# names that are no symbols stand for
RENAMED = {"SiCGe.tersoff": {"Si": "Si(B)"}}
ENDINGS = tuple(ending for ending in READERS if ending not in OTHERS)
NAMES = sorted(file.name for file in FILES.glob("*") if file.name.endswith(ENDINGS))


def test_the_walk_meets_every_style():
    assert len(NAMES) >= 70
    met = {ending for ending in ENDINGS if any(name.endswith(ending) for name in NAMES)}
    # of setfl and funcfl these are other names; expansions are fitted by their users
    assert set(ENDINGS) - met <= {".setfl", ".funcfl", ".yace"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.validation] if n.endswith(TABLES) else []) for n in NAMES],
)
def test_each_file_of_a_style_that_is_read_loads(name):
    potential = ms.load_potential(FILES / name, RENAMED.get(name))
    assert potential.elements
