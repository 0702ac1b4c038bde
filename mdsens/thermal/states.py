"""Several states sampled together: free energies between them, and averages at any state in their midst.

States k have the reduced enthalpies u_k = (U_k + p_k V) / kT_k and N_k frames each. All frames together are
samples of the mixture sum_k N_k exp(f_k - u_k), where the f_k, free energies in kT, solve

    exp(-f_j) = sum_n exp(-u_j(x_n)) / sum_k N_k exp(f_k - u_k(x_n)).

With the weights exp(-u(x_n)) / sum_k N_k exp(f_k - u_k(x_n)) they are samples of any state u near by. pymbar
solves for f and knows its errors; it is an extra (`pip install mdsens[mbar]`).

Source: Shirts, Chodera, J. Chem. Phys. 129, 124105 (2008).
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mdsens.checks import instance, number
from mdsens.ensembles.weights import MIN_EFFECTIVE
from mdsens.errors import InputError
from mdsens.potentials.base import Potential
from mdsens.thermal.ensemble import Ensemble, require_same_atoms
from mdsens.thermal.frames import Frames, energy, measure_frames
from mdsens.units import BOLTZMANN


class CombinedStates(NamedTuple):
    """States that were sampled, with the free energies between them.

    Attributes:
        ensembles: frames that do not remember each other, of each state.
        free_energies: (F_k - pV part included) / kT_k of each state, from that of the first one.
        errors: of each pair of states: standard error of f_j - f_i.
        log_mixture: log sum_k N_k exp(f_k - u_k) at every frame.
    """

    ensembles: tuple[Ensemble, ...]
    free_energies: Float[np.ndarray, " states"]
    errors: Float[np.ndarray, "states states"]
    log_mixture: Float[np.ndarray, " frames"]

    def at(
        self,
        potential: Potential | Mapping[str, float] | None = None,
        *,
        temperature: float | None = None,
        pressure: float | None = None,
        min_effective: float = MIN_EFFECTIVE,
    ) -> Ensemble:
        """All frames as an ensemble of one state; by default that of the first ensemble.

        Args:
            potential, temperature, pressure, min_effective: as of `Ensemble.reweighted`.
        Raises:
            InputError, NotConvergedError: as of `Ensemble.reweighted`.
        """
        first = self.ensembles[0]
        target = first.reweighted(
            potential, temperature=temperature, pressure=pressure, min_effective=0
        ).potential
        T = first.temperature if temperature is None else number("temperature", temperature, "K", above=0.0)
        p = first.pressure if pressure is None else pressure
        frames = _together(self.ensembles)
        energies = np.asarray(measure_frames(target, frames, (energy,))[energy].value)
        there = Ensemble(target, frames, energies, T, p, 0, np.zeros(len(frames)))
        log_w = -there.enthalpies / (BOLTZMANN * T) - self.log_mixture
        weighted = Ensemble(target, frames, energies, T, p, 0, log_w - log_w.max())
        weighted.require_effective(min_effective)
        return weighted


def combine(ensembles: Sequence[Ensemble]) -> CombinedStates:
    """Free energies between several states, from frames of all of them.

    Args:
        ensembles: of the same atoms, at different parameters, temperatures or pressures, that overlap each
            with the next. Frames that remember each other are thinned out.
    Raises:
        InputError: less than two ensembles, of other atoms, weighted, or some with a cell that moves and some
            without; or pymbar is not installed.
    """
    parts = [instance("an ensemble", one, Ensemble, "Make one with mdsens.sample.") for one in ensembles]
    _check(parts)
    mbar = _pymbar()
    thinned = tuple(part.thinned() for part in parts)
    frames = _together(thinned)
    u = np.stack([_reduced(part, frames) for part in thinned])
    counts = np.array([len(part.frames) for part in thinned])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on options that some releases of scipy do not take
        solved = mbar.MBAR(u, counts)
        found = solved.compute_free_energy_differences()
    f = np.asarray(found["Delta_f"])[0]
    terms = np.log(counts)[:, None] + f[:, None] - u
    largest = terms.max(0)
    log_mixture = largest + np.log(np.exp(terms - largest).sum(0))
    return CombinedStates(thinned, f, np.asarray(found["dDelta_f"]), log_mixture)


def _reduced(ensemble: Ensemble, frames: Frames) -> Float[np.ndarray, " frames"]:
    """u of a state at all frames."""
    U = np.asarray(measure_frames(ensemble.potential, frames, (energy,))[energy].value)
    p, T = ensemble.pressure, ensemble.temperature
    plain = Ensemble(ensemble.potential, frames, U, T, p, 0, np.zeros(len(frames)))
    return plain.enthalpies / (BOLTZMANN * T)


def _together(ensembles: Sequence[Ensemble]) -> Frames:
    first = ensembles[0].frames
    positions = np.concatenate([part.frames.positions for part in ensembles])
    cells: Any = first.cells
    if any(part.frames.cells.ndim == 3 for part in ensembles):
        each = [np.broadcast_to(part.frames.cells, (len(part.frames), 3, 3)) for part in ensembles]
        cells = np.concatenate(each)
    return Frames(first.structure, positions, cells)


def _check(parts: list[Ensemble]) -> None:
    if len(parts) < 2:
        raise InputError(f"{len(parts)} ensembles are given: states are combined from two or more.")
    first = parts[0]
    for k, other in enumerate(parts):
        require_same_atoms(first, other, k)
        if (first.pressure is None) != (other.pressure is None):
            raise InputError(
                f"ensemble {k} and ensemble 0 differ in whether the cell moves: combine states of one kind."
            )
        if first.pressure is None and not np.array_equal(first.frames.cells, other.frames.cells):
            raise InputError(
                f"ensembles {k} and 0 have different cells, and the cells were held: such states share no "
                "frames. Sample them under a pressure."
            )
        if np.ptp(other.log_weights) > 0:
            raise InputError(
                f"ensemble {k} is weighted: combine the ensembles that were sampled, not reweighted ones."
            )


def _pymbar() -> Any:
    try:
        import pymbar.mbar  # pyright: ignore[reportMissingImports]  (an extra)
    except ImportError as error:
        raise InputError(
            "combining states needs pymbar, which is not installed: pip install mdsens[mbar], or pip install "
            "pymbar."
        ) from error
    return pymbar.mbar
