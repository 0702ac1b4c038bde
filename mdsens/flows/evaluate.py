"""How good a trained flow is: on molecular dynamics that it has not seen, and on its own samples."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mdsens.batching import map_pieces
from mdsens.ensembles import FreeEnergy, effective_sample_size, free_energy_difference
from mdsens.errors import InputError
from mdsens.flows.boltzmann import BoltzmannGenerator, energies_and_forces
from mdsens.flows.data import ForceData
from mdsens.flows.outliers import check_bonds_move, check_handedness, tree_of

MISSED = 5.0  # kT: in the flow such a frame is 150 times as rare as it should be
CLIP = 1e-2  # share of the largest weights that the clipped sample size cuts down


class OnData(NamedTuple):
    """A flow against frames of molecular dynamics.

    Attributes:
        n_frames: frames looked at.
        nll: mean of -log p, with positions in nm; the density is that of the shape (see `Flow`).
        nll_error: its standard error, as if frames were independent.
        force_rmse: root mean square over components of the difference of forces, kT/nm; NaN without forces.
        force_rms: root mean square of the reference forces, kT/nm.
        energy_std: standard deviation of u_flow - u over the frames, kT: zero for the perfect flow; NaN
            without energies.
        missed: frames that the flow takes for more than MISSED kT less likely than their energy says,
            compared with the median frame: of a basin, perhaps, that it never visits; 0 without energies.
    """

    n_frames: int
    nll: float
    nll_error: float
    force_rmse: float
    force_rms: float
    energy_std: float
    missed: int = 0


class OnSamples(NamedTuple):
    """A flow against the energy function it stands for, at samples of its own.

    Attributes:
        n_samples: samples drawn.
        force_rmse: root mean square over components of the difference of forces, kT/nm, all samples.
        force_rmse_clipped: without the share CLIP of samples that is worst (clashes, where forces have no
            bound).
        reverse_kl: mean of log p + u, minus the free energy difference: the KL divergence estimated with the
            weights, kT.
        ess: effective share of the samples, (sum w)² / (n sum w²).
        ess_clipped: the same with the largest weights, a share CLIP, cut down to the smallest of them.
        free_energy: -log mean w: free energy of u relative to the flow's, whose partition function is 1.
        log_weights: -u - log p of each sample.
    """

    n_samples: int
    force_rmse: float
    force_rmse_clipped: float
    reverse_kl: float
    ess: float
    ess_clipped: float
    free_energy: FreeEnergy
    log_weights: Float[np.ndarray, " samples"]


def evaluate_on_data(
    generator: BoltzmannGenerator, data: ForceData, progress: Callable[[int], None] | None = None
) -> OnData:
    """Compare with frames; in float64, whatever the flow was trained in.

    Args:
        generator: the flow.
        data: frames of the same molecule.
        progress: called with the number of frames done.
    Raises:
        InputError: another number of atoms, another temperature, mirror images among the frames, bonds that
            the simulation held rigid, or frames to which the flow gives no density.
    """
    if data.positions.shape[1] != generator.n_atoms:
        raise InputError(
            f"the flow is of {generator.n_atoms} atoms, the data of {data.positions.shape[1]}: not the same "
            "molecule."
        )
    if abs(data.temperature - generator.temperature) > 1e-6 * generator.temperature:
        raise InputError(
            f"the flow stands for {generator.temperature:g} K, the data for {data.temperature:g} K: forces "
            "in kT do not compare."
        )
    rows = getattr(generator.flow.layers.layers[0], "rows", ())
    bonds = tree_of(rows, generator.n_atoms)
    check_handedness(bonds, data.positions)
    check_bonds_move(bonds, data.positions, data.temperature)
    energies, forces = in_pieces(generator, data.positions, progress)
    _check_density(energies, forces)
    nan = float("nan")
    nll, error = _weighted(energies, data.weights)
    return OnData(
        data.n_frames,
        nll,
        error,
        nan if data.forces is None else _rms(forces - data.forces),
        nan if data.forces is None else _rms(np.asarray(data.forces, float)),
        nan if data.energies is None else float(np.std(energies - data.energies)),
        0 if data.energies is None else _missed(energies - data.energies),
    )


def _missed(excess: Float[np.ndarray, " frames"]) -> int:
    """Frames whose u_flow - u is far above that of the median frame."""
    return int(np.sum(excess - np.median(excess) > MISSED))


def frames_missed(
    generator: BoltzmannGenerator,
    energy: Callable[[Array], Array],
    samples: Float[np.ndarray, "samples atoms 3"],
    frames: Float[np.ndarray, "frames atoms 3"],
) -> Bool[np.ndarray, " frames"]:
    """Which frames of a simulation the flow takes for too unlikely, compared with its own samples.

    Weights and effective samples know only what the flow draws. Dynamics with the energy function that starts
    from the flow's samples and ends where the flow has no density shows a basin that it lacks.

    Args:
        generator: the flow.
        energy: reduced energy in kT of one frame in nm, as for `evaluate_on_samples`.
        samples: of the flow, nm; frames: of the simulation, nm.
    Returns:
        where u_flow - u lies more than MISSED kT above the median of the samples.
    """
    at_samples, at_frames = (_excess(generator, energy, x) for x in (samples, frames))
    return at_frames - np.median(at_samples) > MISSED


def _excess(
    generator: BoltzmannGenerator, energy: Callable[[Array], Array], positions: Float[np.ndarray, "n atoms 3"]
) -> Float[np.ndarray, " n"]:
    own, _ = in_pieces(generator, positions)
    u, _ = _target(energy, jnp.asarray(positions, float))
    return own - np.asarray(u)


def _check_density(energies: Float[np.ndarray, " frames"], forces: Float[np.ndarray, "frames ..."]) -> None:
    """Refuse frames to which the flow gives no finite energy and force.

    Raises:
        InputError: there are some.
    """
    finite = np.isfinite(energies) & np.isfinite(forces).all(axis=(1, 2))
    if not finite.all():
        first = int(np.argmin(finite))
        raise InputError(
            f"the flow gives {np.sum(~finite)} of {len(energies)} frames no finite energy or force, first "
            f"frame {first} ({energies[first]:g} kT): they are far from all that it was trained on. Look at "
            "them, and leave them out."
        )


def _weighted(
    values: Float[np.ndarray, " frames"], weights: Float[np.ndarray, " frames"] | None
) -> tuple[float, float]:
    """Mean, and its standard error as if frames were independent; frames without any weight count alike."""
    if weights is None or not weights.any():
        return float(values.mean()), float(values.std() / np.sqrt(len(values)))
    share = weights / weights.sum()
    mean = float(np.sum(share * values))
    variance = np.sum(share**2 * (values - mean) ** 2)
    return mean, float(np.sqrt(variance))


def _rms(array: Float[np.ndarray, "..."]) -> float:
    return float(np.sqrt(np.mean(array**2)))


def in_pieces(
    generator: BoltzmannGenerator,
    positions: Float[np.ndarray, "frames atoms 3"],
    progress: Callable[[int], None] | None = None,
) -> tuple[Float[np.ndarray, " frames"], Float[np.ndarray, "frames atoms 3"]]:
    """Energies (kT) and forces (kT/nm) of the flow in float64, some frames after the other."""
    flow = generator.flow.astype(jnp.float64)
    energies, forces = map_pieces(
        lambda x: energies_and_forces(flow, jnp.asarray(x)), positions, progress=progress
    )
    return energies, forces


def evaluate_on_samples(
    generator: BoltzmannGenerator,
    energy: Callable[[Array], Array],
    positions: Float[np.ndarray, "samples atoms 3"],
) -> OnSamples:
    """Compare with an energy function at samples of the flow (`generator.flow.sample`).

    Args:
        generator: the flow.
        energy: reduced energy u(x) in kT of one frame in nm, differentiable once
            (`mdsens.calculators.reduced`).
        positions: samples of the flow, nm. log p is evaluated anew in float64: the weights belong to the
            positions as they are.
    """
    own, own_forces = in_pieces(generator, positions)
    u, gradient = _target(energy, jnp.asarray(positions, float))
    log_w = own - np.asarray(u)
    squares = np.mean((own_forces + np.asarray(gradient)) ** 2, axis=(1, 2))
    n_kept = max(1, round((1 - CLIP) * len(squares)))
    kept = np.sort(squares)[:n_kept]
    difference = free_energy_difference(log_w, min_effective=0)
    return OnSamples(
        len(positions),
        float(np.sqrt(squares.mean())),
        float(np.sqrt(kept.mean())),
        float(-log_w.mean() - difference.value),
        float(effective_sample_size(log_w)),
        float(effective_sample_size(log_w, clip=CLIP)),
        difference,
        log_w,
    )


@eqx.filter_jit
def _target(energy: Callable[[Array], Array], positions: Array) -> tuple[Array, Array]:
    return jax.lax.map(jax.value_and_grad(energy), positions)
