"""Limited-memory BFGS on top of the elastic preconditioner.

Source: Nocedal and Wright, Numerical Optimization, algorithm 7.4; preconditioned as in Packwood et al.,
J. Chem. Phys. 144, 164109 (2016).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.relaxation.landscape import Vector
from mdsens.relaxation.scene import AbstractStepper, Scene, Walker, search_line


class LBFGSMemory(NamedTuple):
    """Moves and gradient changes of the last steps."""

    moves: Float[Array, "history unknowns"]  # s_k = w_k+1 - w_k, the newest last; zero rows are empty
    changes: Float[Array, "history unknowns"]  # y_k = g_k+1 - g_k


class LBFGS(AbstractStepper):
    """Preconditioned L-BFGS with a backtracking line search.

    Attributes:
        history: pairs of moves and gradient changes remembered.
        max_step: longest move of an atom in one step, Å.
        preconditioned: with the elastic preconditioner. Without it small systems take some steps more, and
            save the products with the Hessian that it is made of.
    """

    history: int = eqx.field(static=True, default=15)
    max_step: float = eqx.field(static=True, default=0.2)
    preconditioned: bool = eqx.field(static=True, default=True)

    @property
    def wants_preconditioner(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As asked for."""
        return self.preconditioned

    def start(self, w: Vector) -> LBFGSMemory:
        return LBFGSMemory(jnp.zeros((self.history, w.shape[0])), jnp.zeros((self.history, w.shape[0])))

    def step(self, scene: Scene, walker: Walker) -> Walker:
        s, y = walker.memory
        sy = jnp.sum(s * y, axis=1)
        used = sy > 0
        rho = jnp.where(used, 1 / jnp.where(used, sy, 1.0), 0.0)

        # two-loop recursion: newest to oldest, then the preconditioner as H0, then back
        def down(q, k):
            alpha = rho[k] * (s[k] @ q)
            return q - alpha * y[k], alpha

        order = jnp.arange(self.history)
        q, alpha = jax.lax.scan(down, walker.gradient, order[::-1])
        z = scene.precondition(q)
        # scale H0 so that it has the curvature last seen
        last = scene.precondition(y[-1])
        z = jnp.where(used[-1], sy[-1] / jnp.where(used[-1], y[-1] @ last, 1.0), 1.0) * z

        def up(z, pair):
            k, alpha = pair
            return z + s[k] * (alpha - rho[k] * (y[k] @ z)), None

        z, _ = jax.lax.scan(up, z, (order, alpha[::-1]))
        p = -scene.gauge.project(z)
        p = jnp.where(walker.gradient @ p < 0, p, -scene.precondition(walker.gradient))
        w, value, gradient, found = search_line(scene, walker, p, self.max_step)

        move, change = w - walker.w, gradient - walker.gradient
        curved = move @ change > 1e-12 * jnp.linalg.norm(move) * jnp.linalg.norm(change)
        push = lambda rows, row: jnp.where(curved, jnp.concatenate([rows[1:], row[None]]), rows)
        # without a way down forget the past once; stuck only if already forgotten
        memory = LBFGSMemory(push(s, move), push(y, change))
        empty = self.start(walker.w)
        memory = jax.tree.map(lambda a, b: jnp.where(found, a, b), memory, empty)
        return Walker(w, value, gradient, memory, ~found & ~jnp.any(used))
