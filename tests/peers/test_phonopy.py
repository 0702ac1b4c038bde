"""Force constants handed to phonopy, and tables of free energies: what it makes of them."""

import ase.build
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.observables import LatticeVibrations
from mdsens.units import THZ

phonopy = pytest.importorskip("phonopy", reason="phonopy is not installed: pip install phonopy")
pytestmark = pytest.mark.peer

WAVES = [[0.5, 0.5, 0.0], [0.25, 0.5, 0.75], [0.11, 0.2, 0.37]]  # the last repeats with no small supercell


def of_phonopy(made, q, **options):
    made.run_qpoints([q], **options)
    # by its own constants, which are older than CODATA 2018
    return made.qpoints.frequencies[0] / made.unit_conversion_factor * THZ


@pytest.mark.parametrize("cubic", [False, True], ids=["primitive", "conventional"])
def test_a_crystal_has_the_same_frequencies_there(cubic):
    potential = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=8.5)
    crystal = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.3, cubic=cubic))
    found = LatticeVibrations.of(ms.Equilibrium.at(potential, crystal), 3 if cubic else 4)
    made = found.to_phonopy()
    for q in WAVES:
        assert_allclose(found.frequencies(q)[0], of_phonopy(made, q), rtol=0, atol=1e-9)


def test_ions_have_the_same_long_waves_there():
    ions = ms.load_potential("nacl-fumi-tosi")
    salt = ms.Structure.from_ase(ase.build.bulk("NaCl", "rocksalt", a=5.6))
    found = LatticeVibrations.of(ms.Equilibrium.at(ions, salt), 2)
    made = found.to_phonopy()
    made.nac_params = {**made.nac_params, "method": "wang"}
    lifted = of_phonopy(made, [0, 0, 0], nac_q_direction=[0, 0, 1])
    assert_allclose(found.frequencies([0, 0, 0], direction=[0, 0, 1])[0][3:], lifted[3:], rtol=1e-8)
    for q in WAVES:
        assert_allclose(found.frequencies(q)[0], of_phonopy(made, q), rtol=0, atol=1e-8)


def test_tables_of_free_energies_expand_as_there():
    V = np.linspace(150.0, 180.0, 9)
    E = 2e-3 * (V - 163.0) ** 2 - 1e-5 * (V - 163.0) ** 3
    T = np.array([0.0, 100.0, 200.0, 300.0, 400.0])
    F = -2e-6 * T[:, None] ** 2 * (V / 163.0) ** 2
    nothing = np.zeros_like(F)
    kj = 1 / ms.units.KJ_PER_MOL
    peer = phonopy.PhonopyQHA(
        volumes=V, electronic_energies=E, temperatures=T, free_energy=F * kj, cv=nothing, entropy=nothing,
        eos="vinet", t_max=400,
    )  # fmt: skip
    found = ms.observables.quasiharmonic_table(V, E, T, F)
    n = len(peer.volume_temperature)
    assert_allclose(found.volumes[:n], peer.volume_temperature, rtol=1e-7)
    assert_allclose(found.expansion[1 : n - 1], peer.thermal_expansion[1 : n - 1], rtol=1e-4)
