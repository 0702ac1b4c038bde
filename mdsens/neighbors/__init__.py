"""Pairs of atoms within reach: what they are, and how they are found."""

from mdsens.neighbors.lists import (
    ALL_PAIRS_LIMIT,
    Neighbors,
    Table,
    beyond,
    choose_builder,
    find_neighbors,
    list_of_pairs,
    search_on_device,
    search_on_host,
)
from mdsens.neighbors.shapes import Capacity
from mdsens.neighbors.within import nearer

__all__ = [
    "ALL_PAIRS_LIMIT",
    "Capacity",
    "Neighbors",
    "Table",
    "choose_builder",
    "find_neighbors",
    "beyond",
    "list_of_pairs",
    "nearer",
    "search_on_device",
    "search_on_host",
]
