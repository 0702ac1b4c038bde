"""Frames of a potential at a temperature, and perhaps a pressure: what averages are taken over.

Frames come with the probability exp(-(U + pV) / kT), or with weights that make it so: those of another
potential or state after `reweighted`, those of a flow after `from_flow`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mdsens.checks import instance, number, whole
from mdsens.ensembles.weights import MIN_EFFECTIVE
from mdsens.errors import InputError, NotConvergedError
from mdsens.potentials.base import Potential, check_elements, require_potential
from mdsens.potentials.parameters import parameter_values, replace_parameters
from mdsens.precision import require_x64
from mdsens.structure import Structure, require_structure
from mdsens.thermal import files
from mdsens.thermal.averages import EffectiveCount, average, count_effective, volumes_of
from mdsens.thermal.frames import Callback, Frames, energy, measure_frames
from mdsens.thermal.result import ThermalAverages
from mdsens.units import BOLTZMANN


class Ensemble(eqx.Module):
    """Frames of a potential at a temperature. Made by `mdsens.sample`, or by `Ensemble.of_frames`.

    Attributes:
        potential: whose frames they are, or whose after reweighting.
        frames: arrangements in the order of time, the replicas of one time together.
        energies: of the potential, eV.
        temperature: K.
        pressure: eV/Å³; None where the cell is held.
        replicas: frames of one time; 0: all frames are independent.
        log_weights: logarithms of the frames' weights, up to a constant; zeros if all count alike.
        interval: time between frames, fs; 0 where there is no time.
        seed: of the random numbers that made them.
    """

    potential: Potential
    frames: Frames
    energies: Float[np.ndarray, " frames"]
    temperature: float
    pressure: float | None
    replicas: int
    log_weights: Float[np.ndarray, " frames"]
    interval: float = 0.0
    seed: int = 0

    @classmethod
    def of_frames(
        cls,
        potential: Potential,
        structure: Structure,
        positions: Any,
        *,
        temperature: float,
        pressure: float | None = None,
        cells: Any = None,
        replicas: int = 0,
        log_weights: Any = None,
    ) -> "Ensemble":
        """An ensemble of frames from elsewhere; their energies are computed.

        Args:
            structure: elements, masses, cell, what is periodic and held.
            positions: (frames, atoms, 3), Å, with the probability exp(-(U + pV) / kT), or with `log_weights`.
            temperature: K. pressure: eV/Å³; None where the cell is held.
            cells: (frames, 3, 3), Å; by default that of the structure.
            replicas: frames of one time, which stand together; 0: all frames are independent of each other.
            log_weights: logarithms of the frames' weights.
        Raises:
            InputError: a temperature that is not positive, frames of other atoms, numbers that do not fit.
            NonFiniteError: a frame without a finite energy.
        """
        require_x64()
        _check_system(potential, structure)
        T = number("temperature", temperature, "K", above=0.0)
        p = None if pressure is None else number("pressure", pressure, "eV/Å³")
        frames = _frames(structure, positions, cells)
        n, together = len(frames), whole("replicas", replicas)
        if together and n % together:
            raise InputError(f"{n} frames are no multiple of replicas = {together}: give whole records.")
        found = measure_frames(potential, frames, (energy,))
        energies = found[energy].value
        return cls(potential, frames, np.asarray(energies), T, p, together, _weights(log_weights, n))

    # --- what it holds

    @property
    def parameters(self) -> dict[str, float]:
        """Values of the potential's parameters by flat name."""
        return parameter_values(self.potential)

    @property
    def freedom(self) -> int:
        """Coordinates that are not held."""
        return int((~np.asarray(self.frames.structure.fixed)).sum())

    @property
    def volumes(self) -> Float[np.ndarray, " frames"]:
        """Of each frame, Å³; zero without a cell."""
        return volumes_of(self.frames.cells, len(self.frames))

    @property
    def enthalpies(self) -> Float[np.ndarray, " frames"]:
        """U + pV of each frame, eV; U where the cell is held."""
        return self.energies if self.pressure is None else self.energies + self.pressure * self.volumes

    @property
    def effective(self) -> EffectiveCount:
        """How many independent samples the frames amount to, and why so few."""
        return count_effective(self)

    def structures(self) -> list[Structure]:
        """The frames as structures."""
        return [self.frames.at(k) for k in range(len(self.frames))]

    def thinned(self) -> "Ensemble":
        """Frames that no longer remember each other: one in `effective.inefficiency`, of every replica."""
        if not self.replicas:
            return self
        stride = int(np.ceil(self.effective.inefficiency))
        times = np.arange(len(self.frames)) // self.replicas
        return self.chosen(times % stride == 0, replicas=0)

    def chosen(self, which: Any, replicas: int) -> "Ensemble":
        """Some of the frames, by a mask or indices.

        Args:
            replicas: of the result.
        """
        frames = self.frames
        cells = frames.cells if frames.cells.ndim == 2 else frames.cells[which]
        kept = frames._replace(positions=frames.positions[which], cells=cells)
        energies, log_w = self.energies[which], self.log_weights[which]
        return dataclasses.replace(self, frames=kept, energies=energies, log_weights=log_w, replicas=replicas)

    # --- averages

    def average(
        self,
        observables: Any,
        *,
        parameters: Sequence[str] | None = None,
        second_order: bool = False,
        min_effective: float = MIN_EFFECTIVE,
        progress: Callback | None = None,
    ) -> ThermalAverages:
        """Averages, their derivatives by parameters, temperature and pressure, and error bars on all of them.

        Args:
            observables: names ("pressure", "heat_capacity", "rdf(r_max=6)", ...), `mdsens.Observable` of one
                frame, or `ThermalObservable`; one or several.
            parameters: flat names of the parameters to differentiate by; by default all. () for none, which
                takes no derivative of the potential.
            second_order: second derivatives too, by all pairs of variables.
            min_effective: independent samples asked for; 0 shows the result whatever it is.
            progress: called with the number of frames measured, and of all.
        Raises:
            InputError: an observable or a parameter that is unknown, or has no meaning for this ensemble.
            NotConvergedError: fewer effective samples than `min_effective`; `partial` is the result.
            NonFiniteError: something measured in a frame is not finite.
        """
        return average(self, observables, parameters, second_order, min_effective, progress)

    # --- other states

    def reweighted(
        self,
        potential: Potential | Mapping[str, float] | None = None,
        *,
        temperature: float | None = None,
        pressure: float | None = None,
        min_effective: float = MIN_EFFECTIVE,
    ) -> "Ensemble":
        """The same frames as an ensemble of another potential, temperature or pressure.

        Args:
            potential: another one for the same atoms, or values of some parameters by flat name.
            temperature: K. pressure: eV/Å³, where the cell moves. By default as they are.
            min_effective: independent samples that must be left.
        Raises:
            InputError: a potential without parameters for these atoms, a pressure on a cell that was held.
            NotConvergedError: fewer effective samples than `min_effective`; `partial` is the ensemble.
        Source: Thaler, Zavadlav, Nat. Commun. 12, 6884 (2021).
        """
        target = self._potential(potential)
        T = self.temperature if temperature is None else number("temperature", temperature, "K", above=0.0)
        p = self._pressure(pressure)
        energies = self.energies
        if potential is not None:
            energies = np.asarray(measure_frames(target, self.frames, (energy,))[energy].value)
        # w -> w exp(-h_new + h_old)
        enthalpies = energies if p is None else energies + p * self.volumes
        change = enthalpies / (BOLTZMANN * T) - self.enthalpies / (BOLTZMANN * self.temperature)
        log_w = self.log_weights - change
        state = {"potential": target, "energies": energies, "temperature": T, "pressure": p}
        there = dataclasses.replace(self, **state, log_weights=log_w - log_w.max())
        there.require_effective(min_effective)
        return there

    def require_effective(self, least: float) -> None:
        """Raise where fewer independent samples are left.

        Raises:
            NotConvergedError: `partial` is the ensemble.
        """
        counted = self.effective
        if counted.samples >= least:
            return
        raise NotConvergedError(
            f"of {len(self.frames)} frames only {counted.samples:.2g} independent samples are left "
            f"({counted}), below min_effective = {least:g}: the other state is too far away. Go there in "
            "smaller steps, sample it anew (mdsens.sample), or sample longer; min_effective=0 takes it as it "
            "is.",
            self,
        )

    def _potential(self, given: Potential | Mapping[str, float] | None) -> Potential:
        if given is None:
            return self.potential
        if isinstance(given, Mapping):
            return replace_parameters(self.potential, given)
        check_elements(require_potential(given), self.frames.structure)
        return given

    def _pressure(self, given: float | None) -> float | None:
        if given is None:
            return self.pressure
        if self.pressure is None:
            raise InputError(
                f"pressure = {given}: the cell was held, so these frames have one volume and belong to no "
                "pressure. Sample with pressure=."
            )
        return number("pressure", given, "eV/Å³")

    # --- files

    def to_hdf5(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write everything but the form of the potential: mdtraj opens the file, `from_hdf5` reads it back.

        Raises:
            OutputExistsError: the file exists, and `overwrite` is False.
        """
        files.write(self, path, overwrite)

    @classmethod
    def from_hdf5(cls, path: str | Path, potential: Potential) -> "Ensemble":
        """Read what `to_hdf5` wrote.

        Args:
            potential: the one whose frames they are. Parameters are taken from the file, so that any
                potential of the same form and settings does.
        Raises:
            FileFormatError: no such file, or not one of `to_hdf5`.
            InputError: a potential with other parameters, for other atoms, or with another energy of the
                first frame.
        """
        require_x64()
        content = files.read(path)
        found = content.pop("parameters")
        potential = files.same_form(path, require_potential(potential), found)
        ensemble = cls(potential=potential, frames=Frames(**content.pop("frames")), **content)
        check_elements(potential, ensemble.frames.structure)
        files.check_energy(path, ensemble)
        return ensemble


def joined(ensembles: Sequence[Ensemble]) -> Ensemble:
    """Ensembles of the same potential and state, one after another.

    Raises:
        InputError: none, or of different potentials, atoms or states.
    """
    parts = [instance("an ensemble", one, Ensemble, "Make one with mdsens.sample.") for one in ensembles]
    if not parts:
        raise InputError("no ensembles are given.")
    first = parts[0]
    for k, other in enumerate(parts):
        require_same_atoms(first, other, k)
        _require_same_state(first, other, k)
    cells = first.frames.cells
    if cells.ndim == 3:
        cells = np.concatenate([one.frames.cells for one in parts])
    positions = np.concatenate([one.frames.positions for one in parts])
    frames = Frames(first.frames.structure, positions, cells)
    of_each = {}
    for name in ("energies", "log_weights"):
        of_each[name] = np.concatenate([getattr(one, name) for one in parts])
    return dataclasses.replace(first, frames=frames, seed=parts[-1].seed, **of_each)


def require_same_atoms(one: Ensemble, other: Ensemble, k: int) -> None:
    """Raise unless two ensembles are of the same atoms.

    Raises:
        InputError: names the ensemble and the atoms.
    """
    mine, theirs = one.frames.structure, other.frames.structure
    if tuple(mine.symbols) != tuple(theirs.symbols) or mine.pbc != theirs.pbc:
        raise InputError(
            f"ensemble {k} is of {_formula(theirs)}, and ensemble 0 of {_formula(mine)}: they must be of the "
            "same atoms in the same order, and periodic along the same directions."
        )


def _require_same_state(one: Ensemble, other: Ensemble, k: int) -> None:
    same = jax.tree.structure(one.potential) == jax.tree.structure(other.potential)
    mine, theirs = one.parameters, other.parameters
    state = lambda ensemble: (ensemble.temperature, ensemble.pressure, ensemble.replicas)
    if not same or mine != theirs or state(one) != state(other):
        raise InputError(
            f"ensemble {k} is of another potential, temperature, pressure or number of replicas than "
            "ensemble 0: combine several states with mdsens.thermal.combine."
        )


def _formula(structure: Structure) -> str:
    symbols = structure.symbols
    counts = {symbol: symbols.count(symbol) for symbol in dict.fromkeys(symbols)}
    return " ".join(f"{symbol}{count}" for symbol, count in counts.items())


def _check_system(potential: Any, structure: Any) -> None:
    check_elements(require_potential(potential), require_structure(structure))


def _frames(structure: Structure, positions: Any, cells: Any) -> Frames:
    places = np.asarray(positions, float)
    n = structure.n_atoms
    if places.ndim != 3 or places.shape[1:] != (n, 3) or len(places) < 2:
        raise InputError(
            f"positions of shape {places.shape} for {n} atoms: give (frames, {n}, 3) in Å, two frames or "
            "more."
        )
    boxes = np.asarray(structure.cell if cells is None else cells, float)
    if boxes.shape not in ((3, 3), (len(places), 3, 3)):
        raise InputError(
            f"cells of shape {boxes.shape} for {len(places)} frames: give ({len(places)}, 3, 3), or (3, 3)."
        )
    first = boxes if boxes.ndim == 2 else boxes[0]
    plain = structure.at(jnp.asarray(places[0]), jnp.asarray(first))
    return Frames(plain, places, boxes)


def _weights(log_weights: Any, n: int) -> Float[np.ndarray, " frames"]:
    if log_weights is None:
        return np.zeros(n)
    found = np.asarray(log_weights, float)
    if found.shape != (n,) or np.isnan(found).any() or not np.isfinite(found.max()):
        raise InputError(f"log_weights of shape {found.shape} for {n} frames: give one number for each.")
    return found - found.max()
