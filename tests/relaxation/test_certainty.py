"""A minimum is told from all else as its certificate tells it, most often without eigenvalues."""

import numpy as np
import pytest
from ase.build import bulk
from states import cluster

import mdsens as ms
from mdsens.implicit.spectrum import Spectrum
from mdsens.relaxation import equilibrium
from mdsens.relaxation.certificate import SOFT
from mdsens.relaxation.equilibrium import Equilibrium

SILICON = ms.load_potential("si-stillinger-weber-1985")
CRYSTAL = ms.Structure.from_ase(bulk("Si", a=5.431, cubic=True))


@pytest.fixture
def spectra(monkeypatch):
    """How often eigenvalues were asked for."""
    calls = []
    real = equilibrium.dense_spectrum

    def counted(*args) -> Spectrum:
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(equilibrium, "dense_spectrum", counted)
    return calls


def test_a_stiff_minimum_needs_no_eigenvalues_until_somebody_reads_them(spectra):
    state = Equilibrium.at(SILICON, CRYSTAL)
    assert state.is_minimum and not state.is_saddle and not state.is_singular
    state.require()
    assert not spectra
    certificate = state.certificate
    assert len(spectra) == 1
    assert certificate.is_minimum
    assert certificate.lowest_curvature > 0


def test_a_relaxation_finds_a_minimum_without_eigenvalues(spectra):
    potential, structure = cluster()
    assert ms.relax(potential, structure).equilibrium.is_minimum
    assert not spectra


def along(curvature: float) -> Equilibrium:
    """A state whose softest mode has this part of the highest curvature."""
    state = Equilibrium.at(SILICON, CRYSTAL)
    matrix, projector = state.hessian
    ends = state.spectrum
    mode = np.asarray(ends.mode)
    softer = (curvature * ends.highest - ends.lowest) * np.outer(mode, mode)
    changed = Equilibrium.at(SILICON, CRYSTAL)
    vars(changed)["assembled"] = None
    vars(changed)["hessian"] = (matrix + softer, projector)
    return changed


@pytest.mark.parametrize(
    ("curvature", "kind"),
    [
        (1e-3, "is_minimum"),
        (2 * SOFT, "is_minimum"),  # too soft for the proof, and no less a minimum
        (0.5 * SOFT, "is_singular"),
        (-0.5 * SOFT, "is_singular"),
        (-2 * SOFT, "is_saddle"),
        (-1e-2, "is_saddle"),
    ],
)
def test_proof_and_eigenvalues_draw_one_border(curvature, kind):
    state = along(curvature)
    kinds = ("is_minimum", "is_singular", "is_saddle")
    assert [name for name in kinds if getattr(state, name)] == [kind]
    assert [name for name in kinds if getattr(state.certificate, name)] == [kind]


def test_a_structure_of_rattlers_alone_is_at_rest():
    far = ms.Structure.create([[0, 0, 0], [9, 0, 0]], ["Si", "Si"], cell=18 * np.eye(3))
    state = Equilibrium.at(SILICON, far)
    assert state.is_minimum and state.certificate.is_minimum
