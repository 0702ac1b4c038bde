"""Force fields of molecules as OpenMM writes them down: a System, from Python or from its XML file.

A System lists particles and forces with every number in it, in nm, kJ/mol, u and e; names of atom types are
gone. Terms with the same numbers between the same types of atoms are one type here, and names are made of
elements, or of what the caller calls the atoms.

    field = openmm.app.ForceField("amber99sbildn.xml")
    system = field.createSystem(pdb.topology)          # no constraints: atoms relax
    potential = ms.read_openmm(system, pdb.topology)   # or of the file "system.xml", without OpenMM
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from mdsens.checks import existing_file
from mdsens.errors import FileFormatError, InputError
from mdsens.molecules.bonds import read_bonds
from mdsens.potentials.base import Potential
from mdsens.potentials.bonded import HarmonicAngles, HarmonicBonds, PeriodicDihedrals
from mdsens.potentials.cutoffs import Smooth, Truncated
from mdsens.potentials.nonbonded import MolecularCharges, MolecularLennardJones
from mdsens.potentials.sums import SumPotential
from mdsens.units import KJ_PER_MOL, NM

SOURCE = "OpenMM System"
NO_CUTOFF, CUT_CLUSTER, CUT_CRYSTAL, EWALD, PME, LJ_PME = range(6)  # OpenMM's nonbonded methods
SAME = 1e-6  # relative: 1-4 pairs count by one fraction, to what was rounded
# forces of OpenMM that have no energy
SILENT = (
    "CMMotionRemover",
    "AndersenThermostat",
    "MonteCarloBarostat",
    "MonteCarloAnisotropicBarostat",
    "MonteCarloMembraneBarostat",
    "MonteCarloFlexibleBarostat",
)
REMEDIES = {
    "GBSAOBCForce": "Create the System without implicit solvent.",
    "CMAPTorsionForce": "Use a force field without correction maps, such as amber99sbildn or amber14.",
    "RBTorsionForce": "Write it as a PeriodicTorsionForce: a sum of cosines of multiples of the angle.",
}


def read_openmm(
    system: Any,
    topology: Any = None,
    *,
    types: Sequence[str] | None = None,
    accuracy: float = 1e-12,
) -> SumPotential:
    """The potential of an OpenMM System.

    Harmonic bonds and angles, periodic dihedrals and impropers, Lennard-Jones with Lorentz-Berthelot rules,
    charges, exclusions and scaled 1-4 pairs: Amber and its like. Charges of a periodic System are summed by
    Ewald to `accuracy`, whether it says Ewald or PME: OpenMM's own numbers differ by its error tolerance.

    Args:
        system: an `openmm.System`, or the path of one that `openmm.XmlSerializer` has written; OpenMM is then
            not needed.
        topology: of the same atoms in the same order, for names; see `mdsens.molecules.bonds.read_bonds`.
        types: a name for each atom instead, such as the type in the force field, ["HC", "CT", ...].
        accuracy: of sums over charges, see `Ewald`.
    Returns:
        A sum whose parts are `HarmonicBonds`, `HarmonicAngles`, `PeriodicDihedrals`, `MolecularLennardJones`
        and `MolecularCharges`, as far as the System has them.
    Raises:
        InputError: constraints or virtual sites; a force that has no counterpart here, reaction fields among
            them; atoms that are not those of the topology.
        FileFormatError: no such file, or no System in it.
    """
    root = _xml_of(system)
    _check_supported(root)
    names = _names(root, topology, types)
    forces = [force for force in root.iterfind("Forces/Force") if force.get("type") not in SILENT]
    atoms = _atom_types(names, forces)
    parts: list[Potential] = []
    for force in forces:
        parts += _READERS[force.get("type", "")](force, atoms, accuracy)
    if not parts:
        raise InputError("this System has no forces: its energy is zero.")
    return SumPotential(tuple(parts))


def read_openmm_file(path: Path, elements: Sequence[str] | None = None) -> SumPotential:
    """The same of a file, for `load_potential`.

    Raises:
        InputError: elements are asked for.
    """
    if elements is not None:
        raise InputError(
            f"elements = {list(elements)}: a System knows its atoms by number, and gives parameters for all "
            "of them. Leave the elements out."
        )
    return read_openmm(path)


# --- the System as XML


def _xml_of(system: Any) -> Element:
    if isinstance(system, str | Path):
        path = existing_file(system)
        try:
            root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        except (ElementTree.ParseError, UnicodeDecodeError) as error:
            raise FileFormatError(f"'{path}' is no XML file: {error}.") from error
        where = f"'{path}'"
    elif type(system).__module__.split(".")[0] == "openmm":
        import openmm

        root, where = ElementTree.fromstring(openmm.XmlSerializer.serialize(system)), "the object"
    else:
        raise InputError(
            f"a {type(system).__module__}.{type(system).__name__} is no System: give an openmm.System, as "
            "ForceField.createSystem returns it, or the path of its XML file."
        )
    if root.tag != "System":
        raise FileFormatError(
            f"{where} holds a <{root.tag}> and no <System>: write one with "
            "openmm.XmlSerializer.serialize(system). (A <ForceField> needs OpenMM and a topology: "
            "openmm.app.ForceField(file).createSystem(topology).)"
        )
    return root


def _check_supported(root: Element) -> None:
    if (count := len(root.findall("Constraints/Constraint"))) > 0:
        raise InputError(
            f"the System has {count} constraints, and atoms relax freely here: create it with "
            "constraints=None, rigidWater=False. (Bonds that were constrained then are springs, if the force "
            "field has their stiffness.)"
        )
    for k, particle in enumerate(root.iterfind("Particles/Particle")):
        if len(particle):
            raise InputError(
                f"particle {k} is a virtual site ({particle[0].tag}), which has no counterpart here: use a "
                "model without, such as TIP3P."
            )
    for force in root.iterfind("Forces/Force"):
        kind = force.get("type", "")
        if kind not in _READERS and kind not in SILENT:
            known = ", ".join(_READERS)
            raise InputError(
                f"the System has a {kind}, which has no counterpart here; there is one of {known}. "
                f"{REMEDIES.get(kind, 'Remove it, or add a potential of your own for it: a + b.')}"
            )


# --- names


class _AtomTypes(NamedTuple):
    """What the atoms are called.

    Attributes:
        types: names of the types. kind: type of each atom.
        names: name of each atom, if a topology says it.
    """

    types: tuple[str, ...]
    kind: list[int]
    names: list[str] | None

    def of(self, atoms: Sequence[int]) -> str:
        """Their types in a row, from whichever end comes first in the alphabet."""
        row = [self.types[self.kind[k]] for k in atoms]
        return "-".join(min(row, row[::-1]))


class _Names(NamedTuple):
    """What is known of the atoms: a name for their type, whether that is an element, and their own names."""

    kinds: list[str]
    elements: bool
    atoms: list[str] | None


def _names(root: Element, topology: Any, types: Sequence[str] | None) -> _Names:
    from ase.data import chemical_symbols

    masses = [float(particle.get("mass", 0)) for particle in root.iterfind("Particles/Particle")]
    bonds = None if topology is None else read_bonds(topology)
    if bonds is not None and bonds.n_atoms != len(masses):
        raise InputError(
            f"the topology has {bonds.n_atoms} atoms and the System {len(masses)} particles: give the "
            "topology that the System was made for."
        )
    atoms = None if bonds is None else list(bonds.names)
    if types is not None:
        if len(types) != len(masses):
            raise InputError(f"{len(types)} types for {len(masses)} particles: give one for each.")
        return _Names([str(name) for name in types], False, atoms)
    if bonds is not None:
        return _Names([chemical_symbols[z] for z in bonds.numbers], True, atoms)
    return _Names([_symbol(mass) for mass in masses], True, None)


def _symbol(mass: float) -> str:
    from ase.data import atomic_masses, chemical_symbols

    standard = np.nan_to_num(np.asarray(atomic_masses), nan=np.inf)
    closest = int(np.argmin(np.abs(standard - mass)))
    return chemical_symbols[closest] if mass > 0 else "X"


def _atom_types(names: _Names, forces: list[Element]) -> _AtomTypes:
    """Atoms of one name and one Lennard-Jones well are of one type."""
    wells: list[tuple[float, ...]] = [()] * len(names.kinds)
    for force in forces:
        if force.get("type") == "NonbondedForce":
            wells = [_numbers(p, "sig", "eps") for p in force.iterfind("Particles/Particle")]
    groups = _grouped(names.kinds, wells, "" if names.elements else "#")
    return _AtomTypes(groups.labels, groups.kind, names.atoms)


class _Groups(NamedTuple):
    """Things of one name and one set of values: a label for each group, its values, and who is in it."""

    labels: tuple[str, ...]
    values: np.ndarray
    kind: list[int]


def _grouped(names: Sequence[str], values: Sequence[tuple[float, ...]], mark: str = "#") -> _Groups:
    keys = list(zip(names, values, strict=True))
    found = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    count = Counter(name for name, _ in found)
    seen: Counter[str] = Counter()
    labels = []
    for name, _ in found:
        seen[name] += 1
        number = f"{mark}{seen[name]}" if count[name] > 1 else ""
        labels.append(name + number)
    table = np.array([list(v) for _, v in found], float)
    return _Groups(tuple(labels), table, [found[key] for key in keys])


# --- forces

Reader = Callable[[Element, _AtomTypes, float], list[Potential]]


def _numbers(entry: Element, *keys: str) -> tuple[float, ...]:
    try:
        return tuple(float(entry.attrib[key]) for key in keys)
    except (KeyError, ValueError) as error:
        there = dict(entry.attrib)
        raise FileFormatError(
            f"<{entry.tag}> has the attributes {there}; the numbers {', '.join(keys)} must be among them."
        ) from error


def _members(entry: Element, count: int) -> tuple[int, ...]:
    keys = [f"p{k + 1}" for k in range(count)]
    return tuple(int(k) for k in _numbers(entry, *keys))


def _bonds(force: Element, atoms: _AtomTypes, accuracy: float) -> list[Potential]:
    entries = force.findall("Bonds/Bond")
    members = [_members(entry, 2) for entry in entries]
    values = [_numbers(entry, "k", "d") for entry in entries]
    groups = _grouped([atoms.of(m) for m in members], values)
    if not entries:
        return []
    units = np.array([[KJ_PER_MOL / NM**2], [NM]])
    k, r0 = groups.values.T * units
    return [HarmonicBonds(k=k, r0=r0, **_terms(groups, members))]


def _angles(force: Element, atoms: _AtomTypes, accuracy: float) -> list[Potential]:
    entries = force.findall("Angles/Angle")
    members = [_members(entry, 3) for entry in entries]
    values = [_numbers(entry, "k", "a") for entry in entries]
    groups = _grouped([atoms.of(m) for m in members], values)
    if not entries:
        return []
    k, theta0 = groups.values.T * np.array([[KJ_PER_MOL], [1.0]])
    return [HarmonicAngles(k=k, theta0=theta0, **_terms(groups, members))]


def _dihedrals(force: Element, atoms: _AtomTypes, accuracy: float) -> list[Potential]:
    entries = force.findall("Torsions/Torsion")
    members = [_members(entry, 4) for entry in entries]
    values = [_numbers(entry, "k", "phase", "periodicity") for entry in entries]
    names = [
        f"{atoms.of(bonded)}:{periodicity:.0f}"
        for bonded, (_, _, periodicity) in zip(members, values, strict=True)
    ]
    groups = _grouped(names, values)
    if not entries:
        return []
    k, phi0, n = groups.values.T
    k = k * KJ_PER_MOL
    return [PeriodicDihedrals(k=k, phi0=phi0, n=n.astype(int), **_terms(groups, members))]


def _terms(groups: _Groups, members: list[tuple[int, ...]]) -> dict[str, Any]:
    """Who is bonded, as the forms take it."""
    return {"types": groups.labels, "atoms": members, "kind": groups.kind, "source": SOURCE}


def _nonbonded(force: Element, atoms: _AtomTypes, accuracy: float) -> list[Potential]:
    for name in ("ParticleOffsets", "ExceptionOffsets"):
        if len(force.findall(f"{name}/*")):
            raise InputError(
                f"the NonbondedForce has {name}, whose parameters are not known here: remove them."
            )
    particles = [_numbers(p, "q", "sig", "eps") for p in force.iterfind("Particles/Particle")]
    exceptions = _exceptions(force)
    parts: list[Potential] = []
    if any(eps for *_, eps in particles):
        parts.append(_lennard_jones(force, atoms, particles, exceptions))
    if any(q for q, *_ in particles):
        parts.append(_charges(force, atoms, particles, exceptions, accuracy))
    return parts


class _Exception(NamedTuple):
    """A pair of atoms with numbers of its own: product of charges, sigma and epsilon, in OpenMM's units."""

    pair: tuple[int, int]
    qq: float
    sigma: float
    epsilon: float


def _exceptions(force: Element) -> list[_Exception]:
    entries = force.iterfind("Exceptions/Exception")
    return [_Exception(*_pair(entry), *_numbers(entry, "q", "sig", "eps")) for entry in entries]


def _pair(entry: Element) -> tuple[tuple[int, int]]:
    i, j = _members(entry, 2)
    return ((i, j),)


def _lennard_jones(
    force: Element,
    atoms: _AtomTypes,
    particles: list[tuple[float, ...]],
    exceptions: list[_Exception],
) -> MolecularLennardJones:
    method = int(force.get("method", 0))
    wells = {kind: particles[k][1:] for k, kind in enumerate(atoms.kind)}
    of_types = [wells[kind] for kind in range(len(atoms.types))]
    sigma, epsilon = np.array(of_types).T
    ratios = {}
    for pair, _, own_sigma, own_epsilon in exceptions:
        first, second = (particles[k] for k in pair)
        _, sigma_i, epsilon_i = first
        _, sigma_j, epsilon_j = second
        if own_epsilon == 0:
            continue
        mixed = np.isclose(own_sigma, (sigma_i + sigma_j) / 2, rtol=SAME)
        if not mixed or epsilon_i * epsilon_j == 0:
            raise InputError(_not_scaled("Lennard-Jones", pair))
        ratios[pair] = own_epsilon / np.sqrt(epsilon_i * epsilon_j)
    # a particle without well may have any sigma
    unused = (epsilon == 0) & (sigma == 0)
    settings: dict[str, Any] = {"types": atoms.types, "kind": atoms.kind}
    settings["epsilon"] = epsilon * KJ_PER_MOL
    settings["sigma"] = np.where(unused, 0.1, sigma) * NM
    settings |= _ending(force, method)
    return MolecularLennardJones(**settings, **_left_out("Lennard-Jones", exceptions, ratios))


def _ending(force: Element, method: int) -> dict[str, Any]:
    """Where and how the wells end, and whether what lies beyond is counted, as the form takes it."""
    end, onset = _numbers(force, "cutoff", "switchingDistance")
    counted = force.get("dispersionCorrection") == "1"
    tail = counted and method in (CUT_CRYSTAL, EWALD, PME)
    if method == NO_CUTOFF:
        return {"cutoff_radius": np.inf, "cut": Truncated(), "tail": tail}
    switched = force.get("useSwitchingFunction") == "1"
    cut = Smooth(onset / end) if switched else Truncated()
    return {"cutoff_radius": end * NM, "cut": cut, "tail": tail}


def _left_out(
    what: str, exceptions: list[_Exception], ratios: dict[tuple[int, int], float]
) -> dict[str, Any]:
    """Excluded and scaled pairs, as the forms take them."""
    return {
        "excluded": [exception.pair for exception in exceptions],
        "scaled": list(ratios),
        "scale14": _one_fraction(what, ratios),
        "source": SOURCE,
    }


def _charges(
    force: Element,
    atoms: _AtomTypes,
    particles: list[tuple[float, ...]],
    exceptions: list[_Exception],
    accuracy: float,
) -> MolecularCharges:
    method = int(force.get("method", 0))
    if method not in (NO_CUTOFF, EWALD, PME):
        what = "Lennard-Jones by PME" if method == LJ_PME else "charges cut off in a reaction field"
        raise InputError(
            f"the NonbondedForce has {what}, which has no counterpart here: create the System with "
            "nonbondedMethod=PME or Ewald for a crystal or liquid, or NoCutoff for a molecule."
        )
    q = [values[0] for values in particles]
    labels, values, kind = _charge_groups(atoms, q)
    ratios = {}
    for exception in exceptions:
        i, j = exception.pair
        if exception.qq == 0:
            continue
        if q[i] * q[j] == 0:
            raise InputError(_not_scaled("charges", exception.pair))
        ratios[exception.pair] = exception.qq / (q[i] * q[j])
    settings: dict[str, Any] = {"charge": values, "types": labels, "kind": kind, "accuracy": accuracy}
    if method != NO_CUTOFF:
        settings["cutoff_radius"] = _numbers(force, "cutoff")[0] * NM
    return MolecularCharges(**settings, **_left_out("charges", exceptions, ratios))


def _charge_groups(atoms: _AtomTypes, q: list[float]) -> tuple[tuple[str, ...], np.ndarray, list[int]]:
    """Atoms of one type and one charge are one group, called by its first atom, or else by the type."""
    types = [atoms.types[kind] for kind in atoms.kind]
    groups = _grouped(types, [(value,) for value in q])
    labels = groups.labels
    if atoms.names is not None:
        firsts = [groups.kind.index(k) for k in range(len(labels))]
        labels = tuple(atoms.names[k] for k in firsts)
    return labels, groups.values[:, 0], groups.kind


def _one_fraction(what: str, ratios: dict[tuple[int, int], float]) -> float | None:
    if not ratios:
        return None
    fraction = float(np.mean(list(ratios.values())))
    for pair, ratio in ratios.items():
        if abs(ratio - fraction) > SAME * abs(fraction):
            raise InputError(_not_scaled(what, pair))
    return fraction


def _not_scaled(what: str, pair: tuple[int, int]) -> str:
    return (
        f"the {what} of particles {pair[0]} and {pair[1]} is an exception that is not the one fraction of "
        "the usual interaction that all others are: such pairs with numbers of their own are not supported. "
        "Exclude the pair in the System, and add a potential of your own for it: a + b."
    )


_READERS: dict[str, Reader] = {
    "HarmonicBondForce": _bonds,
    "HarmonicAngleForce": _angles,
    "PeriodicTorsionForce": _dihedrals,
    "NonbondedForce": _nonbonded,
}
