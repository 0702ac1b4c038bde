"""Energy, forces, stress and their parameter derivatives against independent codes; identities among them.

Every case is one compiled function: values and forward derivatives by all parameters, together.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from references import assert_agrees, structure, table
from references import potential as potential_of

import mdsens as ms
from mdsens.potentials.parameters import follow_path
from mdsens.quantities import evaluate
from mdsens.strain import VOIGT


class Case(NamedTuple):
    """A potential, a structure and the numbers for it."""

    potential: ms.Potential
    structure: ms.Structure
    record: dict[str, Any]
    names: dict[str, str]  # name in the table -> ours


class Result(NamedTuple):
    """Values (stress as Voigt components), and derivatives by ln(theta) under our name of theta."""

    energy: float
    forces: np.ndarray
    stress: np.ndarray
    rows: dict[str, dict[str, np.ndarray]]


def lennard_jones(identity: str, cutoff: float = np.inf, cut: Any = None) -> Case:
    record = table("lennard_jones")[identity]
    parameters, names = record["potential"]["parameters"], {"epsilon": "epsilon", "sigma": "sigma"}
    elements, order = ("Ar",), None
    if "epsilon_12" in parameters:
        elements, order = ("Ar", "Kr"), {"11": "Ar-Ar", "12": "Ar-Kr", "22": "Kr-Kr"}
        names = {
            f"{name}_{ij}": f"{name}[{label}]" for name in ("epsilon", "sigma") for ij, label in order.items()
        }
    arrays = [
        parameters[n] if order is None else [parameters[f"{n}_{ij}"] for ij in order]
        for n in ("epsilon", "sigma")
    ]
    return Case(
        ms.LennardJones(*arrays, elements, cutoff, cut or ms.ForceShifted()), structure(record), record, names
    )


def stillinger_weber(identity: str) -> Case:
    record = table("stillinger_weber")[identity]
    return Case(
        ms.load_potential("si-stillinger-weber-1985"),
        structure(record),
        record,
        {n: n for n in record["potential"]["parameters"]},
    )


def morse(identity: str) -> Case:
    record = table("morse")[identity]
    return Case(
        ms.load_potential("cu-morse"), structure(record), record, {n: n for n in ("D0", "alpha", "r0")}
    )


def tersoff(identity: str) -> Case:
    record = table("tersoff")[identity]
    names = {n: n for n in record["potential"]["parameters"]}
    return Case(potential_of(record), structure(record), record, names)


RATTLED = {
    "lj shifted": lambda: lennard_jones("lj-ar-rattled-108-shifted", 7.5, ms.Shifted()),
    "lj smooth": lambda: lennard_jones("lj-ar-rattled-108-smooth", 7.5, ms.ForceShifted()),
    "morse": lambda: morse("morse-cu-rattled-256"),
    "stillinger-weber": lambda: stillinger_weber("sw-si-rattled-64"),
}
BOND_ORDERS = {
    "tersoff T2": lambda: tersoff("tersoff-si-t2-rattled-64"),
    "tersoff T3": lambda: tersoff("tersoff-si-t3-rattled-64"),
}
CLUSTERS = {
    "lj13": lambda: lennard_jones("lj13-cluster"),
    "lj38": lambda: lennard_jones("lj38-cluster"),
    "lj13 binary": lambda: lennard_jones("lj13-binary-cluster"),
}
CRYSTALS = {
    "lj smooth": lambda: lennard_jones("lj-ar-crystal-smooth", 8.5, ms.ForceShifted()),
    "lj truncated": lambda: lennard_jones("lj-ar-crystal-truncated", 8.5, ms.Truncated()),
    "morse": lambda: morse("morse-cu-crystal"),
    "stillinger-weber": lambda: stillinger_weber("sw-si-crystal"),
}


@functools.cache
def evaluated(make: Any, relaxed: bool = False) -> tuple[Case, Result]:
    """Values and derivatives of a case; at its relaxed positions if these are part of it."""
    case = make()
    if relaxed:
        case = case._replace(
            structure=case.structure.at(jnp.array(case.record["values"]["positions"]["value"]))
        )
    neighbors = ms.neighbors_of(case.potential, case.structure)

    @jax.jit
    def both(potential):
        result = evaluate(potential, case.structure, neighbors)
        return result, result

    slopes, values = jax.jacfwd(both, has_aux=True)(case.potential)
    voigt = lambda tensor: np.stack([np.asarray(tensor)[a, b] for a, b in VOIGT])
    rows = {}
    for entry in ms.parameter_entries(case.potential):
        # a parameter that is zero has no logarithm: the tables, too, then have the plain derivative
        theta = float(np.asarray(follow_path(case.potential, entry.path))[entry.index]) or 1.0
        pick = lambda slope, entry=entry, theta=theta: (
            theta * np.asarray(follow_path(slope, entry.path))[(..., *entry.index)]
        )
        rows[entry.name] = {
            "energy": pick(slopes.energy),
            "forces": pick(slopes.forces),
            "stress": voigt(pick(slopes.stress)),
        }
    return case, Result(float(values.energy), np.asarray(values.forces), voigt(values.stress), rows)


@pytest.mark.parametrize("name", [*RATTLED, *BOND_ORDERS])
def test_energy_forces_and_stress_of_rattled_crystals_are_those_of_lammps(name):
    case, mine = evaluated((RATTLED | BOND_ORDERS)[name])
    for quantity in ("energy", "forces", "stress"):
        value = np.array(case.record["values"][quantity]["value"])
        # two codes that add the same numbers in another order
        assert_allclose(
            getattr(mine, quantity), value, atol=1e-10 * np.abs(value).max(), rtol=0, err_msg=quantity
        )


@pytest.mark.parametrize("name", [*RATTLED, *BOND_ORDERS])
def test_parameter_derivatives_of_energy_forces_and_stress_are_those_of_lammps(name):
    case, mine = evaluated((RATTLED | BOND_ORDERS)[name])
    compared = 0
    for quantity, records in case.record["sensitivities"].items():
        for theta, record in records.items():
            assert record["kind"] == "d/dln(theta)" or case.record["potential"]["parameters"][theta] == 0
            assert_agrees(mine.rows[case.names[theta]][quantity], record, f"d {quantity} / dln {theta}")
            compared += 1
    assert compared >= 4


@pytest.mark.parametrize("name", CLUSTERS)
def test_relaxed_clusters_without_cutoff_have_the_energy_of_lammps_and_no_forces(name):
    case, mine = evaluated(CLUSTERS[name], relaxed=True)
    assert_allclose(mine.energy, case.record["values"]["energy"]["value"], rtol=1e-13)
    # positions are those of the other code, relaxed to 1e-14 eV/Å; forces of some 10 eV/Å cancel
    assert_allclose(mine.forces, 0.0, atol=1e-12)


@pytest.mark.parametrize("name", CLUSTERS)
def test_energy_of_a_relaxed_cluster_follows_the_parameters_as_at_rest(name):
    # At a minimum the motion of the atoms does not count: the total derivative is the partial one.
    case, mine = evaluated(CLUSTERS[name], relaxed=True)
    for theta, record in case.record["sensitivities"]["energy"].items():
        assert_agrees(mine.rows[case.names[theta]]["energy"], record, theta)


@pytest.mark.parametrize("name", CRYSTALS)
def test_crystals_smaller_than_the_cutoff_are_free_of_stress_and_have_the_energy_of_lammps(name):
    case, mine = evaluated(CRYSTALS[name])
    n = case.structure.n_atoms
    assert_allclose(mine.energy / n, case.record["values"]["energy_per_atom"]["value"], rtol=1e-12)
    assert_allclose(
        mine.stress, 0.0, atol=1e-12
    )  # eV/Å³; the other code relaxed to 1e-14 of the lattice constant
    for theta, record in case.record["sensitivities"]["energy_per_atom"].items():
        assert_agrees(mine.rows[case.names[theta]]["energy"] / n, record, theta)


def test_relaxed_binary_glass_has_the_energy_and_stress_of_lammps():
    case = lennard_jones("lj-binary-glass-64", 1.8, ms.ForceShifted())
    fixed = case.record["values"]["fixed_cell"]
    relaxed = case._replace(structure=case.structure.at(jnp.array(fixed["positions"]["value"])))
    case, mine = evaluated(lambda: relaxed)
    assert_allclose(mine.energy, fixed["energy"]["value"], rtol=1e-13)
    # forces of some 100 eV/Å on each atom cancel to the 1e-12 the other code relaxed to
    assert_allclose(mine.forces, 0.0, atol=1e-11)
    assert_allclose(mine.stress, fixed["stress"]["value"], atol=1e-11)
    for theta, record in case.record["sensitivities"]["fixed_cell"]["energy"].items():
        assert_agrees(mine.rows[case.names[theta]]["energy"], record, theta)


# --- identities, exact for any positions
# -------------------------------------------------------------------------


def virial(case: Case, mine: Result) -> float:
    """The sum of x . dE/dx over atoms and cell vectors, eV: its answer to a change of all lengths."""
    if any(case.structure.pbc):
        return float(ms.volume(case.structure)) * float(mine.stress[:3].sum())
    return -float(np.sum(mine.forces * np.asarray(case.structure.positions)))


@pytest.mark.parametrize("name", RATTLED)
def test_energy_scale_multiplies_everything(name):
    _, mine = evaluated(RATTLED[name])
    row = mine.rows["D0" if name == "morse" else "epsilon"]
    for quantity in ("energy", "forces", "stress"):
        assert_allclose(row[quantity], getattr(mine, quantity), rtol=1e-11, atol=1e-13)


def test_two_and_three_body_strengths_share_the_energy_of_stillinger_weber():
    _, mine = evaluated(RATTLED["stillinger-weber"])
    for quantity in ("energy", "forces", "stress"):
        shared = mine.rows["A"][quantity] + mine.rows["lambda"][quantity]
        assert_allclose(shared, mine.rows["epsilon"][quantity], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", BOND_ORDERS)
def test_repulsion_and_attraction_share_the_energy_of_tersoff(name):
    _, mine = evaluated(BOND_ORDERS[name])
    for quantity in ("energy", "forces", "stress"):
        shared = mine.rows["A"][quantity] + mine.rows["B"][quantity]
        assert_allclose(shared, getattr(mine, quantity), rtol=1e-11, atol=1e-12)


def test_energy_scales_of_the_pairs_share_the_energy_of_a_binary_cluster():
    _, mine = evaluated(CLUSTERS["lj13 binary"], relaxed=True)
    shared = sum(row["energy"] for name, row in mine.rows.items() if name.startswith("epsilon"))
    assert_allclose(shared, mine.energy, rtol=1e-13)


def test_sigma_is_the_only_length_of_stillinger_weber():
    # E(x, h, sigma) = E(c x, c h, c sigma): Euler's sum over the lengths vanishes.
    case, mine = evaluated(RATTLED["stillinger-weber"])
    assert_allclose(mine.rows["sigma"]["energy"], -virial(case, mine), rtol=1e-11)


def test_sigmas_are_the_only_lengths_of_a_cluster_without_cutoff():
    rng = np.random.default_rng(4)
    case = CLUSTERS["lj13 binary"]()
    # far from equilibrium, so that there is something to balance
    strained = case._replace(
        structure=case.structure.at(case.structure.positions * 1.1 + 0.05 * rng.normal(size=(13, 3)))
    )
    case, mine = evaluated(lambda: strained)
    lengths = sum(row["energy"] for name, row in mine.rows.items() if name.startswith("sigma"))
    assert abs(virial(case, mine)) > 1.0
    assert_allclose(lengths, -virial(case, mine), rtol=1e-11)


# --- NIST's configurations
# ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cutoff", [3, 4])
@pytest.mark.parametrize("configuration", [2, 4])
def test_pair_energy_and_virial_of_nist_configurations(configuration, cutoff):
    case = table("nist_lj")[f"nist-lj-configuration-{configuration}"]
    values = case["values"][f"rc={cutoff}"]
    potential = ms.LennardJones(1.0, 1.0, ("Ar",), float(cutoff), ms.Truncated())
    atoms = structure(case)
    result = ms.energy_forces_stress(potential, atoms)
    found = {
        "pair_energy": float(result.energy),
        # sum of r . f over pairs: three times pressure times volume
        "pair_virial": -float(np.trace(result.stress) * ms.volume(atoms)),
    }
    for name, value in found.items():
        assert_allclose(value, values[name], rtol=1e-12, err_msg=name)
        # and the number NIST printed, to the last digit it printed
        assert_allclose(value, values[f"{name}_published"], rtol=5e-5, err_msg=name)


# --- packings of soft spheres
# ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_soft_spheres_have_the_energy_of_the_packing_tables(seed):
    case = table("soft_sphere_packing")[f"packing-seed-{seed}"]
    potential = ms.load_potential("soft-sphere-bidisperse")
    assert ms.parameter_values(potential)["diameter[Ne]"] == case["potential"]["parameters"]["D"]
    x = np.array(case["values"]["positions"]["value"])
    edge, flat = case["structure"]["box"][0], np.zeros((len(x), 1))
    packing = ms.Structure.create(
        np.hstack([x, flat]),
        ["Ar"] * 64 + ["Ne"] * 64,
        np.diag([edge, edge, 0.0]),
        [True, True, False],
        fixed=np.tile([False, False, True], (len(x), 1)),
    )
    neighbors = ms.neighbors_of(potential, packing, capacity=_packing_shape())
    result, slope = _soft(potential, packing, neighbors)
    assert_allclose(result.energy, case["values"]["energy"]["value"], rtol=1e-12)
    assert_allclose(result.forces, 0.0, atol=1e-13)
    # at rest, and at a fixed box: the total derivative is the partial one
    assert_allclose(slope.diameter[1], case["sensitivities"]["energy"]["D"]["value"], rtol=1e-10)


@jax.jit
def _soft(potential, packing, neighbors):
    return evaluate(potential, packing, neighbors), jax.grad(lambda p: p.energy(packing, neighbors))(
        potential
    )


def _packing_shape():
    from mdsens.neighbors import Capacity

    return Capacity(700, 16)  # one shape, compiled once, for the five packings
