"""What a simulation recorded, and what one reads off it: temperature, and how well energy was conserved."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from mdsens.dynamics import files
from mdsens.dynamics.freedom import count_freedom
from mdsens.errors import InputError
from mdsens.structure import Structure
from mdsens.units import ACCELERATION, BOLTZMANN, to_kJ_per_mol

# what has an axis for the replicas
OF_EACH_REPLICA = (
    "positions",
    "velocities",
    "potential",
    "kinetic",
    "forces",
    "conserved",
    "stress",
    "cell_velocity",
)


class Drift(NamedTuple):
    """How far the total energy of each replica is from constant, per degree of freedom.

    Attributes:
        fluctuation: standard deviation over the run, kJ/mol per degree of freedom. It holds the oscillation
            of the integrator, jumps and drift alike.
        slope: of a straight line through it, kJ/mol per degree of freedom and ns.
        degrees_of_freedom: by which both were divided.
    """

    fluctuation: Float[np.ndarray, "*replicas"] | float
    slope: Float[np.ndarray, "*replicas"] | float
    degrees_of_freedom: int


class Trajectory(eqx.Module):
    """The records of a simulation; the first one is the start. Replicas, if any, are the second axis.

    Attributes:
        time: fs.
        positions: Å.
        velocities: Å/fs, at the same time as the positions.
        potential: eV, up to a constant.
        kinetic: eV.
        masses: u.
        species: atomic numbers.
        temperature: of the bath, or of the velocities that were drawn, K; None if neither was.
        timestep: fs.
        friction: 1/fs; None without a bath.
        seed: of the random numbers.
        forces: eV/Å; None if they were not recorded.
        cell: rows are the cell vectors, Å; None without a cell, one for each record (and replica) where it
            changes.
        pbc: periodic along each cell vector.
        fixed: True where a coordinate is held; None if none is.
        topology: the molecule as PDB text; may be empty.
        conserved: the quantity that the run conserves but for the error of its timestep, eV; None if it was
            not recorded.
        stress: of the potential alone, eV/Å³, positive in tension; None without a cell.
        cell_velocity: velocity gradient of a cell that moves, 1/fs; None of one that does not.
        pressure: that acts on the cell, eV/Å³; None if it does not move.
        charges: e; None if the atoms have none.
        columns: further numbers of each atom by name, as `Structure.columns`.
        thermostat_time: in which a chain of thermostats acts, fs; None without.
    """

    time: Float[np.ndarray, " records"]
    positions: Float[np.ndarray, "records *replicas atoms 3"]
    velocities: Float[np.ndarray, "records *replicas atoms 3"]
    potential: Float[np.ndarray, "records *replicas"]
    kinetic: Float[np.ndarray, "records *replicas"]
    masses: Float[np.ndarray, " atoms"]
    species: tuple[int, ...] = eqx.field(static=True)
    temperature: float | None = eqx.field(static=True)
    timestep: float = eqx.field(static=True)
    friction: float | None = eqx.field(static=True, default=None)
    seed: int = eqx.field(static=True, default=0)
    forces: Float[np.ndarray, "records *replicas atoms 3"] | None = None
    cell: Float[np.ndarray, "3 3"] | Float[np.ndarray, "records *replicas 3 3"] | None = None
    pbc: tuple[bool, bool, bool] = eqx.field(static=True, default=(False, False, False))
    fixed: Bool[np.ndarray, "atoms 3"] | None = None
    topology: str = eqx.field(static=True, default="")
    conserved: Float[np.ndarray, "records *replicas"] | None = None
    stress: Float[np.ndarray, "records *replicas 3 3"] | None = None
    cell_velocity: Float[np.ndarray, "records *replicas 3 3"] | None = None
    pressure: float | None = eqx.field(static=True, default=None)
    thermostat_time: float | None = eqx.field(static=True, default=None)
    charges: Float[np.ndarray, " atoms"] | None = None
    columns: dict[str, Float[np.ndarray, "atoms ..."]] = eqx.field(default_factory=dict)

    @property
    def total(self) -> Float[np.ndarray, "records *replicas"]:
        """Potential and kinetic energy, eV."""
        return self.potential + self.kinetic

    @property
    def freedom(self) -> int:
        """Coordinates that share the kinetic energy.

        3 for each atom, less those held; less 3 if the center of mass rests, and 3 more if a free cluster
        does not turn.
        """
        return count_freedom(self.masses, self.fixed, self.pbc, self.positions, self.velocities)

    @property
    def temperatures(self) -> Float[np.ndarray, "records *replicas"]:
        """Temperature that belongs to the kinetic energy, K: 2 K / k, for each coordinate that moves."""
        return 2 * self.kinetic / (max(self.freedom, 1) * BOLTZMANN)

    @property
    def volumes(self) -> Float[np.ndarray, "records *replicas"]:
        """Volume of the cell, Å³.

        Raises:
            InputError: there is no cell.
        """
        if self.cell is None:
            raise InputError("these atoms have no cell, and so no volume: the structure was a cluster.")
        found = np.abs(np.linalg.det(self._cells()))
        replicas = (1,) * (self.potential.ndim - found.ndim)
        return np.broadcast_to(found.reshape(*found.shape, *replicas), self.potential.shape)

    @property
    def pressures(self) -> Float[np.ndarray, "records *replicas 3 3"]:
        """Pressure tensor, of motion and potential, eV/Å³; a third of its trace is the pressure.

        (sum_a m_a v_a v_a) / V - stress. Where the center of mass rests, its share in the motion is put back:
        the atoms' is that of the temperature.

        Raises:
            InputError: the stress was not recorded: there is no cell, or another program wrote the file.
        """
        if self.stress is None:
            raise InputError(
                "the stress was not recorded, so there is no pressure: a periodic structure with a cell is "
                "needed."
            )
        moved = np.einsum("a,...ai,...aj->...ij", self.masses, self.velocities, self.velocities)
        fixed = 0 if self.fixed is None else int(self.fixed.sum())
        scale = (3 * len(self.species) - fixed) / max(self.freedom, 1)
        return scale * moved / ACCELERATION / self.volumes[..., None, None] - self.stress

    def drift(self, degrees_of_freedom: int | None = None) -> Drift:
        """How well the energy was conserved, for each replica, whatever the interval of the records.

        The energy is the `conserved` one: that of bath and barostat included.

        Args:
            degrees_of_freedom: what to divide by: 3 * atoms unless told; 3 * atoms - 6 counts those of the
                shape alone.
        Raises:
            InputError: a run in a bath whose conserved energy was not recorded; fewer than three records.
        """
        energy = self.conserved
        if energy is None and self.friction is not None:
            raise InputError(
                "a Langevin run exchanges energy with its bath, and this file does not say how much: its "
                "drift says nothing. Use a run of nve, or one that records the conserved energy."
            )
        if len(self.time) < 3:
            raise InputError(
                f"a drift needs three records or more, there are {len(self.time)}. Lower record_every, or "
                "run longer."
            )
        freedom = 3 * len(self.species) if degrees_of_freedom is None else degrees_of_freedom
        if freedom < 1:
            raise InputError(f"degrees_of_freedom = {freedom}: it must be positive.")
        energy = self.total if energy is None else energy
        total = to_kJ_per_mol(energy - energy[0]) / freedom  # the constant would cost digits
        ns = (self.time - self.time.mean()) * 1e-6
        slope = np.tensordot(ns, total, 1) / np.sum(ns**2)
        return Drift(total.std(0), slope, freedom)

    def of_replica(self, replica: int | None = None) -> "Trajectory":
        """One of the runs, alone.

        Args:
            replica: which one, from 0; needed where there are several.
        Raises:
            InputError: a replica that is not there, or none named.
        """
        if self.positions.ndim == 3:
            if replica not in (None, 0):
                raise InputError(f"replica = {replica}: this trajectory has no replicas.")
            return self
        n = self.positions.shape[1]
        if replica is None and n == 1:
            replica = 0
        if replica is None or not 0 <= replica < n:
            raise InputError(f"replica = {replica}: there are {n} of them; name one, from 0.")
        parts = {name: getattr(self, name) for name in OF_EACH_REPLICA}
        chosen = {name: part[:, replica] for name, part in parts.items() if part is not None}
        if self.cell is not None and self.cell.ndim == 4:
            chosen["cell"] = self.cell[:, replica]
        return dataclasses.replace(self, **chosen)

    def cells(self) -> Float[np.ndarray, "records *replicas 3 3"] | None:
        """The cell of each record, Å; of each replica too, where they move."""
        return None if self.cell is None else self._cells()

    def _cells(self) -> np.ndarray:
        assert self.cell is not None
        if self.cell.ndim == 4:
            return self.cell
        return np.broadcast_to(self.cell, (len(self.time), 3, 3))

    def structures(self, replica: int | None = None) -> list[Structure]:
        """The records as structures, with cell and fixed coordinates if there are any.

        Args:
            replica: which one, from 0; needed where there are several.
        Raises:
            InputError: a replica that is not there, or none named.
        """
        chosen = self.of_replica(replica)
        positions, cells = chosen.positions, chosen.cells()
        cell = None if cells is None else cells[0]
        first = self._structure(positions[0], cell)
        if cells is None:
            return [first.at(jnp.asarray(frame)) for frame in positions]
        frames = zip(positions, cells, strict=True)
        return [first.at(jnp.asarray(frame), jnp.asarray(cell)) for frame, cell in frames]

    def last_structure(self, replica: int | None = None) -> Structure:
        """Where the run ended: the last of `structures`.

        Raises:
            InputError: a replica that is not there, or none named.
        """
        chosen = self.of_replica(replica)
        cells = chosen.cells()
        cell = None if cells is None else cells[-1]
        return self._structure(chosen.positions[-1], cell)

    def _structure(self, positions: np.ndarray, cell: np.ndarray | None) -> Structure:
        """The atoms with all that does not change."""
        return Structure.create(
            positions,
            self.species,
            cell,
            self.pbc,
            masses=self.masses,
            fixed=self.fixed,
            charges=self.charges,
            columns=self.columns,
        )

    def write(self, path: str | Path, *, replica: int | None = None, overwrite: bool = False) -> None:
        """Write the records for other programs, in the format that the ending names.

        .h5 keeps everything (`to_hdf5`). .extxyz and .traj: positions, velocities, energies, forces, cell,
        time. .xyz: positions. .dcd, .xtc, .nc, and .pdb with the names and residues of the topology, if there
        is one: positions, cell and what else they have a place for.

        Args:
            replica: which one, from 0; needed where there are several. Without it .h5 holds all of them.
        Raises:
            OutputExistsError: the file exists, and `overwrite` is False.
            InputError: another ending; a replica that is not there, or none named.
        """
        everything = files.check_ending(path) in files.HDF5 and replica is None
        files.write(self if everything else self.of_replica(replica), path, overwrite)

    def to_hdf5(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write everything: `mdtraj.load` opens the file, and `from_hdf5` reads it back to the last bit.

        Raises:
            OutputExistsError: the file exists, and `overwrite` is False.
        """
        files.write_hdf5(self, path, overwrite)

    @classmethod
    def from_hdf5(cls, path: str | Path) -> "Trajectory":
        """Read what `to_hdf5` wrote.

        Raises:
            FileFormatError: no such file, or not one of `to_hdf5`.
        """
        return cls(**files.read_hdf5(path))
