"""`mdsens uncertainty`: what errors of parameters make of observables of a relaxed structure."""

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mdsens.cli import options, sensitivity
from mdsens.cli.progress import LiveLine

if TYPE_CHECKING:
    from mdsens.potentials.base import Potential
    from mdsens.uncertainty import DrawsProgress, MonteCarlo, ParameterDistribution, PropagatedUncertainty


class Order(enum.StrEnum):
    """How far the derivatives go."""

    AUTO = "auto"
    FIRST = "first"
    SECOND = "second"


Errors = Annotated[
    list[str] | None,
    typer.Option(
        "--error",
        "-e",
        metavar="NAME=SIZE",
        help="Standard error of a parameter, in its unit or in percent (sigma=0.5%); repeat for more.",
        show_default=False,
    ),
]
Covariance = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="CSV: names of parameters, then their covariance.", show_default=False),
]
Samples = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="CSV: names of parameters, then a draw a line.", show_default=False),
]
Draws = Annotated[
    int,
    typer.Option(min=0, metavar="N", help="Draw so many parameters and relax again for each, to compare."),
]


def uncertainty(
    structure: options.StructureFile,
    potential: options.PotentialName,
    errors: Errors = None,
    covariance: Covariance = None,
    samples: Samples = None,
    bulk: sensitivity.Bulk = None,
    observables: sensitivity.Observables = None,
    order: Annotated[Order, typer.Option(help="auto: second order where it matters.")] = Order.AUTO,
    draws: Draws = 0,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the draws.")] = 0,
    cell: options.Cell = "none",
    pressure: options.Pressure = 0.0,
    fmax: options.ForceTolerance = 1e-10,
    fix: options.Fixed = None,
    parameters: options.Parameters = None,
    format: options.Format = None,
    species: options.Species = None,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Errors and correlations of observables of a relaxed structure, from those of the parameters.

    Prints each observable with ± one standard deviation and what contributes to it. Writes PREFIX.csv,
    PREFIX.h5 (everything) and PREFIX.png (correlations and contributions).
    """
    options.turn_on_float64()
    from mdsens.io.files import check_free
    from mdsens.uncertainty import monte_carlo, propagate
    from mdsens.units import GPA

    prefix = options.output_prefix(output, structure, "uncertainty")
    files = {ending: prefix.with_name(f"{prefix.name}.{ending}") for ending in ("csv", "h5", "png")}
    for file in files.values():
        check_free(file, overwrite)
    form = options.potential_option(potential, parameters)
    known = _distribution(form, errors, covariance, samples)
    start = options.start_option(structure, form, format, options.species_option(species), fix)
    crystal = sensitivity.read_beside(bulk, None, species) if bulk else None
    names = observables or sensitivity.default_names(start, crystal)
    chosen = sensitivity.chosen_observables(names, crystal is not None, {})
    states = {"structure": start} if crystal is None else {"defect": start, "bulk": crystal}
    relaxed: dict[str, Any] = {
        "cell": options.cell_option(cell),
        "pressure": pressure / GPA,
        "fmax": fmax,
    }
    second = {Order.AUTO: None, Order.FIRST: False, Order.SECOND: True}[order]
    console, drawn = Console(), None
    with LiveLine(console, "reading") as line:
        found = propagate(chosen, form, states, known, second_order=second, progress=line, **relaxed)
        if draws:
            drawn = monte_carlo(
                chosen, form, states, known, draws=draws, seed=seed, progress=_telling(line), **relaxed
            )
    console.print(found.table())
    console.print(found.contribution_table())
    if drawn is not None:
        console.print(_comparison(found, drawn))
    found.to_csv(files["csv"], overwrite=overwrite)
    found.to_hdf5(files["h5"], overwrite=overwrite)
    found.plot(files["png"], overwrite=overwrite)
    options.say_files(console, files)


def _distribution(
    form: "Potential", errors: list[str] | None, covariance: Path | None, samples: Path | None
) -> "ParameterDistribution":
    from mdsens.errors import InputError
    from mdsens.uncertainty import ParameterDistribution, read_covariance, read_samples

    if sum(given is not None and given != [] for given in (errors, covariance, samples)) != 1:
        raise InputError("say how sure the parameters are by one of --error, --covariance and --samples.")
    if covariance is not None:
        return read_covariance(form, covariance)
    if samples is not None:
        return read_samples(form, samples)
    texts = options.named_values(errors, "--error", "sigma=0.01 or sigma=0.5%")
    sizes = {name: _size(form, name, text) for name, text in texts.items()}
    return ParameterDistribution.from_errors(form, sizes)


def _size(form: "Potential", name: str, text: str) -> float:
    """An error in the unit of the parameter."""
    from mdsens.errors import InputError
    from mdsens.potentials.parameters import parameter_values

    try:
        value = float(text.removesuffix("%"))
    except ValueError as error:
        message = f"--error {name}={text}: write a number, or percent, such as {name}=0.5%."
        raise InputError(message) from error
    if not text.endswith("%"):
        return value
    return value / 100 * abs(parameter_values(form).get(name, 0.0))  # an unknown name is refused later


def _telling(line: Any) -> Any:
    def tell(now: "DrawsProgress") -> None:
        line(f"relaxing draw {now.done} of {now.draws}, {now.lost} lost")

    return tell


def _comparison(found: "PropagatedUncertainty", drawn: "MonteCarlo") -> Any:
    from rich.table import Table

    table = Table(
        title=f"{len(drawn.values)} draws relaxed again, {len(drawn.lost)} lost", title_justify="left"
    )
    for header in ("observable", "mean", "off by", "±", "off by"):
        table.add_column(header, justify="left" if header == "observable" else "right")
    of_means, of_errors = drawn.against(found)
    for i, name in enumerate(found.observables):
        mean = f"{drawn.means[i]:.6g} {drawn.units[i]}"
        off, error_off = f"{of_means[i]:+.1f} σ", f"{of_errors[i]:+.1f} σ"
        table.add_row(name.replace("[", r"\["), mean, off, f"{drawn.errors[i]:.2g}", error_off)
    return table
