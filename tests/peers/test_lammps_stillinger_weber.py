"""Stillinger-Weber for several species against LAMMPS, which lists every triple: ours never does."""

import itertools

import jax
import numpy as np
import pytest
from lammps_program import compare, files_of_lammps, lammps_program
from lammps_program import single_point as lammps_single_point
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.potentials.lammps_files import SW_COLUMNS
from mdsens.potentials.parameter_sets import load_potential
from mdsens.quantities import evaluate

FILES = files_of_lammps()


@pytest.fixture(scope="module")
def single_point():
    """Energy, forces and stress of a structure by LAMMPS, for a .sw file."""
    with lammps_program() as program:

        def run(file, structure):
            kinds = sorted(set(structure.symbols))
            pair = ["pair_style sw", f"pair_coeff * * {file} {' '.join(kinds)}"]
            return lammps_single_point(program, structure, kinds, pair)

        yield run


def alloy(kinds, spacing, seed):
    """A sheared, rattled zincblende cell of 64 atoms, sites at random: all pairs and triples occur."""
    from ase.build import bulk

    rng = np.random.default_rng(seed)
    atoms = bulk("GaAs", "zincblende", a=spacing, cubic=True) * (2, 2, 2)
    positions = atoms.positions + rng.normal(scale=0.04 * spacing, size=atoms.positions.shape)
    shear = np.eye(3) + np.tril(rng.uniform(-0.08, 0.08, (3, 3)))
    return ms.Structure.create(positions @ shear, rng.choice(kinds, len(atoms)), atoms.cell.array @ shear)


# The two products lambda epsilon of i-j-k and i-k-j are rounded to seven digits in the last file, and LAMMPS
# takes the one or the other by the order of atoms; the first file is exact.
@pytest.mark.parametrize(
    ("name", "kinds", "spacing", "rtol"),
    [
        ("GaN.sw", ("Ga", "N"), 4.5, 1e-11),
        ("CdTeZnSeHgS0.sw", ("Cd", "Te", "Zn", "Se", "Hg", "S"), 6.0, 3e-7),
    ],
)
def test_files_of_lammps_give_its_energy_forces_and_stress(single_point, name, kinds, spacing, rtol):
    structure = alloy(kinds, spacing, seed=5)
    compare(load_potential(FILES / name), structure, single_point(FILES / name, structure), rtol)


def test_lammps_takes_either_entry_of_an_angle_and_ours_is_their_mean(single_point):
    # One molecule S-Cd-Te, its ends out of reach of each other, turned: the two entries differ in the
    # seventh digit, and which of them counts depends on the boxes that the atoms lie in.
    file = FILES / "CdTeZnSeHgS0.sw"
    potential, rng, energies = load_potential(file), np.random.default_rng(0), []
    for _ in range(12):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        positions = 20 + np.array([[0.0, 0, 0], [2.4, 0, 0], [-2.7, 0.2, 0]]) @ turn
        structure = ms.Structure.create(positions, ["Cd", "S", "Te"], [40.0] * 3)
        energies.append(single_point(file, structure)[0])
    low, high = min(energies), max(energies)
    either = np.isclose(energies, low, rtol=1e-11) | np.isclose(energies, high, rtol=1e-11)
    assert either.all() and 1e-9 < (high - low) / abs(low) < 1e-6
    assert_allclose(ms.energy(potential, structure), (low + high) / 2, rtol=1e-11)


def test_some_elements_of_a_larger_file_keep_their_numbers():
    all_six = ms.parameter_values(load_potential(FILES / "CdTeZnSeHgS0.sw"))
    two = load_potential(FILES / "CdTeZnSeHgS0.sw", elements=["Cd", "Te"])
    assert two.elements == ("Cd", "Te")
    for name, value in ms.parameter_values(two).items():
        assert value == all_six[name], name


def test_set_for_cdte_has_the_numbers_of_lammps():
    assert ms.parameter_values(load_potential("cdte-stillinger-weber-1989")) == ms.parameter_values(
        load_potential(FILES / "CdTe.sw")
    )


def sw_text(potential):
    """The .sw file for which LAMMPS has the energy of `potential`."""
    values, kinds = ms.parameter_values(potential), potential.elements
    pair = lambda name, a, b: values[
        f"{name}[{a}-{b}]" if f"{name}[{a}-{b}]" in values else f"{name}[{b}-{a}]"
    ]
    lines = []
    for i, j, k in itertools.product(kinds, repeat=3):
        ends = f"{j}-{k}" if f"lambda[{i}-{j}-{k}]" in values else f"{k}-{j}"
        strength = values[f"lambda[{i}-{ends}]"] * np.sqrt(pair("epsilon", i, j) * pair("epsilon", i, k))
        row = {name: pair(name, i, j) for name in ("epsilon", "sigma", "a", "A", "B", "p", "q")}
        row |= {
            "lambda": strength / row["epsilon"],
            "gamma": values[f"gamma[{i}-{j}]"],
            "costheta0": values[f"costheta0[{i}-{ends}]"],
            "tol": 0.0,
        }
        if j != k:  # LAMMPS does not look at these
            row |= {"sigma": 0.0, "a": 0.0, "gamma": 0.0, "A": 0.0, "B": 0.0}
        lines.append(f"{i} {j} {k} " + " ".join(f"{row[column]:.17g}" for column in SW_COLUMNS))
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def ternary():
    """Three species, no two numbers alike: every pair, ordered pair and triple has parameters of its own."""
    from mdsens.potentials.stillinger_weber import StillingerWeber

    rng = np.random.default_rng(8)
    near = lambda value, n: value * rng.uniform(0.85, 1.15, n)
    potential = StillingerWeber(
        epsilon=near(1.5, 6), sigma=near(2.2, 6), a=near(1.8, 6),
        lambda_=near(25, 18), gamma=near(1.2, 9), costheta0=near(-0.3, 18),
        A=near(7.0, 6), B=near(0.6, 6), p=near(4.0, 6), q=near(0.3, 6),
        elements=("Si", "Ge", "C"), source="random",
    )  # fmt: skip
    return potential, alloy(potential.elements, 5.3, seed=9)


def test_every_entry_of_three_species_is_where_lammps_has_it(single_point, ternary, tmp_path):
    potential, structure = ternary
    file = tmp_path / "random.sw"
    file.write_text(sw_text(potential))
    compare(potential, structure, single_point(file, structure), 1e-11)
    # and the reader makes the same potential of that file
    read = ms.parameter_values(load_potential(file, elements=potential.elements))
    for name, value in ms.parameter_values(potential).items():
        assert_allclose(read[name], value, rtol=1e-14, err_msg=name)


def test_derivatives_by_every_parameter_of_three_species(single_point, ternary, tmp_path):
    potential, structure = ternary
    neighbors = ms.neighbors_of(potential, structure, skin=0.1)
    exact = jax.jit(jax.grad(lambda p: evaluate(p, structure, neighbors).energy))(potential)
    exact = ms.parameter_values(exact)
    values = ms.parameter_values(potential)
    file = tmp_path / "changed.sw"
    for name, value in values.items():
        step = 1e-4 * value
        energies = []
        for sign in (1, -1):
            file.write_text(sw_text(ms.replace_parameters(potential, {name: value + sign * step})))
            energies.append(single_point(file, structure)[0])
        # rounding 1e-13 of the energy over the step, and the step squared
        assert_allclose(
            exact[name], (energies[0] - energies[1]) / (2 * step), rtol=1e-5, atol=1e-6, err_msg=name
        )
