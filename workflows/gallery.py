"""One picture for each class of potential: what an observable hangs on, all of it from one relaxed state.

    python workflows/gallery.py --output docs/figures                        # all that need no other files
    python workflows/gallery.py molecule snap --output results/gallery
    python workflows/gallery.py network --weights nequix-mp-1.nqx            # any .nqx of the package nequix

Ionic: rock salt's lattice and elastic constants by all parameters of Fumi and Tosi. Covalent: those of
Tersoff silicon. SNAP: how the atoms around a tungsten vacancy move with every coefficient. Molecule: the
torsion of hydrogen peroxide by the terms of its force field. Network: the gradient of a lattice constant by
all weights, its norm in each layer. (The picture of the embedded atom is `mdsens sensitivity --functional`.)
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402  (float64 first)

CRYSTAL = ("lattice_constant", "C11", "C12", "C44")
TITLES = ("a", "C₁₁", "C₁₂", "C₄₄")
TIGHT = 1e-9  # eV/Å


def panels(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def heat_map(axes: Axes, values: np.ndarray, rows: Any, columns: Any) -> None:
    """Signed numbers as colors, each written into its field."""
    largest = np.abs(values).max()
    axes.imshow(values, cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), rows)
    for (i, j), value in np.ndenumerate(values):
        dark = abs(value) > 0.6 * largest
        color = "white" if dark else "black"
        axes.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=7, color=color)


def logarithmic(relaxed: Any, names: list[str]) -> np.ndarray:
    """d ln O / d ln theta of the observables of a cubic crystal."""
    values, jacobian = ms.first_order(relaxed, list(CRYSTAL), names)
    parameters = ms.parameter_values(relaxed.potential)
    theta = np.array([parameters[name] for name in names])
    return jacobian * theta / values[:, None]


def of_a_crystal(potential: ms.Potential, structure: ms.Structure, title: str) -> Figure:
    relaxed = ms.relax(potential, structure, cell="isotropic", fmax=TIGHT)
    parameters = ms.parameter_values(potential)
    names = [name for name, value in parameters.items() if abs(value) > 0]
    found = logarithmic(relaxed, names)
    counts = np.abs(found).max(axis=0) > 1e-3
    shown = [name for name, keep in zip(names, counts, strict=True) if keep]
    figure, axes = panels(0.42 * len(shown) + 2.2, 2.9)
    heat_map(axes, found[:, counts], TITLES, shown)
    axes.set_title(title, fontsize=10)
    return figure


def ionic() -> Figure:
    from ase.build import bulk

    salt = ms.Structure.from_ase(bulk("NaCl", "rocksalt", a=5.64))
    title = "rock salt, Fumi and Tosi: d ln O / d ln θ at zero pressure"
    return of_a_crystal(ms.load_potential("nacl-fumi-tosi"), salt, title)


def covalent() -> Figure:
    from ase.build import bulk

    silicon = ms.Structure.from_ase(bulk("Si", a=5.43))
    title = "silicon, Tersoff T3: d ln O / d ln θ, the two atoms of the cell relaxed"
    return of_a_crystal(ms.load_potential("si-tersoff-1988-t3"), silicon, title)


def shells(structure: ms.Structure, place: np.ndarray) -> np.ndarray:
    """Distance of each atom from a place, by the nearest image, Å."""
    inverse = np.linalg.inv(np.asarray(structure.cell))
    fractional = (np.asarray(structure.positions) - place) @ inverse
    nearest = fractional - np.round(fractional)
    return np.linalg.norm(nearest @ np.asarray(structure.cell), axis=1)


def snap() -> Figure:
    from ase.build import bulk

    atoms = bulk("W", "bcc", a=3.1804596464683366, cubic=True) * 3
    vacancy = np.array(atoms.positions[0])
    del atoms[0]
    start = ms.Structure.from_ase(atoms)
    distances = shells(start, vacancy)
    order = np.argsort(distances)
    near = np.array([order[0], order[8]])  # eight first, then six second neighbors

    def flat(potential: Any, states: Any) -> tuple[Any, ...]:
        return tuple(states["structure"].structure.positions[near].reshape(-1))

    potential = ms.load_potential("w-snap-2017")
    relaxed = ms.relax(potential, start, fmax=TIGHT)
    names = [name for name in ms.parameter_values(potential) if "beta" in name]
    places = ms.Observable(names=tuple(f"x{k}" for k in range(6)), units=("Å",) * 6, function=flat)
    _, jacobian = ms.first_order(relaxed, places, names, mode="reverse")
    beta = np.array([ms.parameter_values(potential)[name] for name in names])
    outward = np.asarray(start.positions)[near] - vacancy
    cell = np.asarray(start.cell)
    outward = outward - np.round(outward @ np.linalg.inv(cell)) @ cell
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    moves = np.einsum("ax,axk->ak", outward, jacobian.reshape(2, 3, -1)) * beta
    figure, axes = panels(7.0, 2.8)
    for k, label in enumerate(("first neighbors", "second neighbors")):
        axes.bar(np.arange(len(names)) + 0.4 * k, 1e3 * moves[k], 0.4, label=label)
    axes.axhline(0, color="black", lw=0.6)
    axes.set(xlabel="coefficient of SNAP", ylabel="outward, mÅ")
    axes.set_title("tungsten vacancy: d x / d ln β of all 56 coefficients", fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    return figure


def torsion(x: Any) -> Any:
    """Of four atoms in a chain, degrees."""
    first, middle, last = x[1] - x[0], x[2] - x[1], x[3] - x[2]
    left, right = jnp.cross(first, middle), jnp.cross(middle, last)
    sine = jnp.dot(jnp.cross(left, right), middle) / jnp.linalg.norm(middle)
    return jnp.degrees(jnp.arctan2(sine, jnp.dot(left, right)))


def peroxide() -> tuple[ms.Potential, ms.Structure]:
    """A force field of hydrogen peroxide: bonds, angles, two Fourier terms, charges of the hydrogens."""
    chain = ((0, 1), (1, 2), (2, 3))
    bonds = ms.HarmonicBonds(
        k=[30.0, 20.0], r0=[0.97, 1.45], types=("O-H", "O-O"), atoms=chain, kind=(0, 1, 0)
    )
    corners = ((0, 1, 2), (1, 2, 3))
    angles = ms.HarmonicAngles(k=[5.0], theta0=[1.75], types=("H-O-O",), atoms=corners, kind=(0, 0))
    turns = ms.PeriodicDihedrals(
        k=[0.05, 0.06], phi0=[0.0, 0.0], n=[1, 2], types=("1", "2"), atoms=((0, 1, 2, 3),) * 2, kind=(0, 1)
    )
    excluded = tuple((i, j) for i in range(4) for j in range(i + 1, 4) if (i, j) != (0, 3))
    charges = ms.MolecularCharges(charge=[0.4, -0.4], types=("H", "O"), kind=(0, 1, 1, 0), excluded=excluded)
    places = [[-0.9, 0.3, 0.0], [0.0, 0.0, 0.0], [0.3, 1.42, 0.0], [0.1, 1.7, 0.9]]
    return bonds + angles + turns + charges, ms.Structure.create(places, ["H", "O", "O", "H"])


def molecule() -> Figure:
    potential, start = peroxide()

    def angle(potential: Any, states: Any) -> tuple[Any]:
        return (torsion(states["structure"].structure.positions),)

    turned = ms.Observable(names=("torsion",), units=("°",), function=angle)
    relaxed = ms.relax(potential, start, fmax=TIGHT)
    parameters = ms.parameter_values(potential)
    names = [name for name, value in parameters.items() if abs(value) > 0]
    (value,), (row,) = ms.first_order(relaxed, turned, names)
    moves = row * np.array([parameters[name] for name in names])
    order = np.argsort(np.abs(moves))
    figure, axes = panels(6.0, 3.0)
    axes.barh(np.array(names)[order], moves[order])
    axes.axvline(0, color="black", lw=0.6)
    axes.set(xlabel="dφ / d ln θ, degrees")
    axes.set_title(f"hydrogen peroxide, relaxed to a torsion of {value:.1f}°", fontsize=10)
    axes.tick_params(axis="y", labelsize=8)
    return figure


def network(weights: Path) -> Figure:
    from ase.build import bulk

    silicon = ms.Structure.from_ase(bulk("Si", a=5.43))

    def lattice_constant(potential: ms.GraphPotential) -> Any:
        relaxed = ms.relax(potential, silicon, cell="isotropic", fmax=1e-8, solver=ms.NewtonCG())
        return jnp.cbrt(4 * ms.volume(relaxed.structure))

    value, gradient = jax.value_and_grad(lattice_constant)(ms.from_nequix(weights))
    return draw_layers(gradient, float(value))


def draw_layers(gradient: ms.GraphPotential, value: float) -> Figure:
    count = sum(weight.size for weight in gradient.weights.values())
    norms = gradient.norms_by_layer()
    figure, axes = panels(6.0, 2.6)
    axes.barh(list(norms), list(norms.values()))
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="|∂a / ∂w|, Å")
    axes.set_title(f"silicon, a = {value:.4f} Å: gradient by {count:,} weights, one adjoint", fontsize=10)
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    "ionic": ionic,
    "covalent": covalent,
    "snap": snap,
    "molecule": molecule,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pictures",
        nargs="*",
        help=f"of {', '.join([*PICTURES, 'network'])}; default: those without --weights",
    )
    parser.add_argument("--output", type=Path, default=Path("results/gallery"), help="folder of the figures")
    parser.add_argument("--weights", type=Path, help="the .nqx file of the network")
    options = parser.parse_args()
    chosen = options.pictures or list(PICTURES)
    unknown = [name for name in chosen if name not in (*PICTURES, "network")]
    if unknown:
        parser.error(f"no picture '{unknown[0]}': choose of {', '.join([*PICTURES, 'network'])}")
    if "network" in chosen and options.weights is None:
        parser.error("the picture of a network needs --weights FILE.nqx")
    options.output.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        figure = network(options.weights) if name == "network" else PICTURES[name]()
        path = options.output / f"gallery_{name}.png"
        figure.savefig(path, dpi=100)
        print(path, flush=True)


if __name__ == "__main__":
    main()
