"""What a topology file says: the atoms of a molecule and its bonds."""

from pathlib import Path
from typing import Any, NamedTuple

from mdsens.checks import existing_file
from mdsens.errors import FileFormatError


class Molecule(NamedTuple):
    """What a topology file says.

    Attributes:
        topology: of mdtraj, or ASE's atoms.
        species: atomic numbers.
        pdb: the file's text if it is a PDB file, else empty.
    """

    topology: Any
    species: tuple[int, ...]
    pdb: str


def read_molecule(path: str | Path, *, format: str | None = None) -> Molecule:
    """Atoms and bonds of a molecule.

    Args:
        path: PDB, or any structure file that ASE reads.
        format: name of the format as in ASE ("xyz", "extxyz", ...), or "pdb"; by default the name says it.
    Raises:
        FileFormatError: no such file, or neither mdtraj nor ASE reads it.
    """
    path = existing_file(path)
    if format == "pdb" or (format is None and path.suffix.lower() == ".pdb"):
        return _read_pdb(path)
    from mdsens.io.structures import read_atoms

    atoms = read_atoms(path, format=format)
    return Molecule(atoms, tuple(int(z) for z in atoms.numbers), "")


def _read_pdb(path: Path) -> Molecule:
    try:
        topology: Any = _load_pdb(path)
    except Exception as error:  # whatever its parser meets
        raise FileFormatError(f"'{path}' cannot be read as PDB: {type(error).__name__} {error}.") from error
    if any(atom.element is None or atom.element.number < 1 for atom in topology.atoms):
        raise FileFormatError(
            f"'{path}' has atoms whose element is not known: fill the element column of the PDB file."
        )
    species = tuple(atom.element.number for atom in topology.atoms)
    return Molecule(topology, species, path.read_text(encoding="utf-8"))


def _load_pdb(path: Path) -> Any:
    """Of a file of any name: mdtraj goes by the ending."""
    import tempfile

    import mdtraj

    if path.suffix.lower() == ".pdb":
        return mdtraj.load_topology(str(path))
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / "molecule.pdb"
        named.write_bytes(path.read_bytes())
        return mdtraj.load_topology(str(named))
