"""Bands and densities of states; ions, whose long waves make a field."""

import functools
import sys

import ase.build
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError, OutputExistsError
from mdsens.observables import LatticeVibrations, phonon
from mdsens.observables.polar import coulomb_parts
from mdsens.observables.vibrations import special_points
from mdsens.units import COULOMB, THZ

ARGON = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=8.5)
A = 5.305296921548048


@functools.cache
def argon():
    state = ms.Equilibrium.at(ARGON, ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=A)))
    return LatticeVibrations.of(state, 8)


@functools.cache
def salt():
    ions = ms.load_potential("nacl-fumi-tosi")
    return ms.Equilibrium.at(ions, ms.Structure.from_ase(ase.build.bulk("NaCl", "rocksalt", a=5.6)))


def test_bands_run_through_the_frequencies_of_phonopy():
    # tests/observables/test_dispersion.py
    waves = [[0.5, 0.5, 0], [0.5, 0.5, 0.5], [0.25, 0.5, 0.75]]
    right = [
        [1.2971328831899385, 1.2971328831899385, 1.8919932729442703],
        [0.8626732061249839, 0.8626732061249841, 1.8866019064945423],
        [1.2808507750896172, 1.6259239959548264, 1.625923995954828],
    ]
    right = np.array(right) * THZ / 15.633302299  # phonopy's constants are older
    assert_allclose(argon().frequencies(waves), right, rtol=0, atol=1e-9)
    bands = argon().bands("GXL", points=21)
    assert bands.labels == ("G", "X", "L") and bands.frequencies.shape == (21, 3)
    assert_allclose(bands.frequencies[0], 0.0, atol=1e-4)
    assert_allclose(bands.frequencies[-1], right[1], rtol=1e-9)
    assert_allclose(bands.ticks[1], 2 * np.pi / A, rtol=1e-6)  # from the center to X


def test_the_density_of_states_counts_the_modes():
    density = argon().density(mesh=6, width=0.05)
    step = np.diff(density.frequencies)[0]
    assert_allclose(density.density.sum() * step, 3.0, rtol=1e-3)
    assert_allclose(density.density[[0, -1]], 0.0, atol=1e-3)


def test_a_figure_holds_both(tmp_path):
    options = dict(bands=argon().bands("GX", points=5), density=argon().density(mesh=2))
    argon().plot(tmp_path / "argon.png", **options)
    assert (tmp_path / "argon.png").stat().st_size > 5000
    with pytest.raises(OutputExistsError):
        argon().plot(tmp_path / "argon.png", **options)


# --- ions -----------------------------------------------------------------------------------------


def test_the_field_of_ions_lifts_the_longitudinal_mode():
    state = salt()
    found = LatticeVibrations.of(state, 2)
    (plain,) = found.frequencies([0, 0, 0])
    (along,) = found.frequencies([0, 0, 0], direction=[0, 0, 1])
    assert_allclose(along[3:5], plain[3:5], rtol=1e-9)
    # two ions of charges z and -z: omega_LO² - omega_TO² = 4 pi k z² / V (1/m + 1/M)
    ((_, ewald),) = coulomb_parts(state.potential)
    z = float(ewald.charges(state.structure)[0])
    inverse = np.sum(1 / np.asarray(state.structure.masses))
    lift = 4 * np.pi * COULOMB * z**2 / float(ms.volume(state.structure)) * inverse
    assert_allclose((along[5] ** 2 - plain[5] ** 2) / THZ**2, lift, rtol=1e-9)
    # long waves tend to it along any direction
    near = found.frequencies([[1e-4, 0, 0]])[0]
    assert_allclose(near[3:], along[3:], rtol=1e-4)
    # a wave that repeats with both supercells has the same frequencies in either
    bound = phonon([0.5, 0.5, 0], state="structure").bound({"structure": state})
    groups = bound.function.modes.groups
    ((*_, row),) = [found.frequencies([0.5, 0.5, 0])]
    ends = [row[first : last + 1] for first, last in groups]
    assert all(np.ptp(group) < 1e-6 for group in ends)


@pytest.mark.validation
def test_the_longitudinal_mode_of_ions_follows_the_parameters():
    ions, name = ms.load_potential("nacl-fumi-tosi"), "BornMayerHuggins.rho[Na-Cl]"
    start = salt().structure
    relaxed_with = lambda potential: ms.relax(potential, start, cell="isotropic", fmax=1e-11)
    longitudinal = phonon([0, 0, 0], mode=6, direction=[0, 0, 1])
    _, ((by_rho,),) = ms.first_order(relaxed_with(ions), longitudinal, [name])
    value, step = ms.parameter_values(ions)[name], 1e-5
    twins = []
    for sign in (1, -1):
        changed = ms.replace_parameters(ions, {name: value + sign * step})
        twins.append(float(ms.first_order(relaxed_with(changed), longitudinal, [name])[0][0]))
    assert_allclose(by_rho, (twins[0] - twins[1]) / (2 * step), rtol=1e-5)


def test_a_direction_is_for_ions_at_rest():
    with pytest.raises(InputError, match="has no Coulomb sum"):
        argon_state = ms.Equilibrium.at(ARGON, argon().structure)
        phonon([0, 0, 0], direction=[0, 0, 1]).bound({"structure": argon_state})
    with pytest.raises(InputError, match=r"a direction says how q = \[0, 0, 0\] is approached"):
        phonon([0.5, 0, 0], direction=[0, 0, 1])
    assert phonon([0, 0, 0], mode=6, direction=[0, 0, 1]).names[0].endswith("direction=[0.0, 0.0, 1.0])")


def test_what_has_no_bands_is_refused(monkeypatch):
    cluster = ms.Equilibrium.at(ARGON, ms.Structure.create([[0.0, 0, 0], [3.8, 0, 0]], ["Ar"] * 2))
    with pytest.raises(InputError, match="bands need a crystal that is periodic in three directions"):
        LatticeVibrations.of(cluster)
    with pytest.raises(InputError, match="special points of this lattice are"):
        argon().bands("GZ9")
    assert special_points(argon())["X"] == [0.5, 0.0, 0.5]
    monkeypatch.setitem(sys.modules, "phonopy", None)
    with pytest.raises(InputError, match=r"pip install 'mdsens\[phonons\]'"):
        argon().to_phonopy()
