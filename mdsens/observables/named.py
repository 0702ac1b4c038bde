"""Observables by name: what is computed from relaxed states, with units for reports.

Each is a small object that is called with the potential and the states, so that it can be sent to other
processes. Those that have no meaning for every structure look at the relaxed one first (`Observable.bind`).
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import nearest, number
from mdsens.errors import InputError
from mdsens.observables.averages import AVERAGES, energy_constants
from mdsens.observables.barriers import passage_by_name
from mdsens.observables.calls import is_call, observable_of_call
from mdsens.observables.crystal import Conventional, conventional, require_cubic
from mdsens.observables.defects import formation
from mdsens.observables.dispersion import phonon, phonon_velocity
from mdsens.observables.elastic import (
    bulk_modulus,
    clamped_and_relaxed,
    cubic_constants,
    measure_elastic,
    require_bulk,
)
from mdsens.observables.geometry import angle, distance, steinhardt, tetrahedrality
from mdsens.observables.observable import Observable, State, States
from mdsens.observables.phonons import gamma_phonon
from mdsens.observables.planes import (
    cohesive_energy,
    elastic_dipole,
    stacking_fault_energy,
    surface_energy,
)
from mdsens.observables.quasiharmonic import grueneisen, thermal_expansion, thermal_volume
from mdsens.observables.thermal import (
    vibrational_entropy,
    vibrational_free_energy,
    vibrational_heat_capacity,
)
from mdsens.potentials.base import Potential
from mdsens.quantities import evaluate
from mdsens.structure import volume
from mdsens.units import GPA

# --- energy and volume
# -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Energy:
    """Potential energy of a state, eV; per atom if asked for."""

    state: str
    per_atom: bool = False

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        structure, neighbors = states[self.state]
        energy = potential.energy(structure, neighbors)
        return (energy / structure.count if self.per_atom else energy,)


@dataclasses.dataclass(frozen=True)
class Volume:
    """Volume of a state, Å³."""

    state: str

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        return (volume(states[self.state].structure),)


@dataclasses.dataclass(frozen=True)
class InBulk:
    """Refuses an observable where a state is not periodic in three directions."""

    observable: Observable
    what: str
    state: str

    def __call__(self, states: Mapping[str, Any]) -> Observable:
        require_bulk(states[self.state].structure, self.what)
        return self.observable


def energy(state: str = "structure") -> Observable:
    """Potential energy, eV."""
    return Observable(("energy",), ("eV",), Energy(state), (state,), ghosts=True)


def energy_per_atom(state: str = "structure") -> Observable:
    """Energy per atom, eV: minus the cohesive energy of a crystal."""
    return Observable(("energy_per_atom",), ("eV",), Energy(state, per_atom=True), (state,), ghosts=True)


def cell_volume(state: str = "structure") -> Observable:
    """Volume of the cell, Å³; of structures that are periodic in three directions."""
    plain = Observable(("volume",), ("Å³",), Volume(state), (state,), ghosts=True)
    return dataclasses.replace(plain, bind=InBulk(plain, "volumes", state))


# --- lattice constants
# -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class CubicEdge:
    """Edge of the cubic cell, Å: cube root of the volume of one of `cells` conventional cells."""

    state: str
    cells: float

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        return (jnp.cbrt(volume(states[self.state].structure) / self.cells),)


@dataclasses.dataclass(frozen=True)
class FindCubicEdge:
    """Counts the conventional cells of a cubic crystal in the given one."""

    state: str

    def __call__(self, states: Mapping[str, Any]) -> Observable:
        found = conventional(states[self.state].structure, "lattice_constant", perfect=True)
        instead = (
            "ask for a, b, c, alpha, beta, gamma, or give the number of cells: lattice_constant(cells=...)."
        )
        require_cubic(found, "lattice_constant", instead)
        cells = abs(float(np.linalg.det(np.asarray(found.matrix))))
        return lattice_constant(self.state, 1 / cells)


def lattice_constant(state: str = "structure", cells: float | None = None) -> Observable:
    """Edge of the conventional cell of a cubic crystal, Å, whatever cell is given.

    Primitive, rotated, or repeated.

    Args:
        cells: conventional cells in the given one; by default counted, which needs a cubic crystal. If given,
            no symmetry is asked for.
    """
    names, units = ("lattice_constant",), ("Å",)
    if cells is not None:
        cells = number("cells", cells, above=0)
    if cells is None:
        return Observable(names, units, CubicEdge(state, 1.0), (state,), FindCubicEdge(state), ghosts=True)
    plain = Observable(names, units, CubicEdge(state, float(cells)), (state,), ghosts=True)
    return dataclasses.replace(plain, bind=InBulk(plain, "lattice constants", state))


EDGES = ("a", "b", "c")
ANGLES = ("alpha", "beta", "gamma")


@dataclasses.dataclass(frozen=True)
class CellParameters:
    """Edges (Å) and angles (degrees) of the conventional cell."""

    components: tuple[str, ...]
    state: str
    found: Conventional | None = None

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        structure = states[self.state].structure
        cell = structure.cell if self.found is None else self.found.cell(structure)
        return tuple(self._component(cell, name) for name in self.components)

    def _component(self, cell: Float[Array, "3 3"], name: str) -> Float[Array, ""]:
        if name in EDGES:
            return jnp.linalg.norm(cell[EDGES.index(name)])
        others = [k for k in range(3) if k != ANGLES.index(name)]
        u, v = cell[jnp.array(others)]
        # tan = |u x v| / u . v is smooth at every angle, also at 90°
        sine = jnp.linalg.norm(jnp.cross(u, v))
        return jnp.degrees(jnp.arctan2(sine, u @ v))


@dataclasses.dataclass(frozen=True)
class FindCell:
    """Finds the conventional cell."""

    observable: Observable
    function: CellParameters

    def __call__(self, states: Mapping[str, Any]) -> Observable:
        found = conventional(
            states[self.function.state].structure, ", ".join(self.function.components), perfect=True
        )
        return dataclasses.replace(
            self.observable, function=dataclasses.replace(self.function, found=found), bind=None
        )


def cell_parameters(components: Sequence[str] = (*EDGES, *ANGLES), state: str = "structure") -> Observable:
    """Edges a, b, c (Å) and angles alpha, beta, gamma (degrees) of the conventional cell.

    In the setting of spglib.

    Raises:
        InputError: another name.
    """
    components = (components,) if isinstance(components, str) else tuple(components)
    for name in components:
        if name not in (*EDGES, *ANGLES):
            raise InputError(f"no cell parameter '{name}': use {', '.join((*EDGES, *ANGLES))}.")
    function = CellParameters(tuple(components), state)
    units = tuple("Å" if name in EDGES else "°" for name in components)
    plain = Observable(tuple(components), units, function, (state,), ghosts=True)
    return dataclasses.replace(plain, bind=FindCell(plain, function))


# --- elastic constants
# -----------------------------------------------------------------------------------------------

CONSTANT = re.compile(
    r"(C[1-6][1-6](_energy)?|C(11|12|44)_cubic|K|[KG]_(voigt|reuss|hill)|(E|nu)_hill)(_clamped)?"
)
CUBIC_CONSTANTS = ("C11_cubic", "C12_cubic", "C44_cubic")
VOIGT_PAIRS = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])  # Voigt index of each pair of directions


@dataclasses.dataclass(frozen=True)
class Elastic:
    """Elastic constants, GPa; `axes` are the crystal axes (rows), for those of a cubic crystal."""

    components: tuple[str, ...]
    state: str
    axes: tuple[tuple[float, float, float], ...] | None = None

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        state = states[self.state]
        clamped, relaxed = _both(potential, state)
        by_energy = any("_energy" in name for name in self.components)
        stress = evaluate(potential, *state).stress if by_energy else jnp.zeros((3, 3))
        results = []
        for component in self.components:
            name = component.removesuffix("_clamped")
            C = clamped if component.endswith("_clamped") else relaxed
            if name.endswith("_energy"):
                C = energy_constants(C, stress)
            results.append(_scale(name) * self._component(C, name))
        return tuple(results)

    def _component(self, C: Float[Array, "6 6"], name: str) -> Float[Array, ""]:
        if name == "K":
            return bulk_modulus(C)
        if name in AVERAGES:
            return AVERAGES[name](C)
        if name in CUBIC_CONSTANTS:
            turned = _turned(C, np.asarray(self.axes))
            return cubic_constants(turned)[CUBIC_CONSTANTS.index(name)]
        return C[int(name[1]) - 1, int(name[2]) - 1]


def _scale(name: str) -> float:
    return 1.0 if name == "nu_hill" else GPA


def _unit(component: str) -> str:
    return "" if component.startswith("nu_hill") else "GPa"


def _both(potential: Potential, state: State) -> tuple[Float[Array, "6 6"], Float[Array, "6 6"]]:
    if state.internal is None:
        return clamped_and_relaxed(potential, state.structure, state.neighbors)
    return measure_elastic(potential, state.structure, state.neighbors, state.internal)


def _turned(C: Float[Array, "6 6"], axes: np.ndarray) -> Float[Array, "6 6"]:
    """The same tensor in other axes (rows): C'_ijkl = R_ia R_jb R_kc R_ld C_abcd."""
    tensor = C[VOIGT_PAIRS[:, :, None, None], VOIGT_PAIRS[None, None, :, :]]
    turned = jnp.einsum("ia,jb,kc,ld,abcd->ijkl", axes, axes, axes, axes, tensor)
    i = np.array([0, 1, 2, 1, 0, 0])
    j = np.array([0, 1, 2, 2, 2, 1])
    return turned[i[:, None], j[:, None], i[None], j[None]]


@dataclasses.dataclass(frozen=True)
class FindAxes:
    """Refuses slabs and clusters; finds the axes of a cubic crystal where its constants are asked for."""

    observable: Observable
    function: Elastic

    def __call__(self, states: Mapping[str, Any]) -> Observable:
        state, function = states[self.function.state], self.function
        require_bulk(state.structure, "elastic constants")
        cubic = [name for name in function.components if name.removesuffix("_clamped") in CUBIC_CONSTANTS]
        if cubic:
            found = conventional(state.structure, cubic[0])
            require_cubic(
                found,
                cubic[0],
                "ask for entries of the matrix, C11 ... C66, in the axes of the cell as given.",
            )
            function = dataclasses.replace(function, axes=found.axes)
        return dataclasses.replace(self.observable, function=function, bind=None)


def elastic(components: Sequence[str] = ("C11", "C12", "C44"), state: str = "structure") -> Observable:
    """Elastic constants in GPa.

    Args:
        components: "C11" ... "C66", entries of the matrix in the axes x, y, z of the cell as given (Voigt
            order xx yy zz yz xz xy); "C11_cubic", "C12_cubic", "C44_cubic", those of a cubic crystal in its
            own axes; "K", the bulk modulus of any crystal; "K_voigt", "K_reuss", "K_hill", "G_voigt",
            "G_reuss", "G_hill", averages over all orientations, with "E_hill" and "nu_hill", Young's modulus
            and Poisson's ratio. Under a stress these are the change of the stress with the strain;
            "C11_energy" ... are second derivatives of the energy by the Lagrangian strain (see
            `mdsens.observables.averages`). With the ending "_clamped" for ions that do not relax under the
            strain.
    Raises:
        InputError: another name; when bound to states: a slab, a wire or a cluster, or a crystal that is not
        cubic.
    """
    components = (components,) if isinstance(components, str) else tuple(components)
    for component in components:
        if not CONSTANT.fullmatch(component):
            raise InputError(
                f"no elastic constant '{component}': use C11 ... C66, {', '.join(CUBIC_CONSTANTS)} or K, "
                "with _clamped for clamped ions."
            )
    function = Elastic(tuple(components), state)
    units = tuple(_unit(component) for component in components)
    plain = Observable(components, units, function, (state,), ghosts=True)
    return dataclasses.replace(plain, bind=FindAxes(plain, function))


# --- by name --------------------------------------------------------------------------------------


def _formation_in(state: str) -> Observable:
    return formation("defect", state)


def _surface_in(state: str) -> Observable:
    return surface_energy(bulk=state)


def _fault_in(state: str) -> Observable:
    return stacking_fault_energy(bulk=state)


def _dipole_in(state: str) -> Observable:
    return elastic_dipole()


def _cohesive_in(state: str) -> Observable:
    return cohesive_energy(state=state)


def _edge_or_angle(name: str, state: str) -> Observable:
    return cell_parameters((name,), state)


NAMED: dict[str, Callable[[str], Observable]] = {
    "energy": energy,
    "energy_per_atom": energy_per_atom,
    "volume": cell_volume,
    "lattice_constant": lattice_constant,
    **{name: functools.partial(_edge_or_angle, name) for name in (*EDGES, *ANGLES)},
    "formation": _formation_in,
    "gamma_phonon": gamma_phonon,
    "cohesive_energy": _cohesive_in,
    "surface_energy": _surface_in,
    "stacking_fault_energy": _fault_in,
    "elastic_dipole": _dipole_in,
}

CALLS: dict[str, Callable[..., Observable]] = {
    "phonon": phonon,
    "phonon_velocity": phonon_velocity,
    "grueneisen": grueneisen,
    "vibrational_free_energy": vibrational_free_energy,
    "vibrational_entropy": vibrational_entropy,
    "vibrational_heat_capacity": vibrational_heat_capacity,
    "thermal_volume": thermal_volume,
    "thermal_expansion": thermal_expansion,
    "gamma_phonon": gamma_phonon,
    "lattice_constant": lattice_constant,
    "distance": distance,
    "angle": angle,
    "tetrahedrality": tetrahedrality,
    "steinhardt": steinhardt,
    "cohesive_energy": cohesive_energy,
    "surface_energy": surface_energy,
    "stacking_fault_energy": stacking_fault_energy,
    "elastic_dipole": elastic_dipole,
    "formation": formation,
}

TEXTS = {
    "energy": "potential energy, eV",
    "energy_per_atom": "energy per atom, eV",
    "volume": "volume of the cell, Å³",
    "lattice_constant": "edge of the conventional cell of a cubic crystal, Å",
    "a, b, c": "edges of the conventional cell, Å",
    "alpha, beta, gamma": "angles of the conventional cell, degrees",
    "C11 ... C66": "elastic constants in the axes of the cell as given, GPa",
    "C11_cubic, C12_cubic, C44_cubic": "elastic constants of a cubic crystal in its own axes, GPa",
    "K": "bulk modulus, GPa",
    "K_voigt ... G_hill, E_hill, nu_hill": "averages over all orientations: GPa, and Poisson's ratio",
    "C11_energy ...": "second derivatives of the energy by the Lagrangian strain, GPa",
    "C11_clamped ...": "the same with ions that follow the strain",
    "gamma_phonon": "highest frequency at the wave vector zero of the given cell, THz",
    "phonon(q=[1/2, 0, 1/2], mode=...)": "frequency of a wave, q in fractions of the primitive cell, THz",
    "phonon_velocity(q=..., mode=...)": "group velocity of a wave along x, y, z, km/s",
    "grueneisen(q=..., mode=...)": "Grueneisen parameter of a wave",
    "vibrational_free_energy(T=300, mesh=4)": "of the given cell, eV; ..._entropy, ..._heat_capacity: eV/K",
    "thermal_volume(T=300, mesh=4)": "volume of the given cell at a temperature, Å³",
    "thermal_expansion(T=300, mesh=4)": "coefficient of expansion, 1/K; axes=True: along each axis",
    "cohesive_energy": "energy to pull the crystal apart, eV per atom",
    "distance(0, 1)": "of two atoms, Å; angle(0, 1, 2): at the middle one, °; tetrahedrality(0)",
    "steinhardt(0, degree=6, neighbors=12)": "order of the nearest neighbors of an atom",
    "surface_energy": "of each surface of the state 'slab', J/m²",
    "stacking_fault_energy": "of the fault in the state 'fault', J/m²",
    "elastic_dipole": "tensor of the state 'defect', eV",
    "formation": "formation energy (eV) and volume (Å³) of the state 'defect'",
    "barrier": "energy from the state 'initial' up to 'saddle', eV; backward_barrier: from 'final'",
    "attempt_frequency": "Vineyard's, THz; backward_attempt_frequency: from 'final'",
    "rate_300K": "rate of crossing at any temperature, 1/s; backward_rate_300K: from 'final'",
}
PASSAGES = ("barrier", "backward_barrier", "attempt_frequency", "backward_attempt_frequency", "rate_300K")


def named(names: Sequence[str], state: str = "structure") -> list[Observable]:
    """Observables by name, for the command line and configuration files; elastic constants are grouped.

    A name may be a call, `phonon(q=[1/2, 0, 1/2], mode=3)`, of the functions in CALLS.

    Args:
        state: the relaxed state they are measured on; "formation" compares the state "defect" with it.
    Raises:
        InputError: unknown name; the nearest one is suggested.
    """
    constants = [name for name in names if CONSTANT.fullmatch(name)]
    for name in names:
        if not is_name(name):
            known = [*NAMED, *PASSAGES, "C11", "C12", "C44", *CUBIC_CONSTANTS, "K"]
            raise InputError(
                f"no observable '{name}'.{nearest(name, known, 0.3)} There are: {', '.join(TEXTS)}."
            )
    groups = [_made(name, state) for name in names if name not in constants]
    return [*groups, elastic(constants, state)] if constants else groups


def is_name(name: str) -> bool:
    """Whether an observable may be called so; a call is looked at when it is made."""
    plain = name in NAMED or CONSTANT.fullmatch(name) is not None
    return plain or is_call(name) or passage_by_name(name) is not None


def _made(name: str, state: str) -> Observable:
    if is_call(name):
        return observable_of_call(name, CALLS, state)
    return passage_by_name(name) or NAMED[name](state)
