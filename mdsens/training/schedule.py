"""How long, how fast, how often: steps, learning rate, looks, and which rows a step sees.

Rows depend on the seed and on the number of the step only, so that a run that goes on sees what a run that
was never cut off would have seen.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import equinox as eqx
import numpy as np
from jaxtyping import Int

from mdsens.checks import number, whole
from mdsens.errors import InputError

if TYPE_CHECKING:
    import optax


class Schedule(eqx.Module):
    """How long, how fast, how often.

    The learning rate rises over `warmup` steps and falls along a cosine to `final` of its highest value.

    Attributes:
        steps: of the optimizer.
        batch: rows in a step.
        learning_rate: the highest.
        final: the last learning rate, relative to the highest.
        warmup: steps of the rise.
        clip: the norm beyond which a gradient is shortened.
        evaluate_every: steps between looks at the held-out rows; the checkpoint is written then as well.
        held_out: share of the rows, the last ones, that are never trained on, where data come undivided.
        seed: of batches and draws.
        patience: looks without a lower held-out loss after which the training ends; None: it never does.
    """

    steps: int = eqx.field(static=True, default=1000)
    batch: int = eqx.field(static=True, default=128)
    learning_rate: float = eqx.field(static=True, default=1e-3)
    final: float = eqx.field(static=True, default=1e-2)
    warmup: int = eqx.field(static=True, default=100)
    clip: float = eqx.field(static=True, default=10.0)
    evaluate_every: int = eqx.field(static=True, default=100)
    held_out: float = eqx.field(static=True, default=0.1)
    seed: int = eqx.field(static=True, default=0)
    patience: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        for name in ("steps", "batch", "evaluate_every"):
            whole(name, getattr(self, name), at_least=1)
        whole("warmup", self.warmup)
        number("learning_rate", self.learning_rate, above=0.0)
        number("clip", self.clip, above=0.0)
        number("final", self.final, above=0.0, at_most=1.0)
        if not 0 < self.held_out < 1:
            raise InputError(f"held_out = {self.held_out:g}: a share of the frames, between 0 and 1.")
        if self.patience is not None:
            whole("patience", self.patience, at_least=1)

    @property
    def rate(self) -> Callable[[Any], Any]:
        """Learning rate of each step."""
        import optax

        warmup = min(self.warmup, self.steps // 2)
        peak = self.learning_rate
        return optax.warmup_cosine_decay_schedule(peak / 10, peak, warmup, self.steps, self.final * peak)

    @property
    def optimizer(self) -> "optax.GradientTransformation":
        """Adam with clipped gradients."""
        return _adam(self)

    def rows(self, step: int, n_rows: int) -> Int[np.ndarray, " batch"]:
        """Which rows step number `step` sees: each once before any is seen again."""
        at = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs = np.unique(at // n_rows).tolist()
        generators = {epoch: np.random.default_rng([self.seed, int(epoch)]) for epoch in epochs}
        orders = {epoch: generator.permutation(n_rows) for epoch, generator in generators.items()}
        return np.array([orders[k // n_rows][k % n_rows] for k in at.tolist()])

    def group_rows(self, step: int, lengths: tuple[int, ...]) -> tuple[int, Int[np.ndarray, " batch"]]:
        """Of rows in several groups, the group that step number `step` sees, and which of its rows.

        A batch comes from one group, and is no larger than it. In an epoch each group gives all its rows,
        in batches of which the last one is filled up with rows seen before; batches of all groups are mixed.
        """
        if len(lengths) == 1:
            return 0, self.rows(step, lengths[0])
        counts = [-(-n // min(self.batch, n)) for n in lengths]
        epoch, k = divmod(step, sum(counts))
        generator = np.random.default_rng([self.seed, epoch])
        orders = [generator.permutation(n) for n in lengths]
        owners = generator.permutation(np.repeat(np.arange(len(lengths)), counts))
        group = int(owners[k])
        done = int(np.sum(owners[:k] == group))
        size = min(self.batch, lengths[group])
        at = np.arange(done * size, (done + 1) * size) % lengths[group]
        return group, orders[group][at]

    def is_look(self, done: int) -> bool:
        """Whether the held-out rows are looked at after so many steps, wherever a run is cut off."""
        return done % self.evaluate_every == 0 or done == self.steps


# One object for equal schedules: compiled steps are kept by the identity of the optimizer's functions.
@lru_cache(maxsize=32)
def _adam(schedule: Schedule) -> "optax.GradientTransformation":
    import optax

    return optax.chain(optax.clip_by_global_norm(schedule.clip), optax.adam(schedule.rate))
