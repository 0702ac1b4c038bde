"""Relaxers by name, for whatever is written down as text: command lines, plans, tasks."""

from mdsens.checks import nearest
from mdsens.errors import InputError
from mdsens.relaxation.fire import FIRE, JaxMDFIRE
from mdsens.relaxation.gradient_flow import GradientFlow
from mdsens.relaxation.lbfgs import LBFGS
from mdsens.relaxation.newton import DampedNewton, NewtonCG
from mdsens.relaxation.plan import AbstractRelaxer, AutoRelaxer

SOLVERS: dict[str, type[AbstractRelaxer]] = {
    "auto": AutoRelaxer,
    "fire": FIRE,
    "lbfgs": LBFGS,
    "newton": NewtonCG,
    "damped-newton": DampedNewton,
    "gradient-flow": GradientFlow,
    "jaxmd-fire": JaxMDFIRE,
}


def solver_named(name: str) -> AbstractRelaxer:
    """The relaxer of this name, as it comes without arguments.

    Raises:
        InputError: unknown; the nearest is suggested.
    """
    if name not in SOLVERS:
        raise InputError(
            f"no solver is called '{name}'.{nearest(name, SOLVERS)} There are {', '.join(SOLVERS)}."
        )
    return SOLVERS[name]()
