"""What the properties of crystals hang on in the classic potentials: a table of exact sensitivities.

For each parameter set: d ln(observable) / d ln(parameter), through the relaxation, with error bars, of the
lattice constant, the energy, elastic constants (ions clamped and relaxed), a phonon, thermal expansion, a
vacancy and its hop. Each form obeys identities that hold exactly, and the table is checked against them.

    python workflows/classic_potentials.py --output results/classic_potentials
    python workflows/classic_potentials.py --only ar-lennard-jones cu-morse --measure crystal vacancy
    python workflows/classic_potentials.py --only ar-lennard-jones --measure expansion

What is finished stays on disk, one file for each set and group of observables: the same command goes on where
it was interrupted, and computes again what belongs to other parameters than those of today.
"""

import argparse
import csv
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402  (float64 first)
from mdsens.io.files import new_file  # noqa: E402
from mdsens.observables.observable import States  # noqa: E402

# --- what is computed ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Setting:
    """A parameter set and the crystal it was made for.

    Attributes:
        formula, lattice, edge: as `ase.build.bulk` takes them; edge in Å.
        pairs: all forces are central, so that Cauchy's relation holds.
        cut: the interaction ends at a fixed distance that is no parameter.
        cells: cubic cells along an edge of the vacancy's cell.
        drawn: the neighbors of a vacancy move into it, to a state of less energy than the one without.
        temperature: at which it expands, K: room temperature, or what the crystal still stands.
    """

    title: str
    formula: str
    lattice: str
    edge: float
    pairs: bool = False
    cut: bool = False
    cells: int = 2
    drawn: bool = False
    temperature: float = 300

    @property
    def images(self) -> int:
        """Of the band of a hop: a path among states without symmetry needs more."""
        return 5 if self.lattice == "diamond" else 3

    @property
    def crystal(self) -> ms.Structure:
        """The primitive cell."""
        from ase.build import bulk

        return ms.Structure.from_ase(bulk(self.formula, self.lattice, a=self.edge))

    @property
    def is_ionic(self) -> bool:
        """Two kinds of ions: a vacancy of one of them would carry a charge."""
        return self.lattice == "rocksalt"

    @property
    def phonon(self) -> str:
        """The optical mode at Gamma; fcc crystals have none: their longitudinal wave at X."""
        return "phonon(q=[1/2, 0, 1/2], mode=3)" if self.lattice == "fcc" else "gamma_phonon"


SETTINGS = {
    "si-stillinger-weber-1985": Setting("Stillinger-Weber, Si", "Si", "diamond", 5.431, drawn=True),
    "si-tersoff-1988-t3": Setting("Tersoff T3, Si", "Si", "diamond", 5.432),
    "si-edip-1998": Setting("EDIP, Si", "Si", "diamond", 5.430),
    "cu-gupta-1993": Setting("Gupta, Cu", "Cu", "fcc", 3.615, cut=True, cells=3),
    "ar-lennard-jones": Setting("Lennard-Jones, Ar", "Ar", "fcc", 5.26, True, True, 3, temperature=40),
    "cu-morse": Setting("Morse, Cu", "Cu", "fcc", 3.6, True, True, 3),
    "mgo-lewis-catlow": Setting("Buckingham, MgO", "MgO", "rocksalt", 4.21, True, True),
}
CONSTANTS = ("C11_cubic", "C12_cubic", "C44_cubic")
CLAMPED = tuple(f"{name}_clamped" for name in CONSTANTS)
CRYSTAL = ("lattice_constant", "energy_per_atom", *CONSTANTS, *CLAMPED)
TIGHT = 1e-10  # eV/Å
MESH = 4  # waves along each reciprocal vector, for thermal expansion

Report = ms.SensitivityReport


def of_the_crystal(potential: ms.Potential, setting: Setting) -> Report:
    """Lattice constant, energy, elastic constants and a phonon of the crystal."""
    names = [*CRYSTAL, setting.phonon]
    return ms.sensitivities(
        names, potential, setting.crystal, cell="isotropic", fmax=TIGHT, second_order=False
    )


def of_the_expansion(potential: ms.Potential, setting: Setting) -> Report:
    """Coefficient of thermal expansion of the crystal, by quasi-harmonic vibrations of its primitive cell."""
    expansion = ms.observables.thermal_expansion(setting.temperature, MESH)
    return ms.sensitivities(
        [expansion],
        potential,
        setting.crystal,
        cell="isotropic",
        fmax=TIGHT,
        mode="forward",
        second_order=False,
    )


def of_the_vacancy(potential: ms.Potential, setting: Setting) -> Report:
    """Formation energy and volume of a vacancy, the atoms and the size of its cell relaxed."""
    states = {"defect": vacancy(potential, setting), "bulk": setting.crystal}
    formation = ms.observables.formation("defect", "bulk")
    return ms.sensitivities([formation], potential, states, cell="isotropic", fmax=TIGHT, second_order=False)


def of_the_hop(potential: ms.Potential, setting: Setting) -> Report:
    """Barrier of the hop of a neighbor into the vacancy, in a cell of the size of the crystal at rest."""
    bulk = ms.relax(potential, setting.crystal, cell="isotropic", fmax=TIGHT)
    hop = ms.barrier(potential, *hop_of_a_neighbor(potential, setting), images=setting.images)
    states = hop.states | {"bulk": bulk}
    height = HeightInTheCrystal(float(ms.volume(bulk.structure)))
    barrier = ms.Observable(("barrier",), ("eV",), height, ("initial", "saddle", "bulk"))
    return ms.sensitivities([barrier], potential, states, fmax=TIGHT, second_order=False)


@dataclasses.dataclass(frozen=True)
class HeightInTheCrystal:
    """Energy from the minimum up to the saddle point, eV, in a cell that grows as the crystal does.

    Attributes:
        volume: of the crystal that both were found in, Å³.
    """

    volume: float

    def __call__(self, potential: ms.Potential, states: States) -> tuple[jax.Array]:
        stretch = jax.numpy.cbrt(ms.volume(states["bulk"].structure) / self.volume)
        energies = []
        for name in ("initial", "saddle"):
            structure, neighbors = states[name]
            # both are at rest: of the first order is the strain, and not how the atoms settle in it
            larger = structure.deformed(stretch * jax.numpy.eye(3))
            energies.append(potential.energy(larger, neighbors))
        return (energies[1] - energies[0],)


MEASUREMENTS: dict[str, Callable[[ms.Potential, Setting], Report]] = {
    "crystal": of_the_crystal,
    "expansion": of_the_expansion,
    "vacancy": of_the_vacancy,
    "hop": of_the_hop,
}

# thermal expansion asks for fourth and fifth derivatives, whose programs take minutes to compile: on request
BY_DEFAULT = ("crystal", "vacancy", "hop")


def supercell(potential: ms.Potential, setting: Setting) -> ms.Structure:
    """Cubic cells of the crystal at rest."""
    from ase.build import bulk

    relaxed = ms.relax(potential, setting.crystal, cell="isotropic", fmax=TIGHT)
    primitive = float(ms.volume(relaxed.structure))
    per_cube = 4
    edge = (per_cube * primitive) ** (1 / 3)
    cube = bulk(setting.formula, setting.lattice, a=edge, cubic=True)
    return ms.Structure.from_ase(cube * ([setting.cells] * 3))


def without(structure: ms.Structure, missing: list[int]) -> ms.Structure:
    """The structure without some of its atoms."""
    atoms = structure.to_ase()
    del atoms[missing]
    return ms.Structure.from_ase(atoms)


def nearest_atom(structure: ms.Structure, atom: int) -> int:
    """The first of the nearest neighbors of an atom."""
    distances = structure.to_ase().get_distances(atom, range(structure.n_atoms), mic=True)
    return int(np.argsort(distances, kind="stable")[1])


def vacancy(potential: ms.Potential, setting: Setting) -> ms.Structure:
    """A cell without an atom; in an ionic crystal without two neighbors, so that no charge is missing."""
    whole = supercell(potential, setting)
    if setting.is_ionic:
        return without(whole, [0, nearest_atom(whole, 0)])
    return around_the_gap(without(whole, [0]), whole.positions[0], setting)


def hop_of_a_neighbor(potential: ms.Potential, setting: Setting) -> tuple[ms.Structure, ms.Structure]:
    """The vacancy before and after its nearest atom has moved into it."""
    whole = supercell(potential, setting)
    neighbor = nearest_atom(whole, 0)
    places = np.array(whole.positions)
    moved = places.copy()
    moved[neighbor] = places[0]
    before = around_the_gap(without(whole, [0]), places[0], setting)
    after = around_the_gap(without(whole.at(moved), [0]), places[neighbor], setting)
    return before, after


def around_the_gap(structure: ms.Structure, place: np.ndarray, setting: Setting) -> ms.Structure:
    """Where silicon's four neighbors of a vacancy are drawn in, a start near there, without symmetry."""
    import ase

    if not setting.drawn:
        return structure
    atoms = structure.to_ase()
    probe = atoms.copy()
    probe.append(ase.Atom(setting.formula, place))
    last, others = len(atoms), range(len(atoms))
    vectors = probe.get_distances(last, others, mic=True, vector=True)
    near = np.argsort(np.linalg.norm(vectors, axis=1))[:4]
    atoms.positions[near] -= 0.2 * vectors[near]
    atoms.rattle(0.02, seed=1)
    return ms.Structure.from_ase(atoms)


def has(setting: Setting, measurement: str) -> bool:
    """Whether a measurement has a meaning: a single ion that hops leaves a charged cell behind."""
    return not (measurement == "hop" and setting.is_ionic)


# --- what is finished stays ---------------------------------------------------------------------------------


def kept(path: Path, potential: ms.Potential) -> Report | None:
    """A finished report, if it belongs to the parameters of today."""
    if not path.exists():
        return None
    report = Report.from_hdf5(path)
    today = ms.parameter_values(potential)
    then = dict(zip(report.parameters, report.theta, strict=True))
    return report if then == today else None


def computed(folder: Path, name: str, measurement: str) -> Report:
    """The report of one set and measurement, from disk where it is there."""
    potential = ms.load_potential(name)
    path = folder / name / f"{measurement}.h5"
    report = kept(path, potential)
    if report is None:
        report = MEASUREMENTS[measurement](potential, SETTINGS[name])
        report.to_hdf5(path, overwrite=True)
    return report


# --- one row for each observable ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Row:
    """An observable of one set.

    Attributes:
        elasticities, errors: d ln(O) / d ln(theta) of each parameter that is not zero.
        relaxation: the part of it that goes through the relaxation.
    """

    observable: str
    value: float
    unit: str
    elasticities: dict[str, float]
    errors: dict[str, float]
    relaxation: dict[str, float]


def rows_of(report: Report) -> Iterator[Row]:
    """Observables of a report; a parameter that is zero has no logarithm."""
    matrices = [
        report.matrix(),
        np.abs(report.matrix(part=report.errors)),
        report.matrix(part=report.relaxation),
    ]
    for i, observable in enumerate(report.observables):
        columns = [_by_name(report, matrix[i]) for matrix in matrices]
        yield Row(observable, float(report.values[i]), report.units[i], *columns)


def _by_name(report: Report, numbers: np.ndarray) -> dict[str, float]:
    pairs = zip(report.parameters, numbers, report.theta, strict=True)
    return {name: float(x) for name, x, theta in pairs if theta != 0}


# --- identities ---------------------------------------------------------------------------------------------

# Powers of energy and length in each unit. If all energies among the parameters grow by a factor s, an
# observable with the power e of energy grows by s^e, hence
#     sum_k e_k d ln(O) / d ln(theta_k) = e(O),
# and likewise for lengths. The square of a charge is an energy times a length; masses stay.
POWERS = {
    "eV": (1.0, 0.0),
    "Å": (0.0, 1.0),
    "1/Å": (0.0, -1.0),
    "1": (0.0, 0.0),
    "eV Å⁶": (1.0, 6.0),
    "e": (0.5, 0.5),
    "Å³": (0.0, 3.0),
    "GPa": (1.0, -3.0),
    "THz": (0.5, -1.0),
}
# k and h are numbers of their own: how an expansion (1/K) scales says nothing about parameters alone.


@dataclasses.dataclass(frozen=True)
class Identity:
    """What must be equal, and by how much it is not; `error`: what the error bars allow."""

    name: str
    difference: float
    error: float

    @property
    def holds(self) -> bool:
        """Within the error bars, and rounding."""
        return abs(self.difference) <= self.error + 1e-8


def scaling(row: Row, units: dict[str, str], kind: int) -> Identity:
    """The sum of elasticities by energies (kind 0) or lengths (1) less the power of the observable."""
    powers = {name: POWERS[units[name]][kind] for name in row.elasticities}
    terms = [powers[name] * x for name, x in row.elasticities.items()]
    errors = [abs(powers[name]) * x for name, x in row.errors.items()]
    what = ("energies", "lengths")[kind]
    difference = sum(terms) - POWERS[row.unit][kind]
    return Identity(f"{row.observable}: {what}", difference, sum(errors))


def no_relaxation(row: Row) -> Identity:
    """An energy is stationary in what relaxes: its derivative comes from the parameters alone."""
    largest = max(map(abs, row.relaxation.values()))
    return Identity(f"{row.observable}: none of it through relaxation", largest, max(row.errors.values()))


def cauchy(rows: dict[str, Row]) -> Iterator[Identity]:
    """C12 = C44 in a crystal of central forces at rest, and so are all their derivatives."""
    C12, C44 = rows["C12_cubic"], rows["C44_cubic"]
    yield Identity("Cauchy: C12 / C44 - 1", C12.value / C44.value - 1, 1e-9)
    for name, x in C12.elasticities.items():
        error = C12.errors[name] + C44.errors[name]
        yield Identity(f"Cauchy: C12 and C44 by {name}", x - C44.elasticities[name], error)


ANGLES = ("lambda", "gamma", "costheta0")


def ideal_angles(rows: dict[str, Row]) -> Iterator[Identity]:
    """The three-body term of Stillinger and Weber is zero, with its slope, wherever all angles are ideal.

    Under uniform strain they stay so: what is measured along it does not see the term.
    """
    C11, C12 = rows["C11_cubic"], rows["C12_cubic"]
    for name in ANGLES:
        for observable in ("lattice_constant", "energy_per_atom"):
            row = rows[observable]
            yield Identity(f"{observable} by {name}", row.elasticities[name], row.errors[name])
        # of 3 K = C11 + 2 C12
        change = C11.value * C11.elasticities[name] + 2 * C12.value * C12.elasticities[name]
        error = C11.value * C11.errors[name] + 2 * C12.value * C12.errors[name]
        size = C11.value + 2 * C12.value
        yield Identity(f"K by {name}", change / size, error / size)


STRENGTHS = ("A", "lambda")


def strengths(row: Row) -> Identity:
    """Both terms of Stillinger and Weber together are an energy, as epsilon is."""
    total = sum(row.elasticities[name] for name in STRENGTHS)
    error = sum(row.errors[name] for name in (*STRENGTHS, "epsilon"))
    return Identity(f"{row.observable}: A and lambda", total - row.elasticities["epsilon"], error)


def embedding_curvature(potential: ms.Gupta, edge: jax.Array) -> jax.Array:
    """C12 - C44 of an fcc crystal at rest, GPa, out of the curvature of F(rho) = -sqrt(rho) alone.

    Pairs obey Cauchy's relation. A strain e changes rho by e_ab V_ab, V_ab = sum_j rho'(r_j) x_a x_b / r_j,
    which is V times the unit matrix in a cubic crystal: F'' V_ab V_cd / Omega adds to C12 and not to C44.
    """
    from mdsens.potentials.pair import cut_off

    vectors = edge / 2 * fcc_shells()
    r = jax.numpy.linalg.norm(vectors, axis=1)

    def density(r: jax.Array) -> jax.Array:
        decay = lambda r: potential.xi**2 * jax.numpy.exp(-2 * potential.q * (r / potential.r0 - 1))
        return cut_off(decay, r, potential.cutoff_radius, potential.cut)

    slope = jax.vmap(jax.grad(density))(r)
    V = jax.numpy.sum(slope * vectors[:, 0] ** 2 / r)
    curvature = jax.numpy.sum(density(r)) ** -1.5 / 4
    return curvature * V**2 / (edge**3 / 4) * ms.units.GPA


def fcc_shells(reach: int = 6) -> np.ndarray:
    """Neighbors in half lattice constants: whole numbers with an even sum."""
    steps = np.arange(-reach, reach + 1)
    points = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    even = points.sum(axis=1) % 2 == 0
    there = np.abs(points).sum(axis=1) > 0
    return points[even & there].astype(float)


def embedding(potential: ms.Gupta, rows: dict[str, Row]) -> Iterator[Identity]:
    """The closed form of C12 - C44 and its derivatives, along the lattice constant as it moves."""
    C12, C44, a = rows["C12_cubic"], rows["C44_cubic"], rows["lattice_constant"]
    edge = jax.numpy.asarray(a.value)
    value = float(embedding_curvature(potential, edge))
    by_form, by_edge = jax.grad(embedding_curvature, argnums=(0, 1))(potential, edge)
    yield Identity("embedding: C12 - C44", (C12.value - C44.value) / value - 1, 1e-9)
    slopes = ms.parameter_values(by_form)
    thetas = ms.parameter_values(potential)
    for name, theta in thetas.items():
        moved = float(by_edge) * a.value * a.elasticities[name]
        right = float(slopes[name]) * theta + moved
        measured = C12.value * C12.elasticities[name] - C44.value * C44.elasticities[name]
        error = C12.value * C12.errors[name] + C44.value * C44.errors[name]
        yield Identity(f"embedding: C12 - C44 by {name}", (measured - right) / value, error / value)


def identities(name: str, rows: dict[str, Row]) -> Iterator[Identity]:
    """All that must hold for a set."""
    potential, setting = ms.load_potential(name), SETTINGS[name]
    units = units_of(potential)
    for row in rows.values():
        if row.unit in POWERS:
            yield scaling(row, units, 0)
        if row.unit in POWERS and not setting.cut:
            yield scaling(row, units, 1)
        if row.observable in ("energy_per_atom", "formation_energy"):
            yield no_relaxation(row)
        if isinstance(potential, ms.StillingerWeber):
            yield strengths(row)
    if "C12_cubic" not in rows:
        return
    if setting.pairs:
        yield from cauchy(rows)
    if isinstance(potential, ms.StillingerWeber):
        yield from ideal_angles(rows)
    if isinstance(potential, ms.Gupta):
        yield from embedding(potential, rows)


def units_of(potential: ms.Potential) -> dict[str, str]:
    """Unit of each parameter."""
    from mdsens.potentials.parameters import find_entries

    names = list(ms.parameter_values(potential))
    entries = find_entries(potential, names)
    return {name: entry.unit for name, entry in zip(names, entries, strict=True)}


# --- tables and figure --------------------------------------------------------------------------------------

SHORT = {
    "lattice_constant": "a",
    "energy_per_atom": "E per atom",
    "C11_cubic": "C₁₁",
    "C12_cubic": "C₁₂",
    "C44_cubic": "C₄₄",
    "C11_cubic_clamped": "C₁₁ clamped",
    "C12_cubic_clamped": "C₁₂ clamped",
    "C44_cubic_clamped": "C₄₄ clamped",
    "formation_energy": "vacancy energy",
    "formation_volume": "vacancy volume",
    "barrier": "migration barrier",
    "gamma_phonon": "Γ phonon",
}
Rows = dict[str, Row]


def short(observable: str) -> str:
    """As tables and figures call it."""
    if observable.startswith("phonon"):
        return "X phonon"
    if observable.startswith("thermal_expansion"):
        temperature = observable.split("T=")[1].split(",")[0]
        return f"expansion, {temperature} K"
    return SHORT.get(observable, observable)


def shown_parameters(rows: Rows) -> list[str]:
    """Those that some observable hangs on."""
    first = next(iter(rows.values()))
    return [
        name for name in first.elasticities if any(abs(r.elasticities[name]) > 1e-6 for r in rows.values())
    ]


def matrix_of(name: str, rows: Rows) -> tuple[list[str], np.ndarray]:
    """Columns and elasticities of a set; where a cutoff is fixed, what the lengths lack is its share."""
    columns = shown_parameters(rows)
    matrix = np.array([[row.elasticities[c] for c in columns] for row in rows.values()])
    if not SETTINGS[name].cut:
        return columns, matrix
    units = units_of(ms.load_potential(name))
    share = np.array([share_of_the_cutoff(row, units) for row in rows.values()])
    return [*columns, "(cutoff)"], np.column_stack([matrix, share])


def share_of_the_cutoff(row: Row, units: dict[str, str]) -> float:
    """What the lengths lack of the power that dimensions ask for; NaN where they ask for none."""
    return -scaling(row, units, 1).difference if row.unit in POWERS else np.nan


def markdown_of(name: str, rows: Rows) -> list[str]:
    """The table of a set, and the largest error bar in it."""
    columns, matrix = matrix_of(name, rows)
    lines = [f"## {SETTINGS[name].title}: `{name}`", ""]
    lines += ["| | value | " + " | ".join(columns) + " |", "|---|---|" + "---:|" * len(columns)]
    for row, numbers in zip(rows.values(), matrix, strict=True):
        cells = " | ".join(rounded(x) for x in numbers)
        lines.append(f"| {short(row.observable)} | {row.value:.5g} {row.unit} | {cells} |")
    worst = max(max(row.errors.values()) for row in rows.values())
    return [*lines, "", f"Error bars: {worst:.0e} or less.", ""]


def rounded(x: float) -> str:
    """Three decimals; zero is a digit, and what is not known is left empty."""
    if np.isnan(x):
        return ""
    return "0" if abs(x) < 5e-4 else f"{x:.3f}".replace("-", "−")


def markdown_of_identities(found: dict[str, list[Identity]]) -> list[str]:
    """How well the identities hold, set by set."""
    lines = [
        "## Identities",
        "",
        "| set | identities | largest difference | all hold |",
        "|---|---:|---:|---|",
    ]
    for name, each in found.items():
        largest = max((abs(one.difference) for one in each), default=0.0)
        held = "yes" if all(one.holds for one in each) else "no"
        lines.append(f"| `{name}` | {len(each)} | {largest:.1e} | {held} |")
    return [*lines, ""]


HEADER = ("set", "observable", "value", "unit", "parameter", "dlnO_dln_theta", "error", "relaxation_part")


def write_csv(path: Path, table: dict[str, Rows]) -> None:
    """One line for each set, observable and parameter."""
    with new_file(path, True) as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for name, rows in table.items():
            for row in rows.values():
                writer.writerows(_lines_of(name, row))


def _lines_of(name: str, row: Row) -> Iterator[list[str]]:
    for parameter, x in row.elasticities.items():
        numbers = (x, row.errors[parameter], row.relaxation[parameter])
        texts = [f"{number:.9g}" for number in numbers]
        yield [name, row.observable, f"{row.value:.9g}", row.unit, parameter, *texts]


def draw(table: dict[str, Rows]) -> Figure:
    """One map for each set, colors alike in all."""
    heights = [len(rows) + 3.2 for rows in table.values()]
    figure = Figure(figsize=(11, 0.27 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(table), 1, height_ratios=heights, squeeze=False)
    for axes, (name, rows) in zip(panels[:, 0], table.items(), strict=True):
        _draw_one(axes, name, rows)
    return figure


TOP = 3.0  # root of the elasticity at which colors end


def _draw_one(axes: Axes, name: str, rows: Rows) -> None:
    columns, matrix = matrix_of(name, rows)
    # a signed square root keeps small entries visible beside large ones
    shade = np.sign(matrix) * np.sqrt(np.abs(matrix))
    axes.imshow(shade, cmap="RdBu_r", vmin=-TOP, vmax=TOP, aspect="auto")
    for (i, j), x in np.ndenumerate(matrix):
        color = "white" if abs(shade[i, j]) > 0.7 * TOP else "black"
        text = "" if np.isnan(x) else "0" if abs(x) < 5e-3 else f"{x:.2f}"
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color=color)
    axes.set_xticks(range(len(columns)), columns, fontsize=7, rotation=20, ha="right")
    axes.set_yticks(range(len(rows)), [short(observable) for observable in rows], fontsize=7)
    axes.set_title(SETTINGS[name].title, fontsize=9)
    axes.tick_params(length=0)


# --- all of it ----------------------------------------------------------------------------------------------


def tabulated(folder: Path, names: list[str], measurements: list[str]) -> dict[str, Rows]:
    """Rows of every set, computed or read, with a bar that shows how far it is."""
    jobs = [(name, m) for name in names for m in measurements if has(SETTINGS[name], m)]
    table: dict[str, Rows] = {name: {} for name in names}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("", total=len(jobs))
        for name, measurement in jobs:
            progress.update(task, description=f"{SETTINGS[name].title}: {measurement}")
            try:
                report = computed(folder, name, measurement)
                table[name] |= {row.observable: row for row in rows_of(report)}
            except ms.errors.MDSensError as error:
                progress.console.print(f"{name}, {measurement}: left out. {error}")
            progress.advance(task)
    return {name: rows for name, rows in table.items() if rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=Path("results/classic_potentials"), help="folder for tables and figure"
    )
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="parameter sets")
    parser.add_argument(
        "--measure", nargs="+", choices=MEASUREMENTS, default=BY_DEFAULT, help="groups of observables"
    )
    options = parser.parse_args()
    console, start = Console(width=120), time.perf_counter()
    table = tabulated(options.output, options.only, options.measure)
    found = {name: list(identities(name, rows)) for name, rows in table.items()}
    write(options.output, table, found)
    console.print(
        f"{time.perf_counter() - start:.0f} s; wrote table.md, table.csv, table.png to {options.output}"
    )
    broken = [line for name, each in found.items() for line in failures(name, each)]
    for line in broken:
        console.print(line)
    if broken:
        raise SystemExit(f"{len(broken)} identities do not hold")


def failures(name: str, found: list[Identity]) -> list[str]:
    """A line for each identity that does not hold."""
    return [f"{name}: {one.name} differs by {one.difference:.1e}" for one in found if not one.holds]


def write(folder: Path, table: dict[str, Rows], found: dict[str, list[Identity]]) -> None:
    """Markdown, CSV and figure, in the place of older ones."""
    lines = [line for name, rows in table.items() for line in markdown_of(name, rows)]
    text = "\n".join([*lines, *markdown_of_identities(found)])
    with new_file(folder / "table.md", True) as unfinished:
        unfinished.write_text(text)
    write_csv(folder / "table.csv", table)
    with new_file(folder / "table.png", True) as unfinished:
        draw(table).savefig(unfinished, dpi=110)


if __name__ == "__main__":
    main()
