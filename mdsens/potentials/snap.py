"""SNAP: an energy linear (or quadratic) in the bispectrum of each atom's neighborhood.

    E = sum_i [b_0 + sum_k b_k B_k(i)]                                   linear
    E = sum_i [b_0 + sum_k b_k B_k + sum_k a_kk B_k² / 2 + sum_{k<l} a_kl B_k B_l]     quadratic

A neighbor at distance r along the unit vector n becomes a point on the unit sphere in four dimensions,

    g = (n sin t, cos t),    t = rfac0 pi (r - rmin0) / (R - rmin0),

with R the cutoff of the pair, and has the weight w_j f(r), f = (1 + cos(pi (r - rmin0) / (R - rmin0))) / 2.
The atom itself has the weight 1 at (0, 0, 0, 1). Let f_l(g) be the part of degree l of all these weights
(`mdsens.potentials.hypersphere`). Then

    B_{a b c} = (c + 1) integral over the sphere of f_a f_b f_c,    c >= a >= b,  a + b + c even.

Papers write the same with Wigner matrices U^j of g, 2j = l, and Clebsch-Gordan coefficients C:
f_l = sum U^j_mm' D^j_mm'(g)*, and since the integral of three D over the rotations is
C^{j m}_{j1 m1 j2 m2} C^{j m'}_{j1 m1' j2 m2'} / (2j + 1), the integral above is the sum of U U U* C C
divided by 2j + 1 = c + 1. As an integral it needs no recursion and no coordinates with an axis, and on a
grid, which is exact for it, it is a few multiplications of matrices.

Source: Thompson et al., J. Comput. Phys. 285, 316 (2015); quadratic, Wood, Thompson, J. Chem. Phys. 148,
241721 (2018); several densities, Cusentino et al., J. Phys. Chem. A 124, 5456 (2020); LAMMPS pair_style snap.
"""

import functools
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import number, whole
from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import parameter
from mdsens.potentials.hypersphere import IDENTITY, Hypersphere, hypersphere
from mdsens.potentials.shells import Rows, ShellPotential, Shells, Surroundings
from mdsens.structure import Structure

Triple = tuple[int, int, int]


class SNAP(ShellPotential):
    """Spectral neighbor analysis potential of one or several species; settings as in a .snapparam file.

    Attributes:
        beta: coefficients in the order of a .snapcoeff file, eV: the constant, then one for each component;
            with `quadratic`, then the upper triangle a_11, a_12, ..., a_22, ... row by row.
        twojmax: highest degree l = 2j.
        rcutfac: Å. Two atoms see each other within rcutfac times the sum of their radii.
        radii, weights: of each element, without unit; held fixed.
        rfac0, rmin0: how distances (Å) are turned into angles. An atom closer than rmin0 has the weight w_j.
        quadratic: products of components count too.
        switch: f as above; without it, f = 1 and the energy jumps at the cutoff.
        bzero: components of an atom that is alone are subtracted.
        bnorm: components without the factor c + 1.
        chem: each element has a density of its own; components for all triples of elements.
        wselfall: with `chem`, an atom counts in the densities of all elements, not in its own alone.
    """

    beta: Float[Array, "..."] = parameter(
        "eV", per="species", axes=("coefficient",), text="coefficient of a bispectrum component"
    )
    elements: tuple[str, ...] = eqx.field(static=True)
    twojmax: int = eqx.field(static=True, kw_only=True)
    rcutfac: float = eqx.field(static=True, kw_only=True)
    radii: tuple[float, ...] = eqx.field(static=True, kw_only=True)
    weights: tuple[float, ...] = eqx.field(static=True, kw_only=True)
    rfac0: float = eqx.field(static=True, default=0.99363)
    rmin0: float = eqx.field(static=True, default=0.0)
    quadratic: bool = eqx.field(static=True, default=False)
    switch: bool = eqx.field(static=True, default=True)
    bzero: bool = eqx.field(static=True, default=True)
    bnorm: bool = eqx.field(static=True, default=False)
    chem: bool = eqx.field(static=True, default=False)
    wselfall: bool = eqx.field(static=True, default=False)
    source: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        self.check_shapes()
        if not self.elements:
            raise InputError("SNAP needs elements, such as ('W',): whose coefficients are these?")
        whole("twojmax", self.twojmax)
        number("rcutfac", self.rcutfac, "Å", above=0)
        number("rfac0", self.rfac0, above=0, at_most=1)
        for name in ("radii", "weights"):
            if len(getattr(self, name)) != len(self.elements):
                raise InputError(
                    f"{name} = {getattr(self, name)}: give one for each of {', '.join(self.elements)}."
                )
        for element, radius, weight in zip(self.elements, self.radii, self.weights, strict=True):
            number(f"the radius of {element}", radius, above=0)
            number(f"the weight of {element}", weight)
        number("rmin0", self.rmin0, "Å; below every cutoff", at_least=0, at_most=float(self._reach().min()))
        wanted = count_coefficients(len(self.elements) if self.chem else 1, self.twojmax, self.quadratic)
        if (given := jnp.shape(self.beta)[-1]) != wanted:
            kind = "quadratic" if self.quadratic else "linear"
            raise InputError(
                f"beta has {given} coefficients an element; {kind} SNAP with twojmax = {self.twojmax}"
                f"{', chem' if self.chem else ''} has {wanted}, the constant counted."
            )

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(self._reach().max())

    def ranges(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "pairs"] | Float[Array, ""]:
        if len(self.elements) == 1:
            return self.cutoff
        types = self.types(structure)
        reach = jnp.asarray(self._reach())
        return reach[types[neighbors.i], types[neighbors.j]]

    def shell_energies(self, shells: Shells) -> Float[Array, "atoms"]:
        """Energy of each atom, eV."""
        beta = self.beta[:, None] if shells.center is None else self.beta[shells.center].T
        components = self._components(shells)
        n = len(components)
        constant, slopes, curvatures = beta[0], beta[1 : n + 1], beta[n + 1 :]
        linear = constant + jnp.sum(slopes * components, axis=0)
        return linear + self._squares(curvatures, components) if self.quadratic else linear

    def bispectrum(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms components"]:
        """Components of each atom, without unit, in the order of the coefficients."""
        around = self._surroundings(structure, neighbors)
        points = around.extended_positions(structure.positions, structure.cell)
        return self._components(around.shells(points, around.all_rows(structure.positions))).T

    def _reach(self) -> np.ndarray:
        """(species, species) cutoffs, Å."""
        radii = np.array(self.radii)
        return self.rcutfac * (radii[:, None] + radii)

    def _squares(
        self, a: Float[Array, "pairs ..."], B: Float[Array, "components atoms"]
    ) -> Float[Array, "atoms"]:
        row, column = np.triu_indices(len(B))
        half = np.where(row == column, 0.5, 1.0)[:, None]
        terms = half * a * B[row] * B[column]
        return jnp.sum(terms, axis=0)

    def _components(self, shells: Shells) -> Float[Array, "components atoms"]:
        sphere = hypersphere(max(self.twojmax, 2))
        own = [part[:, None] for part in sphere.at(IDENTITY)]
        densities = []
        for element, (theirs, g) in enumerate(self._seen(shells)):
            share = self._own_share(element, shells)
            pairs = zip(sphere.parts(theirs, g), own, strict=True)
            densities.append([part + share * alone for part, alone in pairs])
        return self._integrals(sphere, densities) - self._alone(shells)

    def _integrals(
        self, sphere: Hypersphere, densities: list[list[Float[Array, "points ..."]]]
    ) -> Float[Array, "components ..."]:
        """Components from the parts f_l of each density."""
        found = []
        for first, second, third in itertools.product(densities, repeat=3):
            for a, b, c in triples(self.twojmax):
                product = first[a] * second[b] * third[c]
                weights = sphere.weights[:, None] * (1 if self.bnorm else c + 1)
                found.append(jnp.sum(weights * product, axis=0))
        return jnp.stack(found)

    def _seen(self, shells: Shells) -> list[tuple[Array, tuple[Array, ...]]]:
        """Weights and points of each density: one for all elements, or one for each with `chem`."""
        g, weights = self._on_the_sphere(shells)
        if not self._apart:
            return [(weights, g)]
        of_species = lambda e: jnp.where(shells.others == e, weights, 0.0)
        return [(of_species(e), g) for e in range(len(self.elements))]

    @property
    def _apart(self) -> bool:
        """Whether there are several densities."""
        return self.chem and len(self.elements) > 1

    def _own_share(self, element: int, shells: Shells) -> Float[Array, "..."] | float:
        """Weight that the atom in the middle has in the density of an element."""
        if not self._apart or self.wselfall or shells.center is None:
            return 1.0
        return jnp.where(shells.center == element, 1.0, 0.0)

    # Second derivatives of a shell, for linear SNAP. With h the coefficients of the harmonics Y, to which
    # each neighbor adds h(d) of its own,
    #     d²e/dd_m dd_n = J_m^T H J_n + delta_mn (de/dh) d²h/dd²,    J = dh/dd,
    #     H = d²e/dh dh = sum over points of Y^T P Y.
    # e is the sum over points of a cubic form T f f f / 6, so P = T f, and de/df = P f / 2. H is formed once
    # for all neighbors.
    def shell_curvatures(
        self, structure: Structure, around: Surroundings, rows: Rows
    ) -> Float[Array, "atoms width width 3 3"]:
        """d²e/dd dd between all neighbors of some atoms, eV/Å²."""
        if self.quadratic or self.chem:
            return super().shell_curvatures(structure, around, rows)
        return _curvatures(self, structure, around, rows)

    def _curvature(self, shell: Shells) -> Float[Array, "width width 3 3"]:
        """The same for one atom, whose neighbors stand below each other: (width, 1)."""
        sphere = hypersphere(max(self.twojmax, 2))

        def coefficients(d: Any) -> Float[Array, "harmonics width"]:
            g, weights = self._on_the_sphere(shell._replace(d=d))
            return jnp.concatenate(sphere.coefficients(weights, g))

        # x, y or z of all neighbors at once: they do not know of each other
        unit = jnp.eye(3)[:, :, None, None]
        axes = tuple(unit[:, k] * jnp.ones_like(dk) for k, dk in enumerate(shell.d))
        along = lambda function: jax.vmap(jax.linearize(function, shell.d)[1])(axes)
        J = jnp.moveaxis(along(coefficients), 0, -1)
        h = jnp.sum(coefficients(shell.d), axis=1)
        slope, H = self._of_harmonics(sphere, h, shell)
        flat = J.reshape(len(J), -1)
        width = J.shape[1]
        mixed = (flat.T @ (H @ flat)).reshape(width, 3, width, 3)
        mixed = mixed.transpose(0, 2, 1, 3)
        bent = along(jax.grad(lambda d: jnp.sum(slope @ coefficients(d))))
        own = jnp.stack(bent)[..., 0].transpose(2, 1, 0)
        same = jnp.eye(width)[:, :, None, None]
        return mixed + same * own[:, None]

    def _of_harmonics(
        self, sphere: Hypersphere, h: Float[Array, "harmonics"], shell: Shells
    ) -> tuple[Float[Array, "harmonics"], Float[Array, "harmonics harmonics"]]:
        """de/dh and d²e/dh dh of an atom."""
        beta = self.beta if shell.center is None else self.beta[shell.center[0]]
        ends = np.cumsum([values.shape[1] for values in sphere.harmonics])
        by_degree = jnp.split(h, ends[:-1])
        own = zip(sphere.harmonics, by_degree, sphere.at(IDENTITY), strict=True)
        f = jnp.stack([values @ part + alone for values, part, alone in own])

        forms = _cubic_forms(self.twojmax, len(f), self.bnorm)
        T = jnp.tensordot(beta[1:], forms, 1)
        P = sphere.weights * jnp.tensordot(T, f, 1)
        slopes = 0.5 * jnp.sum(P * f, axis=1)
        of_degrees = zip(sphere.harmonics, slopes, strict=True)
        slope = jnp.concatenate([Y.T @ slope for Y, slope in of_degrees])
        upper = jnp.concatenate([_row_of_blocks(sphere, P, n) for n in range(len(f))])
        return slope, upper + upper.T

    def _on_the_sphere(self, shells: Shells) -> tuple[tuple[Array, ...], Float[Array, "atoms width"]]:
        """The points g of the neighbors, and their weights w_j f(r)."""
        if shells.center is None:
            reach, weight = self._reach()[0, 0], self.weights[0]
        else:
            center, others = shells.species()
            reach = jnp.asarray(self._reach())[center[:, None], others]
            weight = jnp.asarray(self.weights)[others]
        x, y, z = shells.d
        square = x * x + y * y + z * z
        # Everything is smooth at r = 0, where sqrt is not.
        counted = (square < reach * reach) & (square > NEAREST**2)
        r = jnp.sqrt(jnp.where(counted, square, (0.5 * reach) ** 2))
        part = (r - self.rmin0) / (reach - self.rmin0)
        t = self.rfac0 * jnp.pi * part
        falling = 0.5 * (1 + jnp.cos(jnp.pi * jnp.maximum(part, 0.0)))
        f = falling if self.switch else 1.0
        by_r = jnp.sin(t) / r
        point = by_r * x, by_r * y, by_r * z, jnp.cos(t)
        return point, jnp.where(counted, weight * f, 0.0)

    def _alone(self, shells: Shells) -> Float[Array, "..."] | float:
        """What is subtracted from the components, (components, 1 or atoms)."""
        if not self.bzero:
            return 0.0
        # the integral of three characters is 1
        tops = np.array([c for *_, c in triples(self.twojmax)])
        one = np.ones_like(tops, float) if self.bnorm else tops + 1.0
        densities = len(self.elements) if self.chem else 1
        shares = [self._own_share(element, shells) for element in range(densities)]
        of_three = itertools.product(shares, repeat=3)
        blocks = [one[:, None] * first * second * third for first, second, third in of_three]
        return jnp.concatenate([jnp.asarray(block) for block in blocks])


def _row_of_blocks(sphere: Hypersphere, P: Any, n: int) -> Float[Array, "harmonics_n harmonics"]:
    """Rows of d²e/dh dh that belong to degree n: the blocks right of the diagonal, and half of that on it.

    H is symmetric: it is these rows and their transpose.
    """
    blocks = []
    for k, Y in enumerate(sphere.harmonics):
        share = 0.5 if n == k else 1.0
        if k >= n:
            blocks.append(share * P[n, k][:, None] * Y)
    right = sphere.harmonics[n].T @ jnp.concatenate(blocks, axis=1)
    left = sum(Y.shape[1] for Y in sphere.harmonics[:n])
    return jnp.pad(right, ((0, 0), (left, 0)))


@eqx.filter_jit
def _curvatures(
    potential: SNAP, structure: Structure, around: Surroundings, rows: Rows
) -> Float[Array, "atoms width width 3 3"]:
    points = around.extended_positions(structure.positions, structure.cell)
    shells = around.shells(points, rows)
    alone = jax.tree.map(lambda leaf: leaf[:, None], shells)  # an atom at a time

    def one(shell: Shells) -> Float[Array, "width width 3 3"]:
        below = lambda leaf: jnp.swapaxes(leaf, 0, 1)
        width = shell.valid.shape[1]
        center = None if shell.center is None else jnp.repeat(shell.center, width)
        others = None if shell.others is None else below(shell.others)
        x, y, z = map(below, shell.d)
        K = potential._curvature(Shells((x, y, z), below(shell.valid), center, others))
        valid = shell.valid[0]
        both = valid[:, None] & valid
        return jnp.where(both[:, :, None, None], K, 0.0)

    return jax.lax.map(one, alone)


NEAREST = 1e-10  # Å; closer atoms do not see each other


@functools.cache
def triples(twojmax: int) -> tuple[Triple, ...]:
    """(a, b, c) of each component, in the order of LAMMPS."""
    found = []
    for a in range(twojmax + 1):
        for b in range(a + 1):
            # a + b + c is even
            largest = min(twojmax, a + b)
            first = a + b % 2
            found += [(a, b, c) for c in range(first, largest + 1, 2)]
    return tuple(found)


def _cubic_forms(twojmax: int, degrees: int, bnorm: bool) -> np.ndarray:
    """Third derivatives of each component by the parts f, (components, degrees, degrees, degrees)."""
    found = np.zeros((len(triples(twojmax)), degrees, degrees, degrees))
    for k, triple in enumerate(triples(twojmax)):
        for order in itertools.permutations(triple):
            found[(k, *order)] += 1 if bnorm else triple[2] + 1
    return found


def count_coefficients(densities: int, twojmax: int, quadratic: bool) -> int:
    """Coefficients of an element, the constant counted."""
    n = densities**3 * len(triples(twojmax))
    return 1 + n + (n * (n + 1) // 2 if quadratic else 0)
