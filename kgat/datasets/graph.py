r"""A graph as raw files give it, and steps that several families of raw files share."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kgat.datasets.files import expect
from kgat.datasets.nearest import nearest

Array = NDArray[Any]
Parts = tuple[str, Array, Array, Array]

# Dropout and a first layer of 64 channels, forward and backward, take half the time of dense
# features on PubMed (10.02 % non-zero) and a seventh on Cora (1.3 %), measured on a CPU.
SPARSE_DENSITY, SPARSE_WIDTH = 0.11, 100
DAMAGED = "the raw file is damaged: delete it and load again"


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


def neighbourhood(x: Array, y: Array, neighbours: int = 8) -> Graph:
    r"""Returns points as a graph: columns standardised, each point with edges to its nearest ones."""
    deviation = x.std(axis=0)
    # Some columns are constant, as the border pixels of digits are.
    x = (x - x.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return Graph(x, np.arange(len(x)).repeat(neighbours), nearest(x, neighbours).ravel(), y)


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


def sorted_edges(name: str, row: Array, col: Array, num_nodes: int, undirected: bool) -> Tensor:
    r"""Returns edges as a tensor: each once, none from a node to itself, sorted by target, then source.

    Args:
        name (str): What errors call the data set.
        row, col (numpy.ndarray): The ends of edges.
        num_nodes (int): Number of nodes.
        undirected (bool): Whether edges are made to count in both directions.

    Raises:
        ValueError: If the ends are no whole numbers.
        IndexError: If an edge leads to no node.

    Example:
        >>> sorted_edges("made", np.array([0, 1, 1]), np.array([1, 1, 2]), 3, undirected=True)
        tensor([[1, 0, 2, 1],
                [0, 1, 1, 2]])
    """
    if any(np.asarray(end).dtype.kind not in "iu" for end in (row, col)):
        raise ValueError(
            f"Expected whole numbers as the ends of edges of '{name}' (got {row.dtype} and {col.dtype}); "
            f"{DAMAGED}"
        )
    ends = source, target = [torch.from_numpy(np.array(end, dtype=np.int64)) for end in (row, col)]
    for end in ends:
        if end.numel() > 0 and not 0 <= int(end.min()) <= int(end.max()) < num_nodes:
            wrong = end[(end < 0) | (end >= num_nodes)][0]
            raise IndexError(
                f"Expected edges of '{name}' between nodes 0 to {num_nodes - 1} (got node {int(wrong)}); the "
                "raw files do not belong together: delete them and load again"
            )
    no_loop = source != target
    source, target = source[no_loop], target[no_loop]
    if undirected:
        source, target = torch.cat([source, target]), torch.cat([target, source])
    # One number per edge, so that one sort orders by target, then source, and shows duplicates.
    key = torch.unique(target * num_nodes + source)
    return torch.stack([key % num_nodes, key // num_nodes])


def feature_tensor(x: Any, sparse: bool | str = "auto") -> tuple[Tensor, str]:
    r"""Returns features as a tensor, and the word for its layout.

    Args:
        x (numpy.ndarray or scipy.sparse matrix): The features.
        sparse (bool or str, optional): Whether it is a :obj:`torch.sparse_csr` tensor; :obj:`"auto"` decides
            by width and density. (default: :obj:`"auto"`)

    Example:
        >>> feature_tensor(np.eye(2))
        (tensor([[1., 0.],
                [0., 1.]]), 'dense')
    """
    rows, columns = x.shape
    is_dense = isinstance(x, np.ndarray)
    if sparse == "auto":
        stored = np.count_nonzero(x) if is_dense else x.nnz
        sparse = columns >= SPARSE_WIDTH and stored < SPARSE_DENSITY * rows * columns
    if not sparse:
        return torch.from_numpy(np.require(x if is_dense else x.toarray(), np.float32, ["C", "W"])), "dense"
    from scipy.sparse import csr_matrix

    x = csr_matrix(x, dtype=np.float32, copy=True)
    x.sum_duplicates()
    x.eliminate_zeros()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        tensor = torch.sparse_csr_tensor(
            torch.from_numpy(x.indptr.astype(np.int64)),
            torch.from_numpy(x.indices.astype(np.int64)),
            torch.from_numpy(x.data),
            size=(rows, columns),
            check_invariants=True,
        )
    return tensor, "sparse"
