"""Files that LAMMPS reads, out of potentials: the fitted potential runs there, with the same energies.

The formats are those that `load_potential` reads (`lammps_files`, `tersoff_files`, `eam_files`,
`snap_files`), in units metal. Numbers have all their digits: what is read back is the same potential to
the last bit, but for products that the format has and the form has not.

Source: LAMMPS documentation, pair_style sw, tersoff, tersoff/zbl, tersoff/mod, eam/alloy, eam/fs, eam/he,
snap.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdsens.errors import InputError
from mdsens.potentials.base import Potential, pair_table
from mdsens.potentials.bond_orders import BondOrderPotential
from mdsens.potentials.eam import EAM
from mdsens.potentials.lammps_files import SW_COLUMNS
from mdsens.potentials.snap import SNAP
from mdsens.potentials.snap_files import COEFFICIENTS, FLAGS, NUMBERS, SETTINGS
from mdsens.potentials.stillinger_weber import StillingerWeber
from mdsens.potentials.tersoff import Tersoff
from mdsens.potentials.tersoff_files import COLUMNS, MOD_COLUMNS, ZBL_COLUMNS
from mdsens.potentials.tersoff_variants import TersoffMod, TersoffZBL

KNOTS_IN_A_LINE = 5


def lammps_texts(potential: Potential, path: Path) -> dict[Path, str]:
    """The files of a potential, by their paths: one, or two for SNAP.

    Args:
        path: its ending names the format.
    Raises:
        InputError: an ending that belongs to another form, or an element more than the format can tell apart.
    """
    longest_first = sorted(WRITERS, key=len, reverse=True)
    ending = next(e for e in longest_first if path.name.lower().endswith(e))
    form, write = WRITERS[ending]
    if type(potential) is not form:
        own = [e for e, (other, _) in WRITERS.items() if type(potential) is other]
        hint = f"Name it {' or '.join(f'NAME{e}' for e in own)}" if own else "Write .toml"
        this = type(potential).__name__
        raise InputError(f"'{path.name}': {ending} files hold {form.__name__}, and this is a {this}. {hint}.")
    return write(potential, path)


def _number(value: Any) -> str:
    # the shortest text that is read back as the same float64
    return repr(float(value))


def _head(potential: Any) -> str:
    source = " ".join(potential.source.split()) or "fitted with mdsens"
    return f"UNITS: metal CITATION: {source}"


# --- an entry for every triple of elements


def _triples(
    potential: Any, columns: Sequence[str], values_of: Callable[[int, int, int], Mapping[str, Any]]
) -> str:
    lines = [f"# {_head(potential)}", "# Written by mdsens: three elements, then", f"# {' '.join(columns)}"]
    kinds = range(len(potential.elements))
    for i, j, k in itertools.product(kinds, repeat=3):
        values = values_of(i, j, k)
        names = (potential.elements[kind] for kind in (i, j, k))
        numbers = (_number(values[column]) for column in columns)
        lines.append(" ".join([*names, *numbers]))
    return "\n".join([*lines, ""])


def _stillinger_weber(potential: StillingerWeber, path: Path) -> dict[Path, str]:
    n = len(potential.elements)
    pairs = pair_table(n)

    def entry(field: str, place: int) -> float:
        return float(np.atleast_1d(np.asarray(getattr(potential, field)))[place])

    # LAMMPS takes all of a pair from the entry i j j, and lambda epsilon of an angle from i j k. Ours is
    # lambda sqrt(eps_ij eps_ik): with that root for epsilon, lambda is the same.
    def values(i: int, j: int, k: int) -> dict[str, float]:
        pair, other = int(pairs[i, j]), int(pairs[i, k])
        triple = i * n * (n + 1) // 2 + int(pairs[j, k])
        found = {name: entry(name, pair) for name in ("sigma", "a", "A", "B", "p", "q")}
        own = entry("epsilon", pair)
        found["epsilon"] = own if j == k else float(np.sqrt(own * entry("epsilon", other)))
        found["lambda"] = entry("lambda_", triple)
        found["gamma"] = entry("gamma", n * i + j)
        found["costheta0"] = entry("costheta0", triple)
        found["tol"] = 0.0
        return found

    return {path: _triples(potential, SW_COLUMNS, values)}


def _bond_order(columns: Sequence[str]) -> Callable[[Any, Path], dict[Path, str]]:
    def write(potential: BondOrderPotential, path: Path) -> dict[Path, str]:
        if "c0" not in columns and np.any(np.asarray(getattr(potential, "c0", 0.0))):
            raise InputError(f"'{path.name}': c0 is not zero, and only .tersoff.modc files have it.")
        n = len(potential.elements)
        fields = type(potential).parameter_fields()
        tables = {name: _by_triple(potential, name) for name in columns if name in fields}
        powers = np.asarray(potential.m, float).reshape(-1)
        tables["m"] = np.broadcast_to(powers, (n**3,)).reshape(n, n, n)

        def values(i: int, j: int, k: int) -> dict[str, float]:
            found = {name: float(table[i, j, k]) for name, table in tables.items()}
            return found | _charges(potential, i, j)

        return {path: _triples(potential, columns, values)}

    return write


def _by_triple(potential: BondOrderPotential, field: str) -> np.ndarray:
    """Values of a parameter by center, bonded and third atom."""
    n = len(potential.elements)
    values = np.asarray(getattr(potential, field))
    return np.broadcast_to(values[potential._table(field)], (n, n, n))


def _charges(potential: Any, i: int, j: int) -> dict[str, float]:
    if not isinstance(potential, TersoffZBL):
        return {}
    Z = np.atleast_1d(np.asarray(potential.Z))
    return {"Z_i": float(Z[i]), "Z_j": float(Z[j])}


# --- tables of embedded atoms


def _eam(finnis_sinclair: bool, negative: bool = False) -> Callable[[EAM, Path], dict[Path, str]]:
    def write(potential: EAM, path: Path) -> dict[Path, str]:
        if potential.first_density < 0 and not negative:
            raise InputError(
                f"'{path.name}': densities begin at {potential.first_density:g} here, and in such a file at "
                "0. Write .eam.he."
            )
        if potential.finnis_sinclair != finnis_sinclair:
            kind = "the density depends on both species" if potential.finnis_sinclair else "it does not here"
            right = ".eam.fs" if potential.finnis_sinclair else ".eam.alloy"
            raise InputError(f"'{path.name}': {kind}, which is what {right} files are for. Name it so.")
        return {path: "\n".join([*_setfl_lines(potential, negative), ""])}

    return write


def _setfl_lines(potential: EAM, negative: bool) -> Iterator[str]:
    elements, n = potential.elements, len(potential.elements)
    tables = (potential.F, potential.rho, potential.rphi)
    F, rho, rphi = (np.atleast_2d(np.asarray(table)) for table in tables)
    yield f"# {_head(potential)}"
    yield "# Written by mdsens."
    yield "#"
    yield f"{n} {' '.join(elements)}"
    of_F = F.shape[1], _number(potential.drho)
    of_r = rho.shape[1], _number(potential.dr)
    ends = [potential.cutoff_radius]
    if negative:
        ends.append(potential.first_density + (F.shape[1] - 1) * potential.drho)
    yield " ".join(map(str, (*of_F, *of_r, *map(_number, ends))))
    for center in range(n):
        yield _element_line(elements[center])
        yield from _table(F[center])
        # rows of ordered pairs: the atom that feels it first
        felt = [n * felt_by + center for felt_by in range(n)]
        for row in felt if potential.finnis_sinclair else [center]:
            yield from _table(rho[row])
    pairs = pair_table(n)
    for a in range(n):
        for b in range(a + 1):
            yield from _table(rphi[pairs[a, b]])


def _element_line(symbol: str) -> str:
    from ase.data import atomic_masses, atomic_numbers

    z = atomic_numbers[symbol]
    # lattice constant and type are for readers, and nobody computes with them
    return f"{z} {_number(atomic_masses[z])} 0.0 none"


def _table(values: np.ndarray) -> Iterator[str]:
    for start in range(0, len(values), KNOTS_IN_A_LINE):
        yield " ".join(_number(value) for value in values[start : start + KNOTS_IN_A_LINE])


# --- SNAP


def _snap(potential: SNAP, path: Path) -> dict[Path, str]:
    beta = np.atleast_2d(np.asarray(potential.beta))
    lines = [f"# {_head(potential)}", f"{len(beta)} {beta.shape[1]}"]
    columns = zip(potential.elements, potential.radii, potential.weights, beta, strict=True)
    for symbol, radius, weight, own in columns:
        lines.append(f"{symbol} {_number(radius)} {_number(weight)}")
        lines += map(_number, own)
    settings = ["# Written by mdsens.", f"twojmax {potential.twojmax}"]
    value_of = lambda field: getattr(potential, field)
    settings += [f"{name} {_number(value_of(field))}" for name, field in NUMBERS.items()]
    settings += [f"{name} {int(value_of(field))}" for name, field in FLAGS.items()]
    beside = path.with_name(path.name[: -len(COEFFICIENTS)] + SETTINGS)
    return {path: "\n".join([*lines, ""]), beside: "\n".join([*settings, ""])}


Writer = Callable[[Any, Path], dict[Path, str]]

WRITERS: dict[str, tuple[type[Potential], Writer]] = {
    ".sw": (StillingerWeber, _stillinger_weber),
    ".tersoff": (Tersoff, _bond_order(COLUMNS)),
    ".tersoff.zbl": (TersoffZBL, _bond_order(ZBL_COLUMNS)),
    ".tersoff.mod": (TersoffMod, _bond_order(MOD_COLUMNS)),
    ".tersoff.modc": (TersoffMod, _bond_order((*MOD_COLUMNS, "c0"))),
    ".eam.alloy": (EAM, _eam(finnis_sinclair=False)),
    ".eam.fs": (EAM, _eam(finnis_sinclair=True)),
    ".eam.he": (EAM, _eam(finnis_sinclair=True, negative=True)),
    ".snapcoeff": (SNAP, _snap),
}
