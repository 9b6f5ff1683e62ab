r"""Seeded splits for the benchmarks that fix none, written down so that they stay what they are."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kgat.datasets.files import atomic, read_npz, user_cache
from kgat.datasets.graph import Parts
from kgat.datasets.task import Split

Array = NDArray[Any]
# From the labelled nodes in random order and all labels to a part (1, 2, 3: train, val, test) of
# each node; 0 is a node without part.
Rule = Callable[[Array, Array], Array]

NUM_SPLITS = 20  # as many as the seeds of a comparison that is to tell small differences
FORMER_SPLITS = 10  # files used to have so many: those are drawn on


def per_class(order: Array, y: Array, *, train: int, val: int) -> Array:
    r""":obj:`train` and :obj:`val` nodes of each class, the rest is for testing.

    Of a class with few nodes no more than a third goes to either.
    """
    part = np.zeros(len(y), dtype=np.uint8)
    for nodes in _classes(order, y):
        third = len(nodes) // 3
        _deal(part, nodes, min(train, max(1, third)), min(val, third))
    return part


def per_class_train(order: Array, y: Array, *, train: int, val: int) -> Array:
    r""":obj:`train` nodes of each class, then :obj:`val` nodes of any, the rest is for testing."""
    part = per_class(order, y, train=train, val=0)
    rest = order[part[order] == 3]
    part[rest[:val]] = 2
    return part


def stratified(order: Array, y: Array, *, val: float) -> Array:
    r"""A share of each class for validating, the rest is for training; none is for testing.

    A class of two or more gives at least one to either.
    """
    part = np.zeros(len(y), dtype=np.uint8)
    part[order] = 1
    for nodes in _classes(order, y):
        part[nodes[: min(max(1, round(val * len(nodes))), len(nodes) - 1)]] = 2
    return part


def shares(order: Array, y: Array, *, train: float, val: float) -> Array:
    r"""A share of all labelled nodes for training and validating, the rest is for testing."""
    part = np.zeros(len(y), dtype=np.uint8)
    _deal(part, order, round(train * len(order)), round(val * len(order)))
    return part


def class_shares(order: Array, y: Array, *, train: float, val: float) -> Array:
    r"""A share of each class for training and validating, the rest is for testing.

    A class of three or more gives at least one to each; a smaller one is for training.
    """
    part = np.zeros(len(y), dtype=np.uint8)
    for nodes in _classes(order, y):
        most = max(1, len(nodes) - 2)
        trained = min(max(1, round(train * len(nodes))), most) if len(nodes) > 2 else len(nodes)
        _deal(part, nodes, trained, min(max(1, round(val * len(nodes))), max(0, len(nodes) - trained - 1)))
    return part


def whole_groups(order: Array, y: Array, *, groups: Array, train: float, val: float) -> Array:
    r"""Whole groups for training, until their nodes are the share, then for validating; the rest is for
    testing. Of three or more groups each part has at least one."""
    _, first, inverse, counts = np.unique(
        groups[order], return_index=True, return_inverse=True, return_counts=True
    )
    drawn = first.argsort()
    # The part that the middle of a group falls into.
    middle = (counts[drawn].cumsum() - counts[drawn] / 2) / counts.sum()
    in_turn = 1 + (middle > train).astype(np.uint8) + (middle > train + val).astype(np.uint8)
    in_turn[0], in_turn[-1] = 1, 3
    if not (in_turn == 2).any():
        in_turn[min(int((in_turn == 1).sum()), len(drawn) - 2)] = 2
    of_group = np.empty_like(in_turn)
    of_group[drawn] = in_turn
    part = np.zeros(len(y), dtype=np.uint8)
    part[order] = of_group[inverse]
    return part


def _classes(order: Array, y: Array) -> list[Array]:
    return [order[y[order] == label] for label in np.unique(y[order])]


def _deal(part: Array, nodes: Array, train: int, val: int) -> None:
    part[nodes] = 3
    part[nodes[:train]] = 1
    part[nodes[train : train + val]] = 2


def folds(name: str, y: Array, number: int) -> list[Parts]:
    r"""Stratified cross-validation: each fold is for testing once, with the next one for validating and the
    others for training. Folds are drawn from the name alone, as :func:`draw` does.

    Args:
        name (str): The name of the data set.
        y (numpy.ndarray): Classes.
        number (int): Number of folds.

    Example:
        >>> [(fold, int(test.sum())) for fold, _, _, test in folds("made", np.arange(7) % 2, 3)]
        [('fold-0', 3), ('fold-1', 2), ('fold-2', 2)]
    """
    order = _order(f"{name}/folds", y)
    fold = np.empty(len(y), dtype=np.int64)
    # Dealt in turns, class after class: neither folds nor classes in them differ by more than one.
    fold[np.concatenate(_classes(order, y))] = np.arange(len(y)) % number
    return [
        (f"fold-{k}", (fold != k) & (fold != (k + 1) % number), fold == (k + 1) % number, fold == k)
        for k in range(number)
    ]


def draw(name: str, index: int, y: Array, rule: Rule) -> Array:
    r"""Draws one split from nothing but the name of the data set and the index of the split.

    Nodes are ordered by keys from the hash function SHAKE-256, so the order is the same on each
    machine and does not depend on the version of a random number generator.
    """
    order = _order(f"{name}/{index}", y)
    return rule(order[y[order] >= 0], y)


def _order(text: str, y: Array) -> Array:
    return np.argsort(words(text, len(y)), kind="stable")


def words(text: str, count: int) -> Array:
    r"""Returns numbers of 64 bits that a text stands for."""
    return np.frombuffer(hashlib.shake_256(text.encode()).digest(8 * count), dtype="<u8")


def seeded(name: str, y: Array, rule: Rule, root: Path) -> tuple[Split, ...]:
    r"""Reads the seeded splits of a data set, or draws them and writes them down.

    They lie at ``splits/NAME.npz`` below the root; where that is read-only or full, below the user's cache.

    Raises:
        OSError: If they are not there and can be written to neither place: what kept them from the first.
        ValueError: If the file that is there belongs to other nodes or is corrupt.
    """
    refusals, is_known = [], False
    drawn = functools.cache(lambda: np.stack([draw(name, index, y, rule) for index in range(NUM_SPLITS)]))
    for folder in (root, user_cache()):
        place = folder / "splits" / f"{name}.npz"
        if place.is_file():
            written = _read(place, len(y))
            if len(written) != FORMER_SPLITS or not np.array_equal(written, drawn()[:FORMER_SPLITS]):
                return _masks(written)
            is_known = True
        try:
            with atomic(place) as file:
                np.savez_compressed(file, parts=drawn())
        except OSError as error:
            refusals.append(error)
        else:
            return _masks(drawn())
    if is_known:
        return _masks(drawn())
    # The first place is the one the user chose.
    raise refusals[0]


def _read(place: Path, num_nodes: int) -> Array:
    (parts,) = read_npz(place, "parts")
    sound = parts.ndim == 2 and parts.shape[0] > 0 and parts.dtype == np.uint8 and parts.max(initial=0) <= 3
    if not sound or parts.shape[1] != num_nodes:
        raise ValueError(
            f"Expected splits of {num_nodes} nodes in '{place}' (got {parts.dtype} "
            f"{list(parts.shape)}); delete it and load again"
        )
    return parts


def _masks(parts: Array) -> tuple[Split, ...]:
    masks = torch.from_numpy(parts)
    return tuple(
        Split(f"random-{index}", train=part == 1, val=part == 2, test=part == 3)
        for index, part in enumerate(masks)
    )
