"""FIRE is ASE's FIRE, step for step; and all ways downhill end where ASE's end."""

import ase.build
import numpy as np
import pytest
from ase.optimize import BFGS
from ase.optimize import FIRE as ASEFIRE
from numpy.testing import assert_allclose

import mdsens as ms

LIKE_ASE = ms.FIRE(dt_max=0.3, max_step=0.1)  # so that sixty steps take each branch
LJ = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=6.5)


@pytest.fixture
def argon() -> ase.Atoms:
    """Eight sites of a fcc crystal with seven atoms, rattled so far that FIRE goes uphill on its way."""
    atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True) * (1, 1, 2)
    del atoms[5]
    atoms.rattle(0.3, seed=4)
    atoms.calc = ms.calculators.MDSens(LJ)
    return atoms


def test_fire_walks_as_in_ase_step_for_step(argon):
    start = ms.Structure.from_ase(argon)
    theirs = ASEFIRE(argon, dtmax=0.3, maxstep=0.1, logfile=None)
    path, time_steps = [argon.positions.copy()], []
    for k in range(1, 61):
        theirs.run(fmax=0.0, steps=1)
        path.append(argon.positions.copy())
        time_steps.append(theirs.dt)
        mine = ms.relax(LJ, start, fmax=1e-30, solver=LIKE_ASE, max_steps=k, throw=False, check_minimum=False)
        # The same formulas in another order of summation: rounding of 1e-15 Å a step, hardly amplified on the
        # way down.
        assert_allclose(
            np.asarray(mine.structure.positions), path[-1], rtol=0, atol=1e-10, err_msg=f"after {k} steps"
        )
    # The walk took each branch: faster, uphill, at the longest time step, and a step cut short.
    assert max(time_steps) == 0.3
    assert min(np.diff(time_steps)) < 0
    assert np.isclose(np.linalg.norm(np.diff(path, axis=0), axis=(1, 2)).max(), 0.1)


@pytest.mark.parametrize("theirs", [BFGS, ASEFIRE])
def test_relax_finds_the_energy_that_ase_finds(argon, theirs):
    start = ms.Structure.from_ase(argon)
    assert theirs(argon, logfile=None).run(fmax=1e-5, steps=2000)
    # The error of the energy is F² / curvature ~ (1e-5)² / 0.01 eV/Å² = 1e-8 at most.
    assert_allclose(
        float(ms.relax(LJ, start, solver=LIKE_ASE).energy), argon.get_potential_energy(), rtol=0, atol=1e-8
    )
