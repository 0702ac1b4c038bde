"""Which stepper comes next: the default relaxer is robust far from the minimum and quadratic near it."""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx

from mdsens.checks import instance, number
from mdsens.relaxation.fire import FIRE
from mdsens.relaxation.newton import NewtonCG
from mdsens.relaxation.scene import AbstractStepper


class Phase(NamedTuple):
    """What to do next: a stepper, the residual (eV/Å) it should reach, and the steps it gets."""

    stepper: AbstractStepper
    goal: float
    steps: int


class AbstractPlan(eqx.Module):
    """Chooses a stepper for each phase of a relaxation."""

    @abstractmethod
    def phase(self, residual: float, fmax: float, failures: int) -> Phase:
        """Plan from here on; `failures` counts walks in a row that found no way down."""

    @property
    @abstractmethod
    def steppers(self) -> tuple[AbstractStepper, ...]:
        """All that it may choose."""


class Always(AbstractPlan):
    """One stepper from beginning to end."""

    stepper: AbstractStepper = eqx.field(static=True)

    def phase(self, residual: float, fmax: float, failures: int) -> Phase:
        return Phase(self.stepper, self.stepper.beyond * fmax, 1000)

    @property
    def steppers(self) -> tuple[AbstractStepper, ...]:
        return (self.stepper,)


class AutoRelaxer(AbstractPlan):
    """First `robust` down to `switch`, then `finish`.

    Back to `robust` for a while if `finish` finds no way down.

    Attributes:
        switch: residual (eV/Å) below which `finish` takes over.
    """

    robust: AbstractStepper = eqx.field(
        static=True, default_factory=lambda: FIRE(per_atom=True, guarded=True)
    )
    finish: AbstractStepper = eqx.field(static=True, default_factory=NewtonCG)
    switch: float = eqx.field(static=True, default=0.1)

    def __check_init__(self) -> None:
        for name in ("robust", "finish"):
            instance(
                name, getattr(self, name), AbstractStepper, "Give a stepper, such as FIRE() or NewtonCG()."
            )
        number("switch", self.switch, "eV/Å", above=0)

    def phase(self, residual: float, fmax: float, failures: int) -> Phase:
        if failures:
            return Phase(self.robust, max(0.1 * residual, fmax), 50 * failures)
        if residual > max(self.switch, fmax):
            return Phase(self.robust, max(self.switch, fmax), 2000)
        return Phase(self.finish, self.finish.beyond * fmax, 200)

    @property
    def steppers(self) -> tuple[AbstractStepper, ...]:
        return (self.robust, self.finish)


AbstractRelaxer = AbstractPlan | AbstractStepper  # what `relax(solver=...)` takes


def plan_of(solver: AbstractRelaxer | None) -> AbstractPlan:
    """The plan itself; a stepper alone is taken from beginning to end; by default `AutoRelaxer()`.

    Raises:
        InputError: neither a plan nor a stepper.
    """
    if solver is None:
        return AutoRelaxer()
    if isinstance(solver, AbstractPlan):
        return solver
    hint = "Give one of AutoRelaxer(), FIRE(), LBFGS(), NewtonCG(), JaxMDFIRE()."
    return Always(instance("solver", solver, AbstractStepper, hint))
