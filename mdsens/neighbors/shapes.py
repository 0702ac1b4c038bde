"""Shapes of the arrays of a list, in few sizes: structures that differ then meet the same compiled programs.

A program is compiled for the shapes of its arrays. Without ghosts (see `mdsens.ghosts`) these leave little
room: lists of one structure keep theirs while its atoms move. With ghosts, lists of different structures
shall agree, too. There the width of the table alone decides, in steps of about sqrt(2): the flat list gets
half of the table, which holds each pair twice, and the images what a cube of such a density has.
"""

from typing import NamedTuple

import numpy as np

WIDTHS = (5, 7)  # and all their multiples by a power of two
GROWTH = 1.2  # of a shape that was outgrown
FEW = 4  # neighbors more that an atom may get then, in any case
COARSE_ATOMS = 1024  # with more atoms a compilation costs little beside what it is for: fine steps
# A sum over a row takes on the average 1 / ln(sqrt 2) (sqrt 2 - 1) - 1 = 20 % longer than it must, if the
# numbers of neighbors were spread evenly over all orders of magnitude, and 41 % at most.


class Capacity(NamedTuple):
    """Shapes of a list: slots for pairs, places in a row of neighbors, slots for images and for waves."""

    pairs: int = 0
    width: int = 0
    images: int = 0
    waves: int = 0


NOTHING_KEPT = Capacity()


def exactly(n_atoms: int, needed: Capacity, kept: Capacity) -> Capacity:
    """No more than is needed, or was kept."""
    return Capacity(*map(max, needed, kept))


def with_some_room(n_atoms: int, needed: Capacity, kept: Capacity) -> Capacity:
    """A list that is made anew after a small move keeps its shape."""
    return Capacity(*map(slots, needed, kept))


def shared(n_atoms: int, needed: Capacity, kept: Capacity) -> Capacity:
    """The shape that lists of similar structures share."""
    if n_atoms > COARSE_ATOMS:
        return with_some_room(n_atoms, needed, kept)
    width = coarse_slots(needed.width, kept.width)
    pairs = max(-(-n_atoms * width // 2), needed.pairs, kept.pairs)
    images = _images(n_atoms, width, needed.images, kept.images)
    return Capacity(pairs, width, images, slots(needed.waves, kept.waves))


def grown(needed: Capacity, kept: Capacity, n_atoms: int) -> Capacity:
    """Shapes with room wherever they were outgrown; waves are as many as the cell asks for."""
    more = Capacity(pairs=FEW * n_atoms // 2, width=FEW, images=n_atoms)
    sizes = zip(needed, kept, more, strict=True)
    roomy = [_with_room_to_spare(*each) for each in sizes]
    return Capacity(*roomy)._replace(waves=needed.waves)


def _with_room_to_spare(needed: int, kept: int, more: int) -> int:
    return kept if needed <= kept else max(int(GROWTH * needed), needed + more)


def slots(needed: int, kept: int) -> int:
    """Some room, in steps of about 6 %."""
    if needed <= kept:
        return kept
    bits = int(np.ceil(np.log2(max(needed, 16))))
    step = 2 ** max(bits - 4, 0)
    return int(np.ceil(1.02 * needed / step)) * step


def coarse_slots(needed: int, kept: int = 0) -> int:
    """The next of WIDTHS."""
    if needed <= kept:
        return kept
    doubled = 0
    while WIDTHS[-1] << doubled < needed:
        doubled += 1
    return next(width << doubled for width in WIDTHS if width << doubled >= needed)


def _images(n_atoms: int, width: int, needed: int, kept: int) -> int:
    # n atoms in a cube of edge L see images in a shell of the reach r about it. The width w is the number of
    # atoms in a ball:
    #     w = 4 pi / 3 r³ n / L³,        images = n [(1 + 2 r / L)³ - 1].
    # That counts all within reach of the cube; about half of them are within reach of an atom in it, so that
    # it serves cells that are no cubes, too. No list has more images than places in its table.
    if needed <= kept:
        return kept
    reach = np.cbrt(3 * width / (4 * np.pi * n_atoms))
    room = n_atoms * ((1 + 2 * reach) ** 3 - 1)
    while room < needed:
        room *= 2
    in_eights = -(-int(room) // 8) * 8
    return max(min(in_eights, n_atoms * width), needed)
