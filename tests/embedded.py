"""Embedded-atom tables made of Gupta's functions: small, smooth, and what comes out is known."""

import jax.numpy as jnp
import numpy as np
from ase.build import bulk

import mdsens as ms

TWO = ms.Gupta(
    A=[0.0376, 0.06, 0.0855], xi=[1.07, 1.15, 1.224], p=[16.999, 14.0, 10.96], q=[1.189, 1.7, 2.278],
    r0=[2.491, 2.52, 2.556], elements=("Ni", "Cu"), cutoff_radius=4.6, cut=ms.Smooth(0.7),
)  # fmt: skip


def tables_of(gupta: ms.Gupta, n_knots: int) -> ms.EAM:
    """The same functions by n_knots knots each; a density for each ordered pair if there are two species."""
    names = ("A", "xi", "p", "q", "r0")
    A, xi, p, q, r0 = (np.asarray(getattr(gupta, name))[..., None] for name in names)
    rc, densest = gupta.cutoff_radius, 60.0
    r, rho = np.linspace(0, rc, n_knots), np.linspace(0, densest, n_knots)
    end = np.asarray(gupta.cut(jnp.ones_like, jnp.asarray(r), rc))
    rphi = 2 * r * A * np.exp(-p * (r / r0 - 1)) * end
    hopping = xi**2 * np.exp(-2 * q * (r / r0 - 1)) * end
    several = len(gupta.elements) > 1
    F = -np.sqrt(rho)
    return ms.EAM(
        F=np.stack([F, F]) if several else F,
        rho=hopping[[0, 1, 1, 2]] if several else hopping,
        rphi=rphi,
        elements=gupta.elements,
        drho=float(rho[1]),
        dr=float(r[1]),
        cutoff_radius=rc,
        finnis_sinclair=several,
        source="tables of Gupta's functions",
    )


def alloy() -> ms.Structure:
    """A sheared, rattled cell of 16 atoms of two kinds, thinner than the cutoff."""
    rng = np.random.default_rng(4)
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * (2, 2, 1)
    positions = atoms.positions + rng.normal(scale=0.1, size=atoms.positions.shape)
    shear = np.eye(3) + np.tril(rng.uniform(-0.05, 0.05, (3, 3)))
    kinds = rng.permutation(["Ni"] * 7 + ["Cu"] * 9)
    return ms.Structure.create(positions @ shear, kinds, atoms.cell.array @ shear)
