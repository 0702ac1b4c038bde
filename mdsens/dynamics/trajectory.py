"""What a simulation recorded, and what one reads off it: temperature, and how well energy was conserved."""

from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from mdsens.errors import InputError
from mdsens.io.hdf5 import Quantity, write_hdf5
from mdsens.io.trajectory import write_trajectory
from mdsens.structure import Structure
from mdsens.units import BOLTZMANN, KJ_PER_MOL


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
    """The records of a simulation; the first one is the start. Replicas, if any, are the axis after the records.

    Attributes:
        time: fs.
        positions: Å.
        velocities: Å/fs, at the same time as the positions.
        potential: eV, up to a constant.
        kinetic: eV.
        masses: u.
        species: atomic numbers.
        temperature: of the bath, or of the velocities that were drawn, K.
        timestep: fs.
        friction: 1/fs; None without a bath.
        seed: of the random numbers.
    """

    time: Float[np.ndarray, " records"]
    positions: Float[np.ndarray, "records *replicas atoms 3"]
    velocities: Float[np.ndarray, "records *replicas atoms 3"]
    potential: Float[np.ndarray, "records *replicas"]
    kinetic: Float[np.ndarray, "records *replicas"]
    masses: Float[np.ndarray, " atoms"]
    species: tuple[int, ...] = eqx.field(static=True)
    temperature: float = eqx.field(static=True)
    timestep: float = eqx.field(static=True)
    friction: float | None = eqx.field(static=True, default=None)
    seed: int = eqx.field(static=True, default=0)

    @property
    def total(self) -> Float[np.ndarray, "records *replicas"]:
        """Potential and kinetic energy, eV."""
        return self.potential + self.kinetic

    @property
    def temperatures(self) -> Float[np.ndarray, "records *replicas"]:
        """Temperature that belongs to the kinetic energy, K: 2 K / (3 atoms k), or 3 (atoms - 1) if the center of mass rests."""
        weighted = self.masses[:, None] * self.velocities
        rests = np.abs(weighted.sum(-2)).max() <= 1e-9 * np.abs(weighted).max()
        n = len(self.species)
        return 2 * self.kinetic / (3 * (n - 1 if rests and n > 1 else n) * BOLTZMANN)

    def drift(self, degrees_of_freedom: int | None = None) -> Drift:
        """How well the total energy was conserved, for each replica, whatever the interval of the records.

        Args:
            degrees_of_freedom: what to divide by: 3 * atoms unless told; 3 * atoms - 6 counts those of the
                shape alone.
        Raises:
            InputError: a run in a bath, which conserves nothing; fewer than three records.
        """
        if self.friction is not None:
            raise InputError(
                "a Langevin run exchanges energy with its bath: its drift says nothing. Use a run of nve."
            )
        if len(self.time) < 3:
            raise InputError(
                f"a drift needs three records or more, there are {len(self.time)}. Lower record_every, or "
                "run longer."
            )
        freedom = 3 * len(self.species) if degrees_of_freedom is None else degrees_of_freedom
        if freedom < 1:
            raise InputError(f"degrees_of_freedom = {freedom}: it must be positive.")
        total = (self.total - self.total[0]) / KJ_PER_MOL / freedom  # the constant would cost digits
        ns = (self.time - self.time.mean()) * 1e-6
        return Drift(total.std(0), np.tensordot(ns, total, 1) / np.sum(ns**2), freedom)

    def structures(self, replica: int | None = None) -> list[Structure]:
        """The records as structures without a cell.

        Args:
            replica: which one, from 0; needed where there are several.
        Raises:
            InputError: a replica that is not there, or none named.
        """
        positions = self.positions
        if positions.ndim == 4:
            if replica is None or not 0 <= replica < positions.shape[1]:
                raise InputError(
                    f"replica = {replica}: there are {positions.shape[1]} of them; name one, from 0."
                )
            positions = positions[:, replica]
        elif replica not in (None, 0):
            raise InputError(f"replica = {replica}: this trajectory has no replicas.")
        first = Structure.create(positions[0], self.species, masses=self.masses)
        return [eqx.tree_at(lambda structure: structure.positions, first, frame) for frame in positions]

    def write(self, path: str | Path, *, replica: int | None = None, overwrite: bool = False) -> None:
        """Write the positions for other programs: .extxyz, .traj, .pdb, .xyz; the last two mdtraj reads.

        Raises:
            OutputExistsError, InputError: as `write_trajectory` and `structures`.
        """
        write_trajectory(path, self.structures(replica), overwrite=overwrite)

    def to_hdf5(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write everything with its units, for `mdsens.read_hdf5` and any reader of HDF5.

        Raises:
            OutputExistsError: the file exists, and `overwrite` is False.
        """
        axes = "records, replicas" if self.positions.ndim == 4 else "records"
        content = {
            "time": Quantity(self.time, "fs", "records"),
            "positions": Quantity(self.positions, "Å", f"{axes}, atoms, xyz"),
            "velocities": Quantity(self.velocities, "Å/fs", f"{axes}, atoms, xyz"),
            "potential": Quantity(self.potential, "eV", axes),
            "kinetic": Quantity(self.kinetic, "eV", axes),
            "masses": Quantity(self.masses, "u", "atoms"),
            "species": np.array(self.species),
            "temperature": Quantity(self.temperature, "K"),
            "timestep": Quantity(self.timestep, "fs"),
            "friction": None if self.friction is None else Quantity(self.friction, "1/fs"),
            "seed": self.seed,
        }
        write_hdf5(path, content, overwrite=overwrite)
