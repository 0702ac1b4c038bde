"""The gradient of a relaxed structure: the equation of the minimum, or all the steps that led there?

    python benchmarks/unrolled.py 10 30 100 300 1000 --figure docs/figures/unrolled.png

107 argon atoms around a vacancy, in a cell that is held. The loss is the sum of squares of the moves of the
atoms from their places in the perfect crystal, and its gradient is asked for by epsilon and sigma. After k
steps of FIRE (jax-md),

    unrolled    differentiates the k steps backwards, as a training loop does; also with checkpoints, which
                keep one state a step and compute the rest again,
    implicit    solves H y = dL/dx once at the very same positions, whatever k.

Both are compared with the gradient at the minimum. (By epsilon it is zero: an energy moves nobody.) Times are
processor time, the best of several after compilation; memory is what the compiled program asks for beside its
arguments. That of the implicit gradient is all that the state keeps, Hessian and factor among it.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

from crystals import argon_vacancy  # noqa: E402

import mdsens as ms  # noqa: E402
from mdsens.relaxation.memory import forget  # noqa: E402

ANY = 1e9  # eV/Å: a tolerance that any positions fulfil
CELLS = 3
STEP = {"dt_start": 0.5, "dt_max": 1.5}  # of FIRE; the highest frequency of argon allows 2.8
MB = 1e-6


class Row(NamedTuple):
    """What was found for one number of steps: largest force (eV/Å), errors, seconds, MB."""

    steps: int
    fmax: float
    error_unrolled: float
    error_implicit: float
    walk: float
    unrolled: float
    checkpointed: float
    implicit: float
    memory_unrolled: float
    memory_checkpointed: float
    memory_implicit: float


class Task(NamedTuple):
    """The structure, where its atoms were, and the list that all steps use."""

    potential: ms.Potential
    structure: ms.Structure
    places: jax.Array
    neighbors: ms.Neighbors

    def loss(self, x: jax.Array) -> jax.Array:
        """Sum of squares of the moves, without a common shift, Å²."""
        moved = x - self.places
        return jnp.sum((moved - jnp.mean(moved, axis=0)) ** 2)


def main() -> None:
    """Print the table; draw it if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", type=int, nargs="*", default=[10, 30, 100, 300, 1000])
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    task = vacancy()
    exact = scaled(task, implicit_gradient(task, task.structure.positions, fmax=1e-12))
    print(f"jax {jax.__version__}, {task.structure.n_atoms} atoms, float64; dL/dln sigma = {exact[1]:.6f} Å²")
    names = (
        "steps, force, error unrolled, implicit, walk s, unrolled s, checkpointed s, implicit s, MB, MB, MB"
    )
    print(names)
    rows = []
    for k in options.steps:
        rows.append(measure(task, k, exact))
        print("  ".join(f"{value:.3g}" for value in rows[-1]), flush=True)
    if options.figure is not None:
        draw(rows).savefig(options.figure, dpi=150)


def vacancy() -> Task:
    """Argon without one atom; the others start 0.02 Å off their places."""
    argon = ms.load_potential("ar-lennard-jones")
    structure = argon_vacancy(CELLS)
    shaken = np.random.default_rng(0).normal(scale=0.02, size=(structure.n_atoms + 1, 3))[:-1]
    places = structure.positions - jnp.asarray(shaken)
    return Task(argon, structure, places, ms.neighbors_of(argon, structure, skin=1.0))


# --- the two gradients ----------------------------------------------------------------------------


def walk(task: Task, k: int, checkpoint: bool) -> Callable[[ms.Potential], jax.Array]:
    """Positions after k steps of FIRE, as a function of the potential."""
    from jax_md import minimize

    def positions(potential: ms.Potential) -> jax.Array:
        def force(x: jax.Array, **_: Any) -> jax.Array:
            return -jax.grad(lambda x: potential.energy(task.structure.at(x), task.neighbors))(x)

        start, step = minimize.fire_descent(force, lambda x, dx, **_: x + dx, **STEP)
        state = jax.tree.map(jnp.asarray, start(task.structure.positions))
        once = jax.checkpoint(step) if checkpoint else step
        end, _ = jax.lax.scan(lambda state, _: (once(state), None), state, length=k)
        return end.position

    return positions


def implicit_gradient(task: Task, x: jax.Array, fmax: float = ANY) -> ms.Potential:
    """dL/dtheta by one solve at these positions, or at the minimum below them."""
    finish = fmax < ANY

    def loss(potential: ms.Potential) -> jax.Array:
        start = task.structure.at(x)
        relaxed = ms.relax(potential, start, fmax=fmax, check_minimum=finish, throw=finish)
        return task.loss(relaxed.structure.positions)

    return jax.grad(loss)(task.potential)


def scaled(task: Task, gradient: ms.Potential) -> np.ndarray:
    """By ln epsilon and ln sigma, Å²."""
    theta, slopes = ms.parameter_values(task.potential), ms.parameter_values(gradient)
    return np.array([theta[name] * slopes[name] for name in ("epsilon", "sigma")])


# --- one number of steps --------------------------------------------------------------------------


def measure(task: Task, k: int, exact: np.ndarray) -> Row:
    """Errors, times and memory after k steps."""
    forward, plain = compiled(task, walk(task, k, False)), gradient_of(task, k, False)
    spared = gradient_of(task, k, True)
    x = forward(task.potential)
    forces = ms.energy_forces_stress(task.potential, task.structure.at(x)).forces
    error = lambda found: float(np.linalg.norm(scaled(task, found) - exact) / np.linalg.norm(exact))

    def anew() -> ms.Potential:
        forget()
        return implicit_gradient(task, x)

    return Row(
        steps=k,
        fmax=float(np.linalg.norm(forces, axis=1).max()),
        error_unrolled=error(plain(task.potential)),
        error_implicit=error(anew()),
        walk=best(lambda: forward(task.potential)),
        unrolled=best(lambda: plain(task.potential)),
        checkpointed=best(lambda: spared(task.potential)),
        implicit=best(anew),
        memory_unrolled=temporary(plain),
        memory_checkpointed=temporary(spared),
        memory_implicit=kept(task, x),
    )


def gradient_of(task: Task, k: int, checkpoint: bool) -> Any:
    """The gradient through k steps, compiled."""
    positions = walk(task, k, checkpoint)
    return compiled(task, jax.grad(lambda potential: task.loss(positions(potential))))


def compiled(task: Task, function: Callable) -> Any:
    """Ahead of time, so that its memory is known."""
    return jax.jit(function).lower(task.potential).compile()


def temporary(program: Any) -> float:
    """MB beside the arguments."""
    return MB * program.memory_analysis().temp_size_in_bytes


def kept(task: Task, x: jax.Array) -> float:
    """MB of a state with its Hessian and factor."""
    at = ms.relax(task.potential, task.structure.at(x), fmax=ANY, check_minimum=False, throw=False)
    state = at.equilibrium
    assert state.factor is not None
    return MB * state.nbytes


def best(action: Callable[[], Any], repetitions: int = 5) -> float:
    """Least processor seconds of several: other work on the machine hardly counts."""
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        jax.block_until_ready(action())
        times.append(time.process_time() - start)
    return min(times)


def draw(rows: list[Row]) -> Any:
    """Error, time and memory against the number of steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    steps = [row.steps for row in rows]
    curves = [
        ("relative error", {"unrolled": "error_unrolled", "implicit": "error_implicit"}),
        ("time (s)", {"unrolled": "unrolled", "with checkpoints": "checkpointed", "implicit": "implicit"}),
        (
            "memory (MB)",
            {
                "unrolled": "memory_unrolled",
                "with checkpoints": "memory_checkpointed",
                "implicit": "memory_implicit",
            },
        ),
    ]
    colors = {"unrolled": "#D55E00", "with checkpoints": "#E69F00", "implicit": "#0072B2"}
    for axes, (label, lines) in zip(panels, curves, strict=True):
        for name, field in lines.items():
            axes.loglog(steps, [getattr(row, field) for row in rows], "o-", color=colors[name], label=name)
        axes.set(xlabel="steps of FIRE", ylabel=label)
        axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
