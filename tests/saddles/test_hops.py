"""Hops of atoms in crystals and on surfaces: known barriers, their derivatives, and the band of ASE."""

import ase.build
import numpy as np
import pytest
from lammps_program import files_of_lammps
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.units import THZ


def vacancy_hop(host: ase.Atoms) -> tuple[ms.Structure, ms.Structure]:
    """A vacancy at atom 0, and where its nearest atom has hopped into it; with one order of atoms."""
    hopping = int(np.argsort(host.get_all_distances(mic=True)[0])[1])
    start, end = host.copy(), host.copy()
    end.positions[hopping] = host.positions[0]
    del start[0], end[0]
    return ms.Structure.from_ase(start), ms.Structure.from_ase(end)


def adatom_hop() -> tuple[ms.Structure, ms.Structure]:
    """An atom on Cu(100) hops from one hollow to the next; the bottom layer is held."""
    slab = ase.build.fcc100("Cu", size=(3, 3, 3), a=3.615, vacuum=6.0)
    slab.set_constraint(ase.constraints.FixAtoms(range(9)))
    ends = []
    for x in (0.0, 1 / 3):
        atoms = slab.copy()
        at = slab.positions[9, :2] + x * slab.cell.array[0, :2]
        ase.build.add_adsorbate(atoms, "Cu", 1.8, position=at)
        ends.append(ms.Structure.from_ase(atoms))
    return ends[0], ends[1]


def check_derivatives(hop: ms.Barrier, names: list[str], rtol: float) -> None:
    """Barrier and attempt frequency against minima and saddle points found anew, by central differences."""
    measured = ["barrier", "attempt_frequency"]
    potential = hop.saddle.potential
    values = ms.parameter_values(potential)
    for mode in ("forward", "reverse"):
        _, jacobian = ms.first_order(hop.states, measured, names, mode=mode)
        for k, name in enumerate(names):
            # frequencies go as the 100th power of lambda: (100 step)² / 6 is what differences leave out
            step = 3e-5 * abs(values[name])
            ends = []
            for sign in (1, -1):
                changed = ms.replace_parameters(potential, {name: values[name] + sign * step})
                minimum = ms.relax(changed, hop.initial.structure, fmax=1e-10)
                states = {"initial": minimum, "saddle": hop.saddle.again(changed)}
                ends.append(ms.first_order(states, measured, [name])[0])
            twin = (ends[0] - ends[1]) / (2 * step)
            assert_allclose(jacobian[:, k], twin, rtol=rtol, err_msg=f"{name}, {mode}")


@pytest.mark.validation
def test_a_vacancy_hops_in_mishins_copper():
    potential = ms.load_potential(files_of_lammps() / "Cu_mishin1.eam.alloy")
    host = ase.build.bulk("Cu", cubic=True, a=3.615) * (3, 3, 3)
    hop = ms.barrier(potential, *vacancy_hop(host), images=3)
    # Mishin et al., Phys. Rev. B 63, 224106 (2001), table III: 0.689 eV in a large cell
    assert_allclose(float(hop.forward), 0.689, atol=0.02)
    assert_allclose(hop.backward, hop.forward, atol=1e-9)
    # attempt frequencies of vacancies in copper are some THz
    assert 1 < float(hop.attempt_frequency) < 30


def drawn_in(structure: ms.Structure, place: np.ndarray) -> ms.Structure:
    """The four neighbors of a vacancy moved into it: its minimum, 1.5 eV below the one without."""
    atoms = structure.to_ase()
    probe = atoms.copy()
    probe.append(ase.Atom("Si", place))
    vectors = probe.get_distances(len(atoms), range(len(atoms)), mic=True, vector=True)
    near = np.argsort(np.linalg.norm(vectors, axis=1))[:4]
    atoms.positions[near] -= 0.2 * vectors[near]
    atoms.rattle(0.02, seed=1)
    return ms.Structure.from_ase(atoms)


@pytest.mark.validation
def test_a_vacancy_hops_in_stillinger_and_webers_silicon():
    potential = ms.load_potential("si-stillinger-weber-1985")
    host = ase.build.bulk("Si", cubic=True, a=5.431) * (2, 2, 2)
    hopping = int(np.argsort(host.get_all_distances(mic=True)[0])[1])
    ends = vacancy_hop(host)
    places = host.positions[0], host.positions[hopping]
    drawn = [drawn_in(end, place) for end, place in zip(ends, places, strict=True)]
    hop = ms.barrier(potential, *drawn, images=5)
    # Maroudas, Brown, Phys. Rev. B 47, 15562 (1993) and others: 0.4 to 0.5 eV
    assert 0.3 < float(hop.forward) < 0.6
    logarithms = log_frequencies(hop.initial, 3).sum() - log_frequencies(hop.saddle, 4).sum()
    assert_allclose(np.log(float(hop.attempt_frequency)), logarithms, rtol=1e-7)
    check_derivatives(hop, ["epsilon", "lambda"], 1e-5)


def log_frequencies(state, left_out: int) -> np.ndarray:
    """Of the phonons at Gamma, ln of THz, without the lowest: three shifts, and a mode that leads over."""
    vibrations = ms.observables.LatticeVibrations.of(state.equilibrium, 1)
    (matrix,) = vibrations.dynamical_matrices(np.zeros((1, 3)))
    squares = np.linalg.eigvalsh(matrix)[left_out:]
    return np.log(THZ * np.sqrt(squares))


@pytest.mark.validation
def test_an_atom_hops_on_copper():
    potential = ms.load_potential("cu-gupta-1993")
    hop = ms.barrier(potential, *adatom_hop(), images=3)
    # embedded-atom potentials find 0.4 to 0.55 eV for the hop on Cu(100)
    assert 0.35 < float(hop.forward) < 0.6
    check_derivatives(hop, ["xi", "q"], 1e-5)


@pytest.mark.validation
def test_the_band_of_ase_through_the_calculator_finds_the_same_saddle_point():
    from ase.mep import NEB
    from ase.optimize import FIRE

    potential = ms.load_potential("cu-gupta-1993")
    hop = ms.barrier(potential, *adatom_hop(), images=3)
    calculator = ms.calculators.MDSens(potential)
    first, last = (state.structure.to_ase() for state in (hop.initial, hop.final))
    images = [first, *(first.copy() for _ in range(3)), last]
    for image in images:
        image.calc = calculator
    band = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=True, k=5.0)
    band.interpolate()
    FIRE(band, logfile=None).run(fmax=0.01, steps=500)
    highest = max(image.get_potential_energy() for image in images)
    # a band at 0.01 eV/Å is above the saddle point by 0.01² / (2 * curvature) ~ 1e-4 eV
    assert_allclose(highest, float(hop.saddle.energy), atol=1e-3)
    top = images[int(np.argmax([image.get_potential_energy() for image in images]))]
    assert_allclose(top.positions, hop.saddle.structure.positions, atol=0.02)
