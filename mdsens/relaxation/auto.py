"""The default relaxer: robust far from the minimum, quadratic near it."""

import equinox as eqx

from mdsens.relaxation.fire import FIRE
from mdsens.relaxation.newton import NewtonCG
from mdsens.relaxation.walk import AbstractRelaxer, Phase, Scene, Walker


class AutoRelaxer(AbstractRelaxer):
    """First `robust` down to `switch`, then `finish`; back to `robust` for a while if `finish` finds no way down.

    Attributes:
        switch: residual (eV/Å) below which `finish` takes over.
    """

    robust: AbstractRelaxer = eqx.field(static=True, default_factory=lambda: FIRE(per_atom=True))
    finish: AbstractRelaxer = eqx.field(static=True, default_factory=NewtonCG)
    switch: float = eqx.field(static=True, default=0.1)

    def phase(self, residual: float, fmax: float, failures: int) -> Phase:
        if failures:
            return Phase(self.robust, max(0.1 * residual, fmax), 50 * failures)
        if residual > max(self.switch, fmax):
            return Phase(self.robust, max(self.switch, fmax), 2000)
        return Phase(self.finish, fmax, 200)

    def start(self, w):
        raise TypeError("AutoRelaxer delegates to its two relaxers")

    def step(self, scene: Scene, walker: Walker) -> Walker:
        raise TypeError("AutoRelaxer delegates to its two relaxers")
