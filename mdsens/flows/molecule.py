"""The flow of a molecule: soft torsions on the circle, and stiff coordinates as nearly Gaussian numbers.

Rotations about single bonds are free to go around; bonds, angles, planar and chiral centers swing by a few
percent about a middle, and what is left of them once torsions are given and correlations taken out is close
to Gaussian. The density factorizes accordingly,

    p(shape) = p(soft torsions) p(stiff | soft torsions),

both factors through coupling layers.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from mdsens.checks import number, whole
from mdsens.errors import InputError
from mdsens.flows.coupling import Coupling
from mdsens.flows.flow import Flow, Normal, Uniform
from mdsens.flows.internal_coordinates import AbstractCoordinates, ZMatrix, check_not_linear
from mdsens.flows.layers import AbstractLayer, Cut, Elementwise, Inverted, Split, Turns, Unbounded, Whiten
from mdsens.flows.reference_block import MixedCoordinates
from mdsens.flows.splines import CircularSpline, LineSpline
from mdsens.flows.transforms import AbstractFamily, CircleMixture, LineMixture
from mdsens.molecules.bonds import read_bonds
from mdsens.molecules.graph import rings

# Standard deviations: a stiff coordinate is drawn this far from its middle once in 10^9 samples
FAR = 6.0
NARROW = 1.2  # rad: a torsion that stays this close to its mean in all frames counts as stiff


class MoleculeArchitecture(eqx.Module):
    """How large a flow, and of which transforms.

    Attributes:
        circle: functions of the soft torsions.
        line: functions of the stiff coordinates.
        soft_layers: coupling layers among the soft torsions.
        stiff_layers: coupling layers among the stiff coordinates.
        hidden: sizes of the networks' hidden layers.
        harmonics: of the torsions that the networks see.
        narrow: rad; a torsion that stays this close to its mean in all frames counts as stiff.
    """

    # Ramps no shorter than 36° of a torsion and 1.7 standard deviations of a bond: in a step of 1 fs a methyl
    # group turns by some degrees and a bond to hydrogen moves by half a standard deviation. What is finer
    # than that the integrator cannot follow, and the data hardly show.
    circle: AbstractFamily = eqx.field(default_factory=lambda: CircleMixture(12, sharpest=10.0))
    line: AbstractFamily = eqx.field(default_factory=lambda: LineMixture(3, sharpest=0.6))
    soft_layers: int = 6
    stiff_layers: int = 6
    hidden: tuple[int, ...] = (128, 128)
    harmonics: int = 3
    narrow: float = NARROW

    def __check_init__(self) -> None:
        whole("soft_layers", self.soft_layers)
        whole("stiff_layers", self.stiff_layers)
        whole("harmonics", self.harmonics, at_least=1)
        number("narrow", self.narrow, "rad", above=0.0, at_most=np.pi)
        for size in self.hidden:
            whole("hidden", size, at_least=1)

    @classmethod
    def of(cls, transforms: str, **sizes: Any) -> "MoleculeArchitecture":
        """With "smooth" transforms, or with "spline"s of as many parameters to compare with."""
        match transforms:
            case "smooth":
                return cls(**sizes)
            case "spline":
                return cls(CircularSpline(16), LineSpline(5), **sizes)
        raise InputError(f"transforms = {transforms!r}: there are 'smooth' and 'spline'.")

    def build(
        self, coordinates: AbstractCoordinates, frames: Float[np.ndarray, "frames atoms 3"], key: PRNGKeyArray
    ) -> Flow:
        """An untrained flow, centered and scaled to the frames.

        Args:
            coordinates: of the shape.
            frames: positions in nm, equilibrium samples; some hundred suffice.
            key: of the first weights.
        Raises:
            InputError: coordinates that never change, or fewer frames than coordinates.
        """
        samples = _samples(coordinates, frames)
        torsions = samples.pop("torsions")
        opened = _without_ends(samples)
        for layer in opened:
            samples[layer.field] = _moved(layer, samples)
        middle = np.angle(np.exp(1j * torsions).mean(0))
        swing = _wrap(torsions - middle)
        goes_around = np.abs(swing).max(0) > self.narrow
        soft, narrow = _indices(goes_around), _indices(~goes_around)
        stiff = np.concatenate([*samples.values(), swing[:, narrow]], axis=1)
        n_stiff, n_soft = stiff.shape[1], len(soft)
        sources = [(name, values.shape[1]) for name, values in samples.items()]
        layers: list[AbstractLayer] = [
            coordinates,  # pyright: ignore[reportAssignmentType]
            Split((("torsions", torsions.shape[1]),), (("soft", soft), ("narrow", narrow))),
            Turns("soft"),
            Cut("narrow", jnp.asarray(middle[list(narrow)])),
            *opened,
            Split((*sources, ("narrow", len(narrow))), (("stiff", tuple(range(n_stiff))),)),
            Whiten.of("stiff", stiff),
        ]
        stiff_key, soft_key, order_key = jax.random.split(key, 3)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(order_key)))
        layers += self._stiff(n_stiff, n_soft, stiff_key, rng)
        layers += self._soft(n_soft, soft_key)
        return Flow(tuple(layers), {"stiff": Normal(n_stiff), "soft": Uniform(n_soft)})

    def _stiff(self, n: int, n_soft: int, key: PRNGKeyArray, rng: np.random.Generator) -> list[AbstractLayer]:
        first, *keys = jax.random.split(key, self.stiff_layers + 1)
        given = ("soft",) if n_soft else ()
        layers: list[AbstractLayer] = []
        if n_soft:
            layers.append(self._coupling("stiff", given, {"stiff": n, "soft": n_soft}, self.line, first))
        sizes = {"a": n // 2, "b": n - n // 2, "soft": n_soft}
        for k in range(0, self.stiff_layers, 2):
            order = rng.permutation(n).tolist()
            one = tuple(order[: n // 2])
            other = tuple(order[n // 2 :])
            halves = (("a", one), ("b", other))
            split = Split((("stiff", n),), halves)
            layers += [split, self._coupling("a", ("b", *given), sizes, self.line, keys[k])]
            if k + 1 < self.stiff_layers:
                layers.append(self._coupling("b", ("a", *given), sizes, self.line, keys[k + 1]))
            layers.append(Inverted(split))
        return layers

    def _soft(self, n: int, key: PRNGKeyArray) -> list[AbstractLayer]:
        if n == 0:
            return []
        layers: list[AbstractLayer] = []
        if n > 1:
            sizes = {"even": (n + 1) // 2, "odd": n // 2}
            halves = (("even", tuple(range(0, n, 2))), ("odd", tuple(range(1, n, 2))))
            split = Split((("soft", n),), halves)
            names = ("even", "odd")
            layers.append(split)
            for k, k_key in enumerate(jax.random.split(key, self.soft_layers)):
                moved, given = names[k % 2], names[1 - k % 2]
                layers.append(self._coupling(moved, (given,), sizes, self.circle, k_key))
            layers.append(Inverted(split))
        layers.append(Elementwise.zeros("soft", n, self.circle))
        return layers

    def _coupling(
        self,
        moved: str,
        given: tuple[str, ...],
        sizes: dict[str, int],
        family: AbstractFamily,
        key: PRNGKeyArray,
    ) -> Coupling:
        around = ("soft", "even", "odd")
        return Coupling.create(
            moved, given, sizes, family, key, periodic=around, hidden=self.hidden, harmonics=self.harmonics
        )


def choose_coordinates(
    topology: Any, frames: Float[np.ndarray, "frames atoms 3"], block: tuple[int, ...] | None = None
) -> AbstractCoordinates:
    """A Z-matrix; with a reference block for the ring system if there is one.

    Args:
        topology: of mdtraj, OpenMM or ASE, or (number of atoms, bonded pairs).
        frames: positions in nm, of which the block takes its shape and widths: only frames to train on.
        block: atoms of the block; by default the ring system.
    Raises:
        InputError: a linear molecule or one in pieces, several ring systems, or frames that do not fit the
        topology.
    """
    check_not_linear(read_bonds(topology), frames)
    if block or rings(topology):
        return MixedCoordinates.from_topology(topology, frames, block)
    coordinates = ZMatrix.from_topology(topology)
    coordinates.check(frames)
    return coordinates


def _without_ends(samples: dict[str, np.ndarray]) -> list[Unbounded]:
    """Layers for the bonds and angles whose Gaussians would reach the ends of their domains."""
    layers = []
    for name, kind, end in (("bonds", "length", np.inf), ("angles", "angle", np.pi)):
        values = samples.get(name, np.zeros((1, 0)))
        middle, width = values.mean(0), values.std(0)
        low, high = middle - FAR * width, middle + FAR * width
        near = (low < 0) | (high > end)
        if near.any():
            layers.append(Unbounded(name, _indices(near), kind))
    return layers


def _moved(layer: Unbounded, samples: dict[str, np.ndarray]) -> np.ndarray:
    def one(values: Array) -> Array:
        return layer.forward({layer.field: values})[0][layer.field]

    return np.asarray(jax.vmap(one)(jnp.asarray(samples[layer.field])))


def _indices(chosen: Bool[np.ndarray, " n"]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(chosen).tolist())


def _wrap(angle: np.ndarray) -> np.ndarray:
    turns = np.floor(angle / (2 * np.pi) + 0.5)
    return angle - 2 * np.pi * turns


@eqx.filter_jit
def _forward_many(coordinates: AbstractCoordinates, frames: Array) -> dict[str, Array]:
    return jax.vmap(lambda frame: coordinates.forward(frame)[0])(frames)


def _samples(coordinates: AbstractCoordinates, frames: np.ndarray) -> dict[str, np.ndarray]:
    frames = np.asarray(frames, float)
    if frames.ndim != 3 or frames.shape[2] != 3 or not np.isfinite(frames).all():
        raise InputError(
            f"frames must be finite positions (frames, atoms, 3) in nm, not an array of shape {frames.shape}."
        )
    fields = _forward_many(coordinates, jnp.asarray(frames))
    return {name: np.asarray(values) for name, values in fields.items()}
