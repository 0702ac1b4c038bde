"""Frames of a molecule for other programs: mdtraj's topology and HDF5 convention, and files by their ending.

The root of an HDF5 file in mdtraj's convention has datasets in nm, ps and kJ/mol, float32, and the topology
as JSON; `mdtraj.load` opens it. Further datasets do not disturb it.

Source: the HDF5 format of mdtraj, convention "Pande" 1.1.
"""

import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mdsens.errors import InputError
from mdsens.io.files import new_file
from mdsens.structure import Structure
from mdsens.units import to_nm

HDF5 = (".h5", ".hdf5")
BY_MDTRAJ = (".dcd", ".xtc", ".nc")
BY_ASE = (".extxyz", ".traj", ".xyz", ".pdb")


def check_ending(path: str | Path) -> str:
    """The ending of a file that frames can be written to.

    Raises:
        InputError: another one.
    """
    ending = Path(path).suffix.lower()
    if ending not in (*HDF5, *BY_MDTRAJ, *BY_ASE):
        raise InputError(
            f"'{path}': a trajectory is written as one of {', '.join((*HDF5, *BY_MDTRAJ, *BY_ASE))}. "
            ".h5 keeps everything."
        )
    return ending


def write_frames(
    path: str | Path,
    positions: Float[np.ndarray, "frames atoms 3"],
    species: Sequence[int],
    *,
    pdb: str = "",
    info: Sequence[Mapping[str, float]] = (),
    overwrite: bool = False,
) -> None:
    """Write frames of a free molecule in the format that the ending names; not HDF5.

    Args:
        path: one of `BY_MDTRAJ` or `BY_ASE`.
        positions: Å.
        species: atomic numbers.
        pdb: the molecule as PDB text, for the names of atoms and residues in .pdb; may be empty.
        info: numbers of each frame, for formats that ASE writes and that have a place for them.
    Raises:
        InputError: positions of other atoms, or what the writer met.
        OutputExistsError: the file exists, and `overwrite` is False.
    """
    if positions.shape[1:] != (len(species), 3):
        raise InputError(
            f"positions of shape {positions.shape} do not belong to {len(species)} atoms: give (frames, "
            f"{len(species)}, 3)."
        )
    ending = Path(path).suffix.lower()
    if ending in BY_MDTRAJ or (ending == ".pdb" and pdb):
        import mdtraj

        topology = mdtraj_topology(species, pdb)
        frames: Any = mdtraj.Trajectory(to_nm(positions).astype(np.float32), topology)
        save_frames(path, overwrite, lambda file: frames.save(str(file)))
        return
    atoms = [Structure.create(frame, species).to_ase() for frame in positions]
    for one, numbers in zip(atoms, info, strict=False):
        one.info.update(numbers)
    save_with_ase(path, atoms, overwrite)


def save_with_ase(path: str | Path, frames: list[Any], overwrite: bool) -> None:
    """Frames of ASE in the format of the ending."""
    import ase.io

    ending = Path(path).suffix.lower()
    form = "proteindatabank" if ending == ".pdb" else ending[1:]
    save_frames(path, overwrite, lambda file: ase.io.write(file, frames, format=form))


def save_frames(path: str | Path, overwrite: bool, save: Callable[[Path], Any]) -> None:
    """All of a file or nothing, by a writer of ASE or mdtraj."""
    with new_file(path, overwrite) as unfinished, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on which library writes netCDF
        try:
            save(unfinished)
        except OSError:
            raise
        except Exception as error:  # whatever the writers of ASE and mdtraj meet
            raise InputError(
                f"'{path}' cannot be written: {type(error).__name__}: {error}. .h5 keeps everything."
            ) from error


# --- mdtraj ---------------------------------------------------------------------------------------------


def mark_convention(file: Any, species: Sequence[int], pdb: str = "") -> None:
    """Attributes and topology by which mdtraj knows its HDF5 files."""
    from mdsens import __version__

    file.attrs["conventions"], file.attrs["conventionVersion"] = "Pande", "1.1"
    file.attrs["program"], file.attrs["programVersion"] = "mdsens", __version__
    file.attrs["application"] = file.attrs["title"] = "mdsens"
    tree = _topology_tree(mdtraj_topology(species, pdb))
    file["topology"] = np.array([json.dumps(tree).encode("ascii")])


def put_quantity(file: Any, name: str, values: Any, unit: str) -> None:
    """A dataset of mdtraj's convention: float32, with its unit."""
    file[name] = np.asarray(values).astype(np.float32)
    # mdtraj looks for `units`, mdsens for `unit`
    file[name].attrs["units"] = file[name].attrs["unit"] = unit


def mdtraj_topology(species: Sequence[int], pdb: str = "") -> Any:
    """mdtraj's topology: of the PDB text, or one residue of all atoms."""
    import mdtraj

    if pdb:
        with tempfile.TemporaryDirectory() as folder:  # mdtraj reads files, and no texts
            file = Path(folder) / "molecule.pdb"
            file.write_text(pdb, encoding="utf-8")
            return mdtraj.load_topology(str(file))
    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain())
    for k, z in enumerate(species):
        element = mdtraj.element.Element.getByAtomicNumber(z)
        topology.add_atom(f"{element.symbol}{k + 1}", element, residue)
    return topology


def _topology_tree(topology: Any) -> dict[str, Any]:
    """The topology as mdtraj keeps it in JSON."""
    chains = [
        {"index": chain.index, "residues": [_residue(r) for r in chain.residues]} for chain in topology.chains
    ]
    return {"chains": chains, "bonds": [[bond[0].index, bond[1].index] for bond in topology.bonds]}


def _residue(residue: Any) -> dict[str, Any]:
    atoms = [{"index": a.index, "name": a.name, "element": a.element.symbol} for a in residue.atoms]
    return {
        "index": residue.index,
        "name": residue.name,
        "resSeq": residue.resSeq,
        "segmentID": residue.segment_id,
        "atoms": atoms,
    }
