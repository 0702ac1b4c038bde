"""Observables by name: what is computed from relaxed states, with units for reports.

An observable is a function of the potential and of the relaxed states it needs, by their names: a crystal
alone has the state "structure"; a defect report has "defect" and "bulk".
"""

import difflib
import re
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.observables.elastic import bulk_modulus, clamped_and_relaxed, cubic_constants, measure_elastic
from mdsens.observables.observable import Observable, State, States
from mdsens.potentials.base import Potential
from mdsens.structure import volume
from mdsens.units import GPA


def energy(state: str = "structure") -> Observable:
    """Potential energy, eV."""
    return Observable(("energy",), ("eV",), lambda potential, states: (_energy(potential, states[state]),))


def energy_per_atom(state: str = "structure") -> Observable:
    """Energy per atom, eV: minus the cohesive energy of a crystal."""
    return Observable(
        ("energy_per_atom",),
        ("eV",),
        lambda potential, states: (_energy(potential, states[state]) / states[state].structure.n_atoms,),
    )


def cell_volume(state: str = "structure") -> Observable:
    """Volume, Å³."""
    return Observable(("volume",), ("Å³",), lambda potential, states: (volume(states[state].structure),))


def lattice_constant(state: str = "structure", cells: float = 1) -> Observable:
    """Edge of the cubic cell, Å: cube root of the volume of one of `cells` conventional cells."""
    return Observable(
        ("lattice_constant",),
        ("Å",),
        lambda potential, states: (jnp.cbrt(volume(states[state].structure) / cells),),
    )


def elastic(components: Sequence[str] = ("C11", "C12", "C44"), state: str = "structure") -> Observable:
    """Elastic constants in GPa.

    Args:
        components: "C11", "C12", "C44" (means over what cubic symmetry makes equal), any other "Cij", or "K"
            (bulk modulus); with the ending "_clamped" for ions that do not relax under the strain.
    Raises:
        InputError: another name.
    """
    for component in components:
        if not re.fullmatch(r"(C[1-6][1-6]|K)(_clamped)?", component):
            raise InputError(
                f"no elastic constant '{component}': use C11 ... C66 or K, with _clamped for clamped ions."
            )

    def function(potential: Potential, states: States):
        s = states[state]
        if s.internal is None:
            clamped, relaxed = clamped_and_relaxed(potential, s.structure, s.neighbors)
        else:
            clamped, relaxed = measure_elastic(potential, s.structure, s.neighbors, s.internal)
        return tuple(
            GPA * _component(clamped if c.endswith("_clamped") else relaxed, c.removesuffix("_clamped"))
            for c in components
        )

    return Observable(tuple(components), ("GPa",) * len(components), function)


def _component(C: Float[Array, "6 6"], component: str) -> Float[Array, ""]:
    if component == "K":
        return bulk_modulus(C)
    cubic = dict(zip(("C11", "C12", "C44"), cubic_constants(C), strict=True))
    return cubic[component] if component in cubic else C[int(component[1]) - 1, int(component[2]) - 1]


def formation(defect: str = "defect", bulk: str = "bulk") -> Observable:
    """Formation energy (eV) and volume (Å³) of a defect: X(defect cell) - N x(bulk), N the atoms in the defect cell."""

    def function(potential: Potential, states: States):
        d, b = states[defect], states[bulk]
        n = d.structure.n_atoms / b.structure.n_atoms
        energy = _energy(potential, d) - n * _energy(potential, b)
        return energy, volume(d.structure) - n * volume(b.structure)

    return Observable(("formation_energy", "formation_volume"), ("eV", "Å³"), function)


def _energy(potential: Potential, state: State) -> Float[Array, ""]:
    return potential.energy(state.structure, state.neighbors)


NAMED: dict[str, Callable[[str], Observable]] = {
    "energy": energy,
    "energy_per_atom": energy_per_atom,
    "volume": cell_volume,
    "lattice_constant": lattice_constant,
    "formation": lambda state: formation("defect", state),
}


def named(names: Sequence[str], state: str = "structure") -> list[Observable]:
    """Observables by name, for the command line and configuration files; elastic constants are grouped.

    Args:
        state: the relaxed state they are measured on; "formation" compares the state "defect" with it.
    Raises:
        InputError: unknown name; the nearest one is suggested.
    """
    constants = [name for name in names if re.fullmatch(r"(C[1-6][1-6]|K)(_clamped)?", name)]
    for name in names:
        if name not in NAMED and name not in constants:
            close = difflib.get_close_matches(name, [*NAMED, "C11", "C12", "C44", "K"], n=1, cutoff=0.3)
            known = ", ".join([*NAMED, "C11 ... C66", "K", "and C11_clamped ..."])
            raise InputError(
                f"no observable '{name}'."
                + (f" Did you mean '{close[0]}'?" if close else "")
                + f" There are: {known}."
            )
    groups = [NAMED[name](state) for name in names if name in NAMED]
    return [*groups, elastic(constants, state)] if constants else groups
