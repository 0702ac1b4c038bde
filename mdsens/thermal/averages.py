"""Averages over an ensemble, their derivatives by every parameter, temperature and pressure, and error bars.

Frames i have the weights w_i ~ exp(a_i - h_i(z) + h_i(z_0)) with the reduced enthalpy

    h_i(z) = [U_i(theta) + p V_i] / kT,             z = (theta, T, p),

so that derivatives by z are those of a function of the frames' energies and of what was measured in them
(`mdsens.ensembles.responses`). For a mean this is d<O>/dtheta = <dO/dtheta> - cov(O, dU/dtheta) / kT.
Nothing is sampled again: the gradient of each frame's energy by all parameters is all that it takes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.ensembles.correlation import inefficiencies
from mdsens.ensembles.responses import Response, response
from mdsens.ensembles.weights import MIN_EFFECTIVE, share
from mdsens.errors import InputError, NotConvergedError
from mdsens.potentials.base import Potential
from mdsens.potentials.parameters import find_entries, parameter_values
from mdsens.strain import volume_of
from mdsens.structure import Structure
from mdsens.thermal.frames import Callback, Expanded, FrameFunction, energy, measure_frames
from mdsens.thermal.observables import chosen
from mdsens.thermal.point import ThermalObservable, ThermalPoint
from mdsens.thermal.result import ArrayGrid, ThermalAverages
from mdsens.units import BOLTZMANN, GPA

if TYPE_CHECKING:
    from mdsens.thermal.ensemble import Ensemble

TEMPERATURE, PRESSURE = "temperature", "pressure"  # names of variables


class Fluctuation(eqx.Module):
    """All observables as a function of weights and variables z: theta, T (K), and p (GPa) if the cell moves.

    Attributes:
        observables: what is averaged.
        energy: U of each frame. volume: V of each.
        functions, tables: what measured in each frame, and what it found.
        temperature, pressure: z_0, K and eV/Å³; no pressure where the cell is held.
        n_atoms, freedom: as of `ThermalPoint`.
    """

    observables: tuple[ThermalObservable, ...] = eqx.field(static=True)
    energy: Expanded
    volume: Float[Array, " frames"]
    functions: tuple[FrameFunction, ...] = eqx.field(static=True)
    tables: tuple[Expanded, ...]
    temperature: Float[Array, ""]
    pressure: Float[Array, ""] | None
    n_atoms: int = eqx.field(static=True)
    freedom: int = eqx.field(static=True)

    @property
    def start(self) -> Float[Array, " variables"]:
        """z as a change: parameters count from where they are."""
        theta = 0 if self.energy.first is None else self.energy.first.shape[-1]
        held = self.pressure is None
        return jnp.zeros(theta + (1 if held else 2))

    def __call__(
        self, log_w: Float[Array, " frames"], z: Float[Array, " variables"]
    ) -> Float[Array, "numbers"]:
        """Every number of every observable."""
        point = self._point(log_w, z)
        results = [jnp.ravel(value) for o in self.observables for value in o.function(point)]
        return jnp.concatenate(results)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of each result."""
        n, z = len(self.volume), self.start
        point = jax.eval_shape(self._point, jnp.zeros(n), z)
        found = [eqx.filter_eval_shape(o.function, point) for o in self.observables]
        return [value.shape for values in found for value in values]

    def _point(self, log_w: Array, z: Array) -> ThermalPoint:
        held = self.pressure is None
        change = z[: len(z) - (1 if held else 2)]
        T = self.temperature + z[len(change)]
        p = None if self.pressure is None else self.pressure + z[-1] / GPA
        U = self.energy.at(change)
        moved = _reduced(U, self.volume, T, p)
        there = _reduced(jnp.asarray(self.energy.value), self.volume, self.temperature, self.pressure)
        weights = jax.nn.softmax(log_w - moved + there)
        tables = tuple(table.at(change) for table in self.tables)
        return ThermalPoint(weights, U, self.volume, T, p, self.functions, tables, self.n_atoms, self.freedom)


def _reduced(U: Array, V: Array, T: Array, p: Array | None) -> Array:
    """h = (U + pV) / kT."""
    H = U if p is None else U + p * V
    return H / (BOLTZMANN * T)


class EffectiveCount(NamedTuple):
    """How many independent samples an ensemble amounts to.

    Attributes:
        samples: that would tell as much.
        inefficiency: frames that count as one because they remember each other.
        share: of the frames, that counts because weights differ.
    """

    samples: float
    inefficiency: float
    share: float

    def __str__(self) -> str:
        of_weights = f"{100 * self.share:.2g} % of the frames by their weights"
        return f"{of_weights}, and each is remembered by {self.inefficiency:.3g}"


def count_effective(ensemble: "Ensemble") -> EffectiveCount:
    """Effective samples for the mean of the energy: Kish's, over the statistical inefficiency."""
    n, log_w = len(ensemble.frames), jnp.asarray(ensemble.log_weights)
    H = ensemble.enthalpies
    weights = np.asarray(jax.nn.softmax(log_w))
    kish = float(share(log_w))
    influence = n * weights * (H - weights @ H)
    g = 1.0
    if ensemble.replicas:
        by_time = influence.reshape(n // ensemble.replicas, ensemble.replicas, 1)
        g = float(inefficiencies(by_time)[0])
    return EffectiveCount(n * kish / g, g, kish)


def average(
    ensemble: "Ensemble",
    observables: Any,
    parameters: Sequence[str] | None = None,
    second_order: bool = False,
    min_effective: float = MIN_EFFECTIVE,
    progress: Callback | None = None,
) -> ThermalAverages:
    """See `Ensemble.average`."""
    structure = ensemble.frames.at(0)
    wanted, names = request(ensemble.potential, structure, ensemble.pressure, observables, parameters)
    order = 0 if not names else (2 if second_order else 1)
    functions = tuple(dict.fromkeys(f for o in wanted for f in o.measures))
    quantity = _fluctuation(ensemble, wanted, functions, names, order, progress)
    found = response(
        quantity,
        jnp.asarray(ensemble.log_weights),
        quantity.start,
        replicas=ensemble.replicas,
        second_order=second_order,
    )
    result = _result(ensemble, wanted, quantity.shapes, names, found)
    _check_effective(result, min_effective)
    return result


def request(
    potential: Potential,
    structure: Structure,
    pressure: float | None,
    observables: Any,
    parameters: Sequence[str] | None,
) -> tuple[tuple[ThermalObservable, ...], tuple[str, ...]]:
    """Observables and parameters that were asked for, looked at before anything is sampled or measured.

    Raises:
        InputError: as of `Ensemble.average`.
    """
    wanted = chosen(observables, structure)
    _check_suited(structure, pressure is not None, wanted)
    if parameters is None:
        return wanted, tuple(parameter_values(potential))
    given = (parameters,) if isinstance(parameters, str) else tuple(parameters)
    find_entries(potential, given)
    return wanted, given


def _check_suited(structure: Structure, moving: bool, wanted: Sequence[ThermalObservable]) -> None:
    for observable in wanted:
        name = ", ".join(observable.names)
        if observable.bulk and not all(structure.pbc):
            raise InputError(
                f"{name} needs a structure that is periodic in three directions (pbc = {structure.pbc}): a "
                "slab, a wire or a cluster has no volume of its own."
            )
        if observable.cell == "moving" and not moving:
            raise InputError(
                f"{name} is a fluctuation of the volume, and the cell was held: sample with pressure=0.0 (or "
                "another one)."
            )
        if observable.cell == "held" and moving:
            raise InputError(
                f"{name} is the stress that a strain makes, so the cell must be held: sample with "
                "pressure=None in the mean cell."
            )


def _fluctuation(
    ensemble: "Ensemble",
    wanted: tuple[ThermalObservable, ...],
    functions: tuple[FrameFunction, ...],
    names: tuple[str, ...],
    order: int,
    progress: Callback | None,
) -> Fluctuation:
    frames = ensemble.frames
    asked = (energy, *functions) if order else functions
    found: dict[Any, Expanded] = {}
    if asked:
        found = measure_frames(ensemble.potential, frames, asked, names, order=order, progress=progress)
    known = Expanded(jnp.asarray(ensemble.energies))
    held = ensemble.pressure is None
    return Fluctuation(
        observables=wanted,
        energy=_arrays(found.pop(energy, known)),
        volume=jnp.asarray(ensemble.volumes),
        functions=functions,
        tables=tuple(_arrays(found[function]) for function in functions),
        temperature=jnp.asarray(ensemble.temperature),
        pressure=None if held else jnp.asarray(ensemble.pressure),
        n_atoms=frames.structure.n_atoms,
        freedom=ensemble.freedom,
    )


def _arrays(expanded: Expanded) -> Expanded:
    return jax.tree.map(jnp.asarray, expanded)


def _result(
    ensemble: "Ensemble",
    wanted: Sequence[ThermalObservable],
    shapes: list[tuple[int, ...]],
    names: tuple[str, ...],
    found: Response,
) -> ThermalAverages:
    entries = find_entries(ensemble.potential, names)
    units = [*(entry.unit for entry in entries), "K"]
    values = [*(ensemble.parameters[name] for name in names), ensemble.temperature]
    variables = [*names, TEMPERATURE]
    if ensemble.pressure is not None:
        variables.append(PRESSURE)
        units.append("GPa")
        values.append(GPA * ensemble.pressure)
    counted = count_effective(ensemble)
    return ThermalAverages(
        names=tuple(name for o in wanted for name in o.names),
        units=tuple(unit for o in wanted for unit in o.units),
        shapes=tuple(shapes),
        variables=tuple(variables),
        variable_units=tuple(units),
        variable_values=np.array(values, float),
        frames=len(ensemble.frames),
        effective_samples=counted.samples,
        inefficiency=counted.inefficiency,
        grids={o.names[0]: ArrayGrid(np.array(o.grid), o.grid_unit) for o in wanted if o.grid},
        **found._asdict(),
    )


def _check_effective(result: ThermalAverages, least: float) -> None:
    if result.effective_samples >= least:
        return
    raise NotConvergedError(
        f"the {result.frames} frames amount to {result.effective_samples:.2g} independent samples, below "
        f"min_effective = {least:g} (each is remembered by {result.inefficiency:.3g} frames, and weights may "
        "differ): the error bars cannot be trusted. Sample longer, or nearer to the state asked for; "
        "min_effective=0 shows the numbers.",
        result,
    )


def volumes_of(cells: np.ndarray, n: int) -> Float[np.ndarray, " frames"]:
    """Volume of each frame, Å³; zero without a cell."""
    if cells.ndim == 2:
        return np.full(n, float(volume_of(jnp.asarray(cells))))
    return np.abs(np.linalg.det(cells))
