"""The conformance test: what mdsens, and physics, ask of any potential, with numbers for what fails."""

from typing import NamedTuple

from mdsens.errors import ConformanceError
from mdsens.potentials.base import Potential, check_elements
from mdsens.potentials.parameters import check_parameters
from mdsens.precision import require_x64
from mdsens.structure import Structure
from mdsens.testing.awkward import check_awkward_points, cutoff_smoothness
from mdsens.testing.bench import Bench
from mdsens.testing.changes import parameters
from mdsens.testing.invariances import invariances, locality
from mdsens.testing.moves import derivatives
from mdsens.testing.probe import Check


class ConformanceReport(NamedTuple):
    """What `check_potential` found.

    Attributes:
        potential: its form. checks: every claim with its numbers. left_out: claims that could not be tested,
            and why.
        at_cutoff: what jumps where the interaction ends.
    """

    potential: str
    checks: tuple[Check, ...]
    left_out: tuple[str, ...]
    at_cutoff: str

    @property
    def holds(self) -> bool:
        """True if every claim holds."""
        return all(check.holds for check in self.checks)

    def __str__(self) -> str:
        verdict = "conforms" if self.holds else "does not conform"
        lines = [f"{self.potential}: {verdict}"]
        lines += map(str, self.checks)
        lines += [f"-      {text}" for text in self.left_out]
        lines.append(f"-      at the cutoff: {self.at_cutoff}")
        return "\n".join(lines)


def check_potential(
    potential: Potential,
    structure: Structure,
    *,
    rtol: float = 1e-7,
    clusters: bool = True,
    seed: int = 0,
    throw: bool = True,
) -> ConformanceReport:
    """Test that a potential is what mdsens takes it for.

    Forces and stress are derivatives of the energy; the energy does not change with shifts, turns, the order
    of atoms, their periodic images, spare slots of the neighbor list, and doubles with the cell; slabs and
    clusters are cells with vacuum; the Hessian is symmetric; atoms out of range of each other feel nothing of
    each other if the form is local; derivatives by parameters, first and second, are right, the same forward
    and in reverse; all are finite also at awkward points (an atom alone, a pair exactly at the cutoff, atoms
    in a line).

    Args:
        structure: some 10 to 100 atoms without symmetry: rattle a crystal. Periodic along at least one vector
            tests most.
        rtol: deviation allowed in derivatives, relative to the largest.
        clusters: also compute clusters of three atoms. False for a potential made for one number of atoms.
        seed: of the random directions.
        throw: raise if a claim fails; otherwise read the report.

    Raises:
        ConformanceError: a claim fails; `.partial` is the report.
        InputError: the potential has no parameters for an element of the structure, or a parameter out of its
        bounds.
    """
    require_x64()
    check_parameters(potential)
    check_elements(potential, structure)
    bench = Bench(potential, structure, rtol, seed)
    checks = []
    for part in (derivatives, parameters, invariances, locality):
        checks += part(bench)
    at_cutoff = "not looked at"
    if clusters:
        checks += check_awkward_points(potential, structure)
        at_cutoff = cutoff_smoothness(potential, structure)
    report = ConformanceReport(type(potential).__name__, tuple(checks), tuple(bench.left_out), at_cutoff)
    if throw and not report.holds:
        failing = "; ".join(str(check).removeprefix("FAILS  ") for check in checks if not check.holds)
        raise ConformanceError(f"{report.potential} does not conform. {failing}.", report)
    return report
