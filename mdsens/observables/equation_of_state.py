"""Equations of state: the energy of a crystal as a function of its volume, and their fit.

Four numbers: E0 at the volume V0 without pressure, the bulk modulus B there, and its derivative by the
pressure B'. With v = V / V0

    Birch, Murnaghan    E = E0 + (9/16) V0 B { (x - 1)^3 B' + (x - 1)^2 (6 - 4 x) },     x = v^(-2/3)
    Vinet               E = E0 + (4 V0 B / (B' - 1)^2) { 1 - (1 + y) exp(-y) },
                        y = 3/2 (B' - 1)(v^(1/3) - 1)

and p = -dE/dV. They are fitted by least squares to energies,
and to pressures where these are known: exact pressures say as much of the curve as twice the number of
volumes. The fit is the root of the gradient of the sum of squares, so the four numbers have derivatives by
the energies and pressures, and by whatever those depend on.

Source: Birch, Phys. Rev. 71, 809 (1947); Vinet, Rose, Ferrante, Smith, J. Phys. Condens. Matter 1, 1941
(1989).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import nearest, number
from mdsens.errors import InputError, NotConvergedError
from mdsens.implicit.linear import Dense
from mdsens.implicit.rule import root
from mdsens.observables.elastic import require_bulk
from mdsens.potentials.base import Potential
from mdsens.quantities import concrete
from mdsens.relaxation.relax import relax
from mdsens.structure import Structure, require_structure, volume

Numbers = Float[Array, "4"]
FEWEST = 4  # volumes that four numbers need
POLISH = 2  # Newton steps after a fit


def birch_murnaghan(V: Float[Array, "..."], numbers: Numbers) -> Float[Array, "..."]:
    """Energy, eV, at volumes in Å³, from E0 (eV), V0 (Å³), B (eV/Å³) and B'."""
    E0, V0, B, B1 = numbers
    x = (V / V0) ** (-2 / 3)
    bracket = (x - 1) ** 3 * B1 + (x - 1) ** 2 * (6 - 4 * x)
    return E0 + 9 / 16 * V0 * B * bracket


def vinet(V: Float[Array, "..."], numbers: Numbers) -> Float[Array, "..."]:
    """Energy, eV, likewise."""
    E0, V0, B, B1 = numbers
    y = 1.5 * (B1 - 1) * (jnp.cbrt(V / V0) - 1)
    return E0 + 4 * V0 * B / (B1 - 1) ** 2 * (1 - (1 + y) * jnp.exp(-y))


FORMS: dict[str, Callable[..., Array]] = {"vinet": vinet, "birch-murnaghan": birch_murnaghan}


@dataclasses.dataclass(frozen=True)
class EquationOfState:
    """A fitted curve.

    Attributes:
        form: "vinet" or "birch-murnaghan".
        numbers: E0 (eV), V0 (Å³), B (eV/Å³), B'.
        volumes, energies: what it was fitted to, Å³ and eV. pressures: eV/Å³, or None.
    """

    form: str
    numbers: Numbers
    volumes: Float[Array, "points"]
    energies: Float[Array, "points"]
    pressures: Float[Array, "points"] | None = None

    @property
    def energy0(self) -> Float[Array, ""]:
        """Energy without pressure, eV."""
        return self.numbers[0]

    @property
    def volume0(self) -> Float[Array, ""]:
        """Volume without pressure, Å³."""
        return self.numbers[1]

    @property
    def bulk_modulus(self) -> Float[Array, ""]:
        """B at V0, eV/Å³."""
        return self.numbers[2]

    @property
    def bulk_modulus_derivative(self) -> Float[Array, ""]:
        """dB/dp at V0."""
        return self.numbers[3]

    def energy(self, V: Any) -> Float[Array, "..."]:
        """Energy at volumes, eV."""
        return FORMS[self.form](jnp.asarray(V), self.numbers)

    def pressure(self, V: Any) -> Float[Array, "..."]:
        """-dE/dV at volumes, eV/Å³."""
        return pressure_of(self.form, jnp.asarray(V), self.numbers)

    @property
    def residual(self) -> Float[Array, ""]:
        """Root mean square of what the curve misses of the energies, eV."""
        return jnp.sqrt(jnp.mean((self.energy(self.volumes) - self.energies) ** 2))


def pressure_of(form: str, V: Float[Array, "..."], numbers: Numbers) -> Float[Array, "..."]:
    """-dE/dV of a form, eV/Å³."""
    return -jax.jvp(lambda V: FORMS[form](V, numbers), (V,), (jnp.ones_like(V),))[1]


def fit_equation_of_state(
    volumes: Any, energies: Any, pressures: Any = None, form: str = "vinet"
) -> EquationOfState:
    """Fit a curve to energies, and pressures, at some volumes, by least squares.

    Differentiable w.r.t. energies, pressures and volumes.

    Args:
        volumes: Å³. energies: eV.
        pressures: eV/Å³; a pressure counts as much as the energy that it would do over the mean volume.
        form: "vinet" or "birch-murnaghan".
    Raises:
        InputError: an unknown form, fewer than four volumes, arrays that do not fit together, no minimum
            among the energies. NotConvergedError: no curve fits.
    """
    if form not in FORMS:
        raise InputError(
            f"no equation of state '{form}'.{nearest(form, FORMS)} There are {', '.join(FORMS)}."
        )
    V, E = (jnp.asarray(x, float) for x in (volumes, energies))
    p = None if pressures is None else jnp.asarray(pressures, float)
    _check_points(V, E, p)
    data = (V, E) if p is None else (V, E, p)
    find = root(_slope(form), _solver(form), linear_solver=Dense(), symmetric=True, check=None)
    return EquationOfState(form, find(_start(V, E), *data), V, E, p)


def equation_of_state(
    potential: Potential,
    structure: Structure,
    strains: Sequence[float] = (-0.04, -0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.03, 0.04),
    *,
    form: str = "vinet",
    fmax: float = 1e-9,
) -> EquationOfState:
    """Energies and pressures of a crystal at some volumes, its atoms relaxed, and the curve through them.

    Differentiable w.r.t. the parameters, forward and reverse: energies and pressures are exact, and so are
    their derivatives through the relaxation of the atoms.

    Args:
        structure: the crystal near its equilibrium; its cell keeps its shape.
        strains: (V / V_structure)^(1/3) - 1 of the volumes.
        form: "vinet" or "birch-murnaghan".
        fmax: tolerance of the relaxations, eV/Å.
    Raises:
        InputError: not periodic in three directions, and as `fit_equation_of_state`.
    """
    require_bulk(require_structure(structure), "equations of state")
    lengths = [1 + number("strains", e, above=-0.5, at_most=1.0) for e in strains]
    states = [relax(potential, structure.deformed(x * jnp.eye(3)), fmax=fmax) for x in lengths]
    V = jnp.stack([volume(state.structure) for state in states])
    E = jnp.stack([state.energy for state in states])
    p = jnp.stack([-jnp.trace(state.stress) / 3 for state in states])
    return fit_equation_of_state(V, E, p, form)


def _check_points(V: Array, E: Array, p: Array | None) -> None:
    shapes = {x.shape for x in (V, E, p) if x is not None}
    if len(shapes) > 1 or V.ndim != 1:
        raise InputError(f"volumes, energies and pressures have the shapes {sorted(shapes)}: one row each.")
    if len(V) < FEWEST:
        raise InputError(
            f"{len(V)} volumes for the four numbers of an equation of state: give {FEWEST} or more."
        )
    lowest = int(np.argmin(np.asarray(concrete(E))))
    order = np.argsort(np.asarray(concrete(V)))
    if lowest in (order[0], order[-1]):
        raise InputError(
            f"the energy is lowest at the end of the volumes ({float(concrete(V)[lowest]):.4f} Å³): give "
            "volumes on either side of the minimum."
        )


def _start(V: Array, E: Array) -> Numbers:
    # a parabola in V
    v, e = np.asarray(concrete(V)), np.asarray(concrete(E))
    middle = v.mean()
    c2, c1, c0 = np.polyfit(v - middle, e, 2)
    V0 = middle - c1 / (2 * c2)
    E0 = c0 - c1**2 / (4 * c2)
    return jnp.array([E0, V0, max(2 * c2 * V0, 1e-6), 4.0])


def _misses(form: str, numbers: Numbers, data: tuple[Array, ...]) -> Float[Array, "misses"]:
    V, E, *p = data
    misses = [FORMS[form](V, numbers) - E]
    if p:
        misses.append((pressure_of(form, V, numbers) - p[0]) * jnp.mean(V))
    return jnp.concatenate(misses)


def _slope(form: str) -> Callable[..., Array]:
    loss = lambda numbers, *data: jnp.sum(_misses(form, numbers, data) ** 2) / 2
    return jax.grad(loss)


def _solver(form: str) -> Callable[..., Array]:
    def find(start: Numbers, *data: Array) -> Numbers:
        from scipy.optimize import least_squares

        misses = lambda x: np.asarray(_misses(form, jnp.asarray(x), data))
        slopes = lambda x: np.asarray(jax.jacfwd(lambda x: _misses(form, x, data))(jnp.asarray(x)))
        options: Any = dict(jac=slopes, x_scale="jac", xtol=1e-15, ftol=1e-15, gtol=1e-15)
        found = least_squares(misses, np.asarray(start), **options)
        if not np.isfinite(found.x).all() or found.x[1] <= 0 or found.x[2] <= 0:
            raise NotConvergedError(
                f"no {form} curve fits these energies: the fit ended at E0, V0, B, B' = {found.x.tolist()}."
            )
        return _polished(_slope(form), jnp.asarray(found.x), data)

    return find


def _polished(slope: Callable[..., Array], x: Numbers, data: tuple[Array, ...]) -> Numbers:
    """The root of the gradient itself: a sum of squares is flat where it is least, and ends 1e-10 off."""
    for _ in range(POLISH):
        curvature = jax.jacfwd(slope)(x, *data)
        x = x - jnp.linalg.solve(curvature, slope(x, *data))
    return x
