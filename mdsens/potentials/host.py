"""Energies that another program computes on the host, as functions that JAX can differentiate once.

The program gives the energy E (eV) and its derivatives by what it is a function of: positions (Å), perhaps
the cell (Å). With them

    dE = sum_k <dE/dx_k, dx_k>

is all that JAX needs to know, in both modes, under `jax.jit` and `jax.vmap`. Second derivatives such a
program does not give, and asking for them raises. Frames under `jax.vmap` reach the host in one call, and are
computed there one after another, for these programs keep one set of positions.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mdsens.errors import InputError, NonFiniteError

# Inputs with a leading axis for the frames; out come the energies (frames,) in eV, then the derivative of
# each energy by each input, in the shape of that input.
HostEvaluation = Callable[..., tuple[np.ndarray, ...]]


class HostEnergy(eqx.Module):
    """E(x): energy in eV of positions in Å, from a program on the host.

    Its derivatives are the program's forces, in both modes. Second derivatives it has none, and asking for
    them raises.

    Attributes:
        evaluate: energies (frames,) in eV and gradients (frames, atoms, 3) in eV/Å of positions
            (frames, atoms, 3) in Å; `frame_by_frame` makes one of a function of a single frame.
        n_atoms: number of atoms.
    """

    evaluate: HostEvaluation = eqx.field(static=True)
    n_atoms: int = eqx.field(static=True)

    def __call__(self, positions: Float[Array, "atoms 3"]) -> Float[Array, ""]:
        """Energy, eV, of positions in Å."""
        if np.shape(positions) != (self.n_atoms, 3):
            raise InputError(
                f"positions of shape {np.shape(positions)} for {self.n_atoms} atoms: one frame "
                f"({self.n_atoms}, 3) in Å is needed. Many frames by jax.vmap."
            )
        return host_energy(self.evaluate, jnp.asarray(positions))


def host_energy(evaluate: HostEvaluation, *inputs: Float[Array, "..."]) -> Float[Array, ""]:
    """The energy of one frame, with the derivatives by its inputs that the host gives.

    Args:
        evaluate: called on the host, by one thread at a time if it comes from `frame_by_frame`.
        inputs: positions (atoms, 3) in Å, and what else the energy is a function of, as the cell (3, 3).
    """
    return _energy(evaluate, inputs)


def frame_by_frame(evaluate: Callable[..., tuple[Any, ...]], symbols: Sequence[str]) -> HostEvaluation:
    """An evaluation of many frames, out of one of a single frame; a lock lets in one call at a time.

    Args:
        evaluate: positions (atoms, 3) in Å and further inputs to the energy (eV) and its derivative by each.
        symbols: of the atoms, for messages.
    Raises:
        NonFiniteError: later, at positions, derivatives or an energy that are not finite. An energy of inf is
            let through: such a frame has no weight.
    """
    lock = threading.Lock()  # JAX may run two callbacks at once, and these programs keep one set of positions

    def evaluate_all(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        n = len(inputs[0])
        energies = np.empty(n)
        slopes = [np.empty(frames.shape) for frames in inputs]
        with lock:
            for k in range(n):
                frame = [frames[k] for frames in inputs]
                found = _checked(evaluate, frame, symbols, f"frame {k} of {n}")
                energies[k], *derivatives = found
                for slope, derivative in zip(slopes, derivatives, strict=True):
                    slope[k] = derivative
        return energies, *slopes

    return evaluate_all


def _checked(
    evaluate: Callable[..., tuple[Any, ...]], frame: Sequence[np.ndarray], symbols: Sequence[str], which: str
) -> tuple[Any, ...]:
    if not all(np.isfinite(array).all() for array in frame):  # some programs leave such an atom out
        raise NonFiniteError(f"{which} has positions that are not finite: look at where they come from.")
    energy, *slopes = evaluate(*frame)
    # an infinite energy is one: such a frame has no probability. Its forces may then be anything.
    finite = all(np.isfinite(values).all() for values in (energy, *slopes))
    if not finite and energy != np.inf:
        closest = _closest(frame[0], symbols)
        raise NonFiniteError(
            f"the energy {energy:g} eV or a force is not finite in {which}{closest}. Leave out frames with "
            "overlapping atoms, or check the unit of the positions and the order of the atoms."
        )
    return energy, *slopes


def _closest(positions: np.ndarray, symbols: Sequence[str]) -> str:
    if len(positions) < 2:
        return ""
    i, j = np.triu_indices(len(positions), 1)
    r = np.linalg.norm(positions[i] - positions[j], axis=1)
    p = int(np.argmin(r))
    called = lambda atom: f"{atom} {symbols[atom]}".strip()
    first, second = called(i[p]), called(j[p])
    return f", its closest atoms {first} and {second} {r[p]:.3g} Å apart"


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _energy(evaluate: HostEvaluation, inputs: tuple[Array, ...]) -> Array:
    return _energy_and_slopes(evaluate, inputs)[0]


@_energy.defjvp
def _energy_jvp(evaluate: HostEvaluation, primals: Any, tangents: Any) -> tuple[Array, Array]:
    # dE = sum_k <dE/dx_k, dx_k>, the derivatives from the same call as the energy
    (inputs,), (directions,) = primals, tangents
    energy, *slopes = _energy_and_slopes(evaluate, inputs)
    change = jnp.zeros_like(energy)
    for slope, direction in zip(slopes, directions, strict=True):
        change = change + jnp.vdot(slope, direction)
    return energy, change


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _energy_and_slopes(evaluate: HostEvaluation, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    shapes, dtype = [x.shape for x in inputs], inputs[0].dtype

    def on_host(*batches: Any) -> tuple[np.ndarray, ...]:
        vmapped = np.ndim(batches[0]) - len(shapes[0])
        lead = np.shape(batches[0])[:vmapped]  # axes of jax.vmap
        with_shapes = zip(batches, shapes, strict=True)
        frames = [np.asarray(x, float).reshape(-1, *shape) for x, shape in with_shapes]
        found = zip(evaluate(*frames), ((), *shapes), strict=True)
        return tuple(np.asarray(array.reshape((*lead, *shape)), dtype) for array, shape in found)

    if not any(isinstance(x, Tracer) for x in inputs):  # without JAX in between, errors keep their class
        return tuple(jnp.asarray(array) for array in on_host(*inputs))
    out = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in ((), *shapes))
    return jax.pure_callback(on_host, out, *inputs, vmap_method="broadcast_all")


@_energy_and_slopes.defjvp
def _no_second_derivative(evaluate: HostEvaluation, primals: Any, tangents: Any) -> Any:
    raise InputError(
        "second derivatives of an energy from a program on the host (ASE, OpenMM) are asked for, and it "
        "gives energies and forces only. Use a potential of mdsens (reduced_potential), or train on energies "
        "instead of forces."
    )
