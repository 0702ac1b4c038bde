"""`mdsens phonons`: bands, density of states and frequencies of a relaxed crystal."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mdsens.cli import options
from mdsens.cli.progress import LiveLine

if TYPE_CHECKING:
    from mdsens.observables.vibrations import Bands, LatticeVibrations

Waves = Annotated[
    list[str] | None,
    typer.Option(
        "--q",
        metavar="A,B,C",
        help="A wave in fractions of the reciprocal primitive cell, such as 1/2,0,1/2; repeat for more. "
        "Default: the special points of the lattice.",
        show_default=False,
    ),
]
PathOption = Annotated[
    str | None,
    typer.Option(
        "--path",
        metavar="POINTS",
        help="Special points that the bands run through, such as GXWKGL. Default: what ASE proposes.",
        show_default=False,
    ),
]
CellsOption = Annotated[
    str | None,
    typer.Option(
        "--supercell",
        metavar="A,B,C",
        help="Cells along each cell vector for the force constants. Default: wider than they reach.",
        show_default=False,
    ),
]
Direction = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,C",
        help="In a crystal of ions: along which q = 0 is approached, for the frequencies in the table.",
        show_default=False,
    ),
]
Mesh = Annotated[int, options.count("Waves along each reciprocal vector, for the density of states.")]
Points = Annotated[int, options.count("Waves on the path of the bands, about.", at_least=2)]


def phonons(
    structure: options.StructureFile,
    potential: options.PotentialName,
    waves: Waves = None,
    path: PathOption = None,
    supercell: CellsOption = None,
    direction: Direction = None,
    mesh: Mesh = 16,
    points: Points = 120,
    cell: options.Cell = "full",
    pressure: options.Pressure = 0.0,
    fmax: options.ForceTolerance = 1e-10,
    max_steps: options.MaxSteps = 10_000,
    parameters: options.Parameters = None,
    format: options.Format = None,
    species: options.Species = None,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Compute the vibrations of a relaxed crystal.

    Prints the frequencies at some waves. Writes PREFIX.csv (the bands), PREFIX-dos.csv (the density of
    states) and PREFIX.png (both). Derivatives of frequencies w.r.t. parameters: `mdsens sensitivity
    --observable "phonon(q=[1/2, 0, 1/2], mode=3)"`.
    """
    options.turn_on_float64()
    from mdsens.io.files import check_free
    from mdsens.observables.vibrations import LatticeVibrations, special_points
    from mdsens.observables.wave_vectors import three
    from mdsens.relaxation.relax import relax
    from mdsens.units import GPA

    prefix = options.output_prefix(output, structure, "phonons")
    names = {"csv": ".csv", "dos": "-dos.csv", "png": ".png"}
    files = {key: prefix.with_name(prefix.name + ending) for key, ending in names.items()}
    for file in files.values():
        check_free(file, overwrite)
    chosen = {text: [float(x) for x in three("--q", text.split(","))] for text in waves or ()}
    along = None if direction is None else [float(x) for x in three("--direction", direction.split(","))]
    strains = options.cell_option(cell)
    form = options.potential_option(potential, parameters)
    start = options.start_option(structure, form, format, options.species_option(species))

    console = Console()
    with LiveLine(console, f"relaxing {start.n_atoms} atoms: compiling") as line:
        relaxed = relax(
            form, start, cell=strains, pressure=pressure / GPA, fmax=fmax, max_steps=max_steps,
            progress=line.relaxation,
        )  # fmt: skip
        line("force constants")
        found = LatticeVibrations.of(relaxed, _cells(supercell))
        line("bands")
        bands = found.bands(path, points)
        density = found.density(mesh)
    at: Any = chosen or special_points(found)
    console.print(frequency_table(found, at, along))
    _write_csv(files["csv"], _band_rows(bands), overwrite)
    rows = [["frequency (THz)", "states (1/THz)"], *zip(*density, strict=True)]
    _write_csv(files["dos"], rows, overwrite)
    found.plot(files["png"], bands=bands, density=density, overwrite=overwrite)
    options.say_files(console, files)


def frequency_table(found: "LatticeVibrations", waves: dict[str, Any], direction: Any) -> Table:
    """Frequencies at some waves, a row for each."""
    table = Table(title="frequencies (THz)", title_justify="left")
    table.add_column("q")
    table.add_column("fractions")
    table.add_column("modes, ascending", justify="left")
    for name, q in waves.items():
        (row,) = found.frequencies([q], direction)
        fractions = " ".join(f"{x:.4g}" for x in q)
        # + 0.0: no -0.0000
        table.add_row(name, fractions, "  ".join(f"{x:.4f}" for x in row.round(4) + 0.0))
    return table


def _cells(text: str | None) -> list[int] | None:
    from mdsens.errors import InputError

    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise InputError(f"--supercell {text}: write three whole numbers, such as 4,4,4.")
    return [int(part) for part in parts]


def _band_rows(bands: "Bands") -> list[list[Any]]:
    modes = [f"mode {k + 1} (THz)" for k in range(bands.frequencies.shape[1])]
    head = ["distance (1/Å)", "q1", "q2", "q3", *modes]
    columns = zip(bands.distances, bands.waves, bands.frequencies, strict=True)
    return [head, *([distance, *q, *row] for distance, q, row in columns)]


def _write_csv(path: Path, rows: Any, overwrite: bool) -> None:
    import csv
    import io

    from mdsens.io.files import new_file

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with new_file(path, overwrite) as unfinished:
        Path(unfinished).write_text(text.getvalue(), encoding="utf-8")
