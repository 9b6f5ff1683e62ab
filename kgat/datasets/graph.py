r"""A graph as raw files give it, and steps that several families of raw files share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kgat.datasets.files import expect

Array = NDArray[Any]
Parts = tuple[str, Array, Array, Array]


@dataclass(frozen=True)
class Graph:
    r"""A graph as its raw files give it: NumPy arrays (a SciPy CSR matrix for sparse features).

    Args:
        x (numpy.ndarray or scipy.sparse.csr_matrix): Features.
        row, col (numpy.ndarray): The ends of edges.
        y (numpy.ndarray): Labels.
        parts (list of tuple, optional): Splits that the benchmark fixes: their names and the masks of
            training, validation and test nodes. (default: :obj:`[]`)
    """

    x: Any
    row: Array
    col: Array
    y: Array
    parts: list[Parts] = field(default_factory=list)


def numbered(name: str, masks: Iterable[Iterable[Any]]) -> list[Parts]:
    r"""Names splits by their number."""
    return [(f"{name}-{index}", *three) for index, three in enumerate(masks)]  # type: ignore[misc]


def each_with_its_list(keys: Iterable[int], lists: Sequence[Any]) -> tuple[Array, Array]:
    r"""Returns pairs of a key and an entry of its list, as two arrays.

    Example:
        >>> each_with_its_list([7, 8], [[1, 2], [3]])
        (array([7, 7, 8]), array([1, 2, 3]))
    """
    lengths = [len(entries) for entries in lists]
    return np.repeat(list(keys), lengths), np.concatenate([np.array(x, dtype=np.int64) for x in lists])


def presence(node: Array, column: Array, shape: tuple[int, int]) -> Any:
    r"""Returns a CSR matrix that has a one wherever a node has a column, be it listed once or twice."""
    from scipy.sparse import csr_matrix

    x = csr_matrix((np.ones(len(node)), (node, column)), shape=shape)
    x.data[:] = 1.0
    return x


def mask(nodes: Any, num_nodes: int) -> Array:
    r"""Returns the mask of listed nodes."""
    of = np.zeros(num_nodes, dtype=bool)
    of[inside(nodes, num_nodes)] = True
    return of


def inside(nodes: Any, num_nodes: int) -> Array:
    r"""Returns nodes as indices that were checked: NumPy would count a negative one from the end."""
    nodes = np.asarray(nodes, dtype=np.int64)
    wrong = nodes[(nodes < 0) | (nodes >= num_nodes)]
    expect(not wrong.size, f"node {wrong[:1]} where 0 to {num_nodes - 1} are possible")
    return nodes
