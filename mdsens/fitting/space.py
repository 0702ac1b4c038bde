"""Which parameters a fit may change, and the variables it changes them by.

A fit works with one vector z. Each variable of it drives one parameter, or several that are tied:

    log scale:     theta_k = f_k s exp(z),     dtheta_k / dz = theta_k
    linear scale:  theta_k = f_k s z,          dtheta_k / dz = f_k s

with s the size of the first of them at the start (its sign included) and f_k the ratio of each to the first.
On both scales a change of z by 0.1 is a change of the parameter by about ten percent, so one number bounds
the steps of all. The log scale keeps the sign of a parameter.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mdsens.checks import instance, nearest, number
from mdsens.errors import InputError
from mdsens.potentials.base import Potential, require_potential
from mdsens.potentials.parameters import Entry, parameter_entries, parameter_values, replace_by_vector

Given = TypeVar("Given")

SCALES = ("auto", "log", "linear")
MARGIN = 1e-9  # of a bound: bounds of potentials are open, and a fit stays this far inside


class FitVariable(NamedTuple):
    """One number that a fit changes.

    Attributes:
        name: of the parameter, or of the first of those that are tied.
        entries: flat names of all parameters it drives. ratios: of each to the first.
        unit: of the first.
        log: on the log scale.
        size: s, the value of the first at the start; 1 where that is zero.
        lower, upper: bounds of the value of the first.
    """

    name: str
    entries: tuple[str, ...]
    ratios: tuple[float, ...]
    unit: str
    log: bool
    size: float
    start: float
    lower: float
    upper: float

    def z(self, value: float) -> float:
        """The variable at a value of its (first) parameter; infinite at a bound of zero on the log scale."""
        if not self.log:
            return value / self.size
        ratio = value / self.size
        return float(np.log(ratio)) if ratio > 0 else -np.inf

    def limits(self) -> tuple[float, float]:
        """Lowest and highest z."""
        ends = sorted(self.z(end) for end in (self.lower, self.upper))
        return ends[0], ends[1]

    @property
    def scale(self) -> str:
        """In words."""
        return "log" if self.log else "linear"


class GaussianPrior(NamedTuple):
    """What is known of a parameter before the fit.

    Attributes:
        mean: in the unit of the parameter.
        width: one standard deviation: relative on the log scale, in the unit of the parameter on the linear.
    """

    mean: float
    width: float


class ParameterSpace(eqx.Module):
    """The free parameters of a potential as one vector z; see the module.

    Attributes:
        potential: where the fit starts.
        variables: what z is made of.
        priors: by name of the variable.
    """

    potential: Potential
    variables: tuple[FitVariable, ...] = eqx.field(static=True)
    priors: dict[str, GaussianPrior] = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        potential: Potential,
        free: str | Sequence[str] | None = None,
        *,
        frozen: str | Sequence[str] = (),
        bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
        scale: str | Mapping[str, str] = "auto",
        ties: Sequence[str | Sequence[str]] = (),
        priors: Mapping[str, tuple[float | None, float]] | None = None,
    ) -> "ParameterSpace":
        """Choose what is free; by default everything.

        Parameters go by flat name ("epsilon[Ni-Cu]"), by the name of an array for all its entries
        ("epsilon"), or by a pattern in which * stands for anything and ? for one character ("*[Ni-*]").

        Args:
            free: what may change; default all.
            frozen: what may not, out of these.
            bounds: name or pattern -> (lowest, highest), None for no further bound; those of the form hold
                anyway.
            scale: "log", "linear", or "auto": log where the form bounds a parameter to one sign. One for all,
                or by name or pattern.
            ties: each names parameters that keep their ratios: one variable drives them all.
            priors: name or pattern -> (mean, width); width is relative on the log scale, and in the unit of
                the parameter on the linear; mean None is the value at the start.
        Raises:
            InputError: nothing is free; a prior of a parameter that is not; unknown names; a value outside
                its bounds; a tie of parameters that are zero, or in two ties; a parameter that is zero on the
                log scale.
        """
        require_potential(potential)
        known = {entry.name: entry for entry in parameter_entries(potential)}
        values = parameter_values(potential)
        chosen = matching(_listed(free), known, "free") if free is not None else list(known)
        held = set(matching(_listed(frozen), known, "frozen"))
        names = [name for name in chosen if name not in held]
        if not names:
            raise InputError(
                f"no parameter is free: free = {free!r}, frozen = {frozen!r}. Name some of {_some(known)}."
            )
        groups = _groups(names, [matching(_listed(tie), known, "ties") for tie in ties])
        limits = _by_name(bounds or {}, known, "bounds")
        scales = dict.fromkeys(known, scale) if isinstance(scale, str) else _by_name(scale, known, "scale")
        variables = tuple(_variable(group, known, values, limits, scales) for group in groups)
        first = [variable.name for variable in variables]
        given = _by_name(priors or {}, first, "priors")
        return cls(potential, variables, _priors(variables, given))

    # --- what is free ---------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the variables."""
        return tuple(variable.name for variable in self.variables)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Flat names of all parameters that may change, in the order of `theta`."""
        return tuple(entry for variable in self.variables for entry in variable.entries)

    @property
    def owner(self) -> np.ndarray:
        """Which variable drives each of `parameters`."""
        return np.repeat(np.arange(len(self.variables)), [len(v.entries) for v in self.variables])

    @property
    def start(self) -> Float[np.ndarray, "variables"]:
        """z of the potential that the space was made of."""
        return np.array([variable.z(variable.start) for variable in self.variables])

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest z."""
        limits = np.array([variable.limits() for variable in self.variables])
        return limits[:, 0], limits[:, 1]

    # --- the map --------------------------------------------------------------------------------------

    def values(self, z: Float[np.ndarray, "variables"]) -> Float[np.ndarray, "variables"]:
        """The value of the (first) parameter of each variable, in its unit."""
        log = np.array([variable.log for variable in self.variables])
        size = np.array([variable.size for variable in self.variables])
        return size * np.where(log, np.exp(np.where(log, z, 0.0)), z)

    def theta(self, z: Float[np.ndarray, "variables"]) -> Float[np.ndarray, "parameters"]:
        """Values of `parameters`."""
        return self._ratios * self.values(z)[self.owner]

    def at(self, z: Float[np.ndarray, "variables"]) -> Potential:
        """The potential at z.

        Raises:
            InputError: a value outside the bounds of the form.
        """
        return replace_by_vector(self.potential, self.parameters, jnp.asarray(self.theta(z)))

    def pull(
        self, z: Float[np.ndarray, "variables"], jacobian: Float[np.ndarray, "rows parameters"]
    ) -> Float[np.ndarray, "rows variables"]:
        """d/dz out of d/dtheta: what tied parameters do adds up."""
        result = np.zeros((len(jacobian), len(self.variables)))
        np.add.at(result.T, self.owner, (jacobian * self._slope(z)).T)
        return result

    def push(
        self, z: Float[np.ndarray, "variables"], step: Float[np.ndarray, "variables"]
    ) -> Float[np.ndarray, "parameters"]:
        """The change of `parameters` for a small change of z, to first order."""
        return self._slope(z) * step[self.owner]

    @property
    def _ratios(self) -> np.ndarray:
        return np.array([ratio for variable in self.variables for ratio in variable.ratios])

    def _slope(self, z: np.ndarray) -> np.ndarray:
        log = np.array([variable.log for variable in self.variables])
        size = np.array([variable.size for variable in self.variables])
        return self._ratios * np.where(log, self.values(z), size)[self.owner]


# --- names and patterns ---------------------------------------------------------------------------


def matching(patterns: Iterable[str], known: Iterable[str], what: str) -> list[str]:
    """The names that some pattern fits, each once, in the order of the patterns.

    Args:
        what: where the patterns stand, for messages.
    Raises:
        InputError: a pattern that fits nothing; the nearest name is suggested.
    """
    known = list(known)
    found: dict[str, None] = {}
    for pattern in patterns:
        fits = _fits(pattern, known)
        if not fits:
            raise InputError(
                f"{what}: there is no parameter '{pattern}'.{nearest(str(pattern), known, 0.3)} Its "
                f"parameters: {_some(known)}."
            )
        found |= dict.fromkeys(fits)
    return list(found)


def _fits(pattern: str, known: list[str]) -> list[str]:
    # brackets belong to names: only * and ? are wild
    wild = re.compile(re.escape(str(pattern)).replace(r"\*", ".*").replace(r"\?", "."))
    array = f"{pattern}["
    return [name for name in known if wild.fullmatch(name) or name.startswith(array)]


def _some(known: Iterable[str]) -> str:
    names = list(known)
    more = f" and {len(names) - 40} more" if len(names) > 40 else ""
    return ", ".join(names[:40]) + more


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else [str(name) for name in names]


def _by_name(given: Mapping[str, Given], known: Iterable[str], what: str) -> dict[str, Given]:
    """Values by flat name; a later pattern goes before an earlier one."""
    instance(what, given, Mapping, f'Give {{"name or pattern": ...}}, with names among {_some(known)}.')
    return {name: value for pattern, value in given.items() for name in matching([pattern], known, what)}


# --- one variable ---------------------------------------------------------------------------------


def _groups(names: list[str], ties: list[list[str]]) -> list[list[str]]:
    """Free parameters, those of a tie together, where the first of them stands."""
    tied: dict[str, int] = {}
    for k, tie in enumerate(ties):
        for name in tie:
            if name in tied:
                raise InputError(f"ties: the parameter {name} is in two ties: name it in one.")
            if name not in names:
                raise InputError(
                    f"ties: the parameter {name} is not free: free all of a tie, or leave it out."
                )
            tied[name] = k
    groups: dict[str, list[str]] = {}
    for name in names:
        key = f"tie {tied[name]}" if name in tied else name
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _variable(
    group: list[str],
    known: Mapping[str, Entry],
    values: Mapping[str, float],
    limits: Mapping[str, tuple[float | None, float | None]],
    scales: Mapping[str, str],
) -> FitVariable:
    first, start = group[0], values[group[0]]
    if len(group) > 1 and not all(values[name] for name in group):
        zero = next(name for name in group if not values[name])
        raise InputError(f"ties: {zero} is zero, and has no ratio to {first}: leave it out of the tie.")
    ratios = tuple(values[name] / start if start else 1.0 for name in group)
    log = _is_log(known[first], start, scales.get(first, "auto"))
    intervals = [_interval(known[name], values[name], limits.get(name)) for name in group]
    # of several tied parameters the tightest bounds hold, as values of the first
    spans = [sorted((low / r, high / r)) for (low, high), r in zip(intervals, ratios, strict=True)]
    lower, upper = max(span[0] for span in spans), min(span[1] for span in spans)
    if not lower <= start <= upper:
        raise InputError(
            f"bounds: {first} = {start:g} {known[first].unit} lies outside {lower:g} to {upper:g} at the "
            "start. Widen the bounds, or start from another value."
        )
    unit = known[first].unit
    return FitVariable(first, tuple(group), ratios, unit, log, start or 1.0, start, lower, upper)


def _is_log(entry: Entry, start: float, scale: str) -> bool:
    if scale not in SCALES:
        raise InputError(f"scale: '{scale}' of {entry.name} is unknown: use one of {', '.join(SCALES)}.")
    if scale == "log" and start == 0:
        raise InputError(f"scale: {entry.name} is zero and has no logarithm: use 'linear', or freeze it.")
    one_sign = entry.lower >= 0 or entry.upper <= 0
    return start != 0 and (scale == "log" or (scale == "auto" and one_sign))


def _interval(
    entry: Entry, start: float, given: tuple[float | None, float | None] | None
) -> tuple[float, float]:
    """Bounds of one parameter: those of the form, a little inside, and those of the user."""
    low, high = _inside(entry.lower, 1, start), _inside(entry.upper, -1, start)
    if given is None:
        return low, high
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2:
        raise InputError(f"bounds: {given!r} of {entry.name}: give two numbers, lowest and highest.")
    least, most = (
        default if value is None else number(f"a bound of {entry.name}", value, entry.unit, finite=False)
        for value, default in zip(given, (low, high), strict=True)
    )
    if not least < most:
        raise InputError(f"bounds: {given!r} of {entry.name}: the lowest must be below the highest.")
    return max(low, least), min(high, most)


def _inside(bound: float, sign: int, start: float) -> float:
    return bound + sign * MARGIN * (abs(bound) or abs(start)) if np.isfinite(bound) else bound


def _priors(
    variables: tuple[FitVariable, ...], given: Mapping[str, tuple[float | None, float]]
) -> dict[str, GaussianPrior]:
    homes = {variable.name: variable for variable in variables}
    return {name: _prior(homes[name], values) for name, values in given.items()}


def _prior(variable: FitVariable, given: tuple[float | None, float]) -> GaussianPrior:
    name = f"priors: of {variable.name}"
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2:
        raise InputError(f"{name}: {given!r}: give two numbers, mean and width.")
    unit = "relative" if variable.log else variable.unit
    width = number(f"{name}: the width", given[1], unit, above=0)
    mean = variable.start if given[0] is None else number(f"{name}: the mean", given[0], variable.unit)
    if variable.log and not mean * variable.size > 0:
        raise InputError(f"{name}: the mean {mean:g} has another sign than {variable.start:g}.")
    return GaussianPrior(mean, width)
