"""Averages at a temperature as residuals: one ensemble serves many steps of a fit.

The averages of a liquid or a hot crystal respond to the parameters by fluctuations, so that one ensemble
gives values and derivatives. At the next step the same frames are reweighted to the new parameters, and only
where too few of them still count is the new potential sampled, from where the last ensemble ended.

    share of the frames that count = (sum w)² / (n sum w²),       w = exp(-(h_new - h_sampled))

Source: DiffTRe, Thaler, Zavadlav, Nat. Commun. 12, 6884 (2021).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mdsens.checks import instance, number
from mdsens.errors import InputError
from mdsens.fitting.terms import Memory, TermRow, TermValue
from mdsens.observables.observable import Observable
from mdsens.potentials.base import Potential
from mdsens.potentials.parameters import parameter_values, replace_by_vector
from mdsens.structure import Structure, require_structure
from mdsens.thermal.averages import request
from mdsens.thermal.ensemble import Ensemble
from mdsens.thermal.frames import Frames
from mdsens.thermal.point import ThermalObservable
from mdsens.thermal.result import ThermalAverages
from mdsens.thermal.sampling import sample

STATED = ("pressure", "cell", "seed", "output", "overwrite", "resume", "progress")


@dataclasses.dataclass(frozen=True)
class ThermalTarget:
    """A value that an average should have.

    Attributes:
        observable: a name ("pressure", "energy_per_atom", ...), or an observable with one number.
        value: in the unit of the observable (GPa, eV, ...).
        tolerance: what it may be off by: one standard error where errors of parameters should be right.
    """

    observable: str | Observable | ThermalObservable
    value: float
    tolerance: float

    @property
    def title(self) -> str:
        """Name of the number."""
        return self.observable if isinstance(self.observable, str) else self.observable.names[0]


class ThermalTargets:
    """Averages of one structure at one temperature as a term of a fit.

    Args:
        structure: where the first sampling starts.
        temperature: K.
        targets: what the averages should be.
        pressure: eV/Å³; None holds the cell.
        cell: which strains the cell takes.
        least_share: of the frames that must count after reweighting; with fewer the potential is sampled
            anew. 1 samples at every step.
        seed: of the random numbers.
        name: of the term.
        sampling: further options of `mdsens.sample`: steps, timestep, replicas, ...
    Raises:
        InputError: no targets, unknown observables, a value or a tolerance that is no number.
    """

    def __init__(
        self,
        structure: Structure,
        temperature: float,
        targets: ThermalTarget | Sequence[ThermalTarget],
        *,
        pressure: float | None = None,
        cell: Any = "isotropic",
        least_share: float = 0.5,
        seed: int = 0,
        name: str = "averages",
        **sampling: Any,
    ):
        self.name = name
        self.structure = require_structure(structure)
        self.temperature = number("temperature", temperature, "K", above=0.0)
        self.pressure = None if pressure is None else number("pressure", pressure, "eV/Å³")
        self.cell, self.seed, self.sampling = cell, seed, sampling
        self.least_share = number("least_share", least_share, above=0.0, at_most=1.0)
        items = [targets] if isinstance(targets, ThermalTarget) else list(targets)
        if not items:
            raise InputError('no targets are given: name some, such as ThermalTarget("pressure", 0.1, 0.01).')
        self.targets = [_checked(item) for item in items]
        for option in STATED:
            if option in sampling:
                raise InputError(f"{option} is no option of the samplings of a fit: leave it out.")

    @property
    def observables(self) -> list[str | Observable | ThermalObservable]:
        """Of each target."""
        return [target.observable for target in self.targets]

    @property
    def values(self) -> Float[np.ndarray, " targets"]:
        """What the averages should be."""
        return np.array([target.value for target in self.targets])

    @property
    def tolerances(self) -> Float[np.ndarray, " targets"]:
        """What they may be off by."""
        return np.array([target.tolerance for target in self.targets])

    def evaluate(self, potential: Potential, parameters: tuple[str, ...], memory: Memory) -> TermValue:
        """Averages, reweighted or sampled anew, and their derivatives.

        Args:
            memory: frames of the last ensemble that was sampled, with its parameters; {} to sample.
        Raises:
            NotConvergedError: too few effective samples. And what `mdsens.sample` raises.
        """
        ensemble, memory, sampled = self.ensemble(potential, memory)
        found = ensemble.average(self.observables, parameters=parameters)
        rows, places = self._rows(found)
        off = found.values[places] - self.values
        slopes = found.derivatives[places, : len(parameters)]
        jacobian = slopes / self.tolerances[:, None]
        return TermValue(off / self.tolerances, jacobian, rows, memory, relaxations=int(sampled))

    def ensemble(self, potential: Potential, memory: Memory) -> tuple[Ensemble, Memory, bool]:
        """An ensemble of the potential, what is kept of the one that was sampled, and whether it was now."""
        if not memory:
            return *self._sampled(potential, self.structure, 0), True
        before = self._remembered(potential, memory)
        there = before.reweighted(potential, min_effective=0)
        # at parameters that were sampled all frames count alike
        if there.effective.share >= self.least_share:
            return there, memory, False
        last = before.frames.at(len(before.frames) - 1)
        return *self._sampled(potential, last, int(memory["samplings"])), True

    def _sampled(self, potential: Potential, start: Structure, made: int) -> tuple[Ensemble, Memory]:
        options = self.sampling | {"pressure": self.pressure, "cell": self.cell}
        ensemble = sample(potential, start, self.temperature, seed=self.seed + made, **options)
        frames = ensemble.frames
        memory = {
            "positions": frames.positions,
            "cells": frames.cells,
            "energies": ensemble.energies,
            "theta": np.array(list(ensemble.parameters.values()), float),
            "replicas": np.asarray(ensemble.replicas),
            "samplings": np.asarray(made + 1),
        }
        return ensemble, memory

    def _remembered(self, potential: Potential, memory: Memory) -> Ensemble:
        names = list(parameter_values(potential))
        sampled = replace_by_vector(potential, names, jnp.asarray(memory["theta"]))
        frames = Frames(self.structure, np.asarray(memory["positions"]), np.asarray(memory["cells"]))
        energies = np.asarray(memory["energies"])
        state = self.temperature, self.pressure, int(memory["replicas"])
        return Ensemble(sampled, frames, energies, *state, np.zeros(len(frames)))

    def _rows(self, found: ThermalAverages) -> tuple[tuple[TermRow, ...], list[int]]:
        names = [name for name, _ in found.rows]
        rows, places = [], []
        for target in self.targets:
            if target.title not in names:
                raise InputError(
                    f"the target '{target.title}' is no single number but an array: give a target for an "
                    "observable with one number."
                )
            place = names.index(target.title)
            value, unit = float(found.values[place]), found.rows[place][1]
            rows.append(TermRow(target.title, unit, value, target.value, target.tolerance))
            places.append(place)
        return tuple(rows), places

    def places(self, found: ThermalAverages) -> list[int]:
        """Where the targets stand among the numbers of an average."""
        return self._rows(found)[1]

    def check(self, potential: Potential) -> None:
        """Look at what is asked for, before anything is sampled.

        Raises:
            InputError: an observable that is unknown, or has no meaning for this structure.
        """
        request(potential, self.structure, self.pressure, self.observables, None)


def _checked(target: Any) -> ThermalTarget:
    found = instance("a target", target, ThermalTarget, 'Write ThermalTarget("pressure", 0.1, 0.01).')
    number(f"the value of {found.title}", found.value)
    number(f"the tolerance of {found.title}", found.tolerance, above=0.0)
    return found
