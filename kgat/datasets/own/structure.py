r"""Features made of the graph alone, by PyG's transforms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import AddLaplacianEigenvectorPE, AddRandomWalkPE, LocalDegreeProfile
from torch_geometric.utils import is_undirected

from kgat.extras import require
from kgat.names import unknown

__all__ = ["STRUCTURES", "degree_moments", "structural_features"]

# With how many columns each has, if it takes a number.
STRUCTURES: dict[str, int | None] = {"degree": None, "walk": 16, "laplacian": 8}


def structural_features(
    edge_index: Tensor, num_nodes: int, names: Sequence[str], degrees: Sequence[Sequence[float]] | None = None
) -> Tensor:
    r"""Returns features of nodes that the edges alone decide, side by side.

    Args:
        edge_index (torch.Tensor): The edges.
        num_nodes (int): The number of nodes.
        names (list of str): :obj:`"degree"` (degree, and least, largest, mean and standard deviation of that
            of the neighbours), ``walk:K`` (chances to be back after up to :math:`K` steps of a random walk),
            ``laplacian:K`` (eigenvectors of the symmetric Laplacian, whose signs are arbitrary).
        degrees (tuple, optional): Mean and deviation that degrees are standardised by, as
            :func:`degree_moments` has them of another graph; those of this one if :obj:`None`.
            (default: :obj:`None`)

    Shapes:
        - **edge_index:** :math:`(2, E)`, **output:** :math:`(N, F)`

    Raises:
        ValueError: If a name is unknown, or there are not as many columns.

    Example:
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> structural_features(edge_index, 3, ["walk:2"]).tolist()
        [[0.0, 0.5], [0.0, 1.0], [0.0, 0.5]]
    """
    parts = []
    for text in names:
        name, _, number = (part.strip() for part in text.partition(":"))
        if name not in STRUCTURES:
            unknown("structural features", text, STRUCTURES)
        count = _count(text, STRUCTURES[name], number)
        x = _columns(edge_index, num_nodes, name, count).float()
        # Degrees and eigenvectors have scales of their own; chances stay what they are.
        mean, deviation = _moments(x) if degrees is None or name != "degree" else map(torch.tensor, degrees)
        parts.append(x if name == "walk" else (x - mean) / deviation)
    return torch.cat(parts, dim=1)


def degree_moments(
    edge_index: Tensor, num_nodes: int, fit: Tensor | None = None
) -> tuple[list[float], list[float]]:
    r"""Returns mean and deviation of the columns of ``degree``, over all nodes or those of a mask."""
    x = _columns(edge_index, num_nodes, "degree", 0).float()
    mean, deviation = _moments(x if fit is None else x[fit])
    return mean.tolist(), deviation.tolist()


def _count(text: str, default: int | None, number: str) -> int:
    if default is None:
        if number:
            raise ValueError(f"Expected 'degree' without a number (got '{text}'); leave it out")
        return 0
    if number and not (number.isdecimal() and int(number) > 0):
        raise ValueError(
            f"Expected a number of columns above 0 (got '{text}'); e.g. {text.partition(':')[0]}:8"
        )
    return int(number or default)


def _columns(edge_index: Tensor, num_nodes: int, name: str, count: int) -> Tensor:
    data = Data(edge_index=edge_index, num_nodes=num_nodes)
    if name == "degree":
        return LocalDegreeProfile()(data).x
    if name == "walk":
        return AddRandomWalkPE(count, attr_name=None)(data).x
    if count > num_nodes - 2:
        raise ValueError(
            f"Expected at most {max(num_nodes - 2, 0)} eigenvectors of a graph of {num_nodes} nodes (got "
            f"laplacian:{count}); ask for fewer"
        )
    require("for eigenvectors of the Laplacian", "scipy")
    start = {}
    if num_nodes >= AddLaplacianEigenvectorPE.SPARSE_THRESHOLD:
        # ARPACK's own start vector and PyG's signs differ from call to call.
        start["v0"] = np.random.default_rng(0).standard_normal(num_nodes).astype(np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        undirected = is_undirected(edge_index, num_nodes=num_nodes)
        return AddLaplacianEigenvectorPE(count, None, undirected, **start)(data).x


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    deviation = x.std(dim=0, correction=0)
    return x.mean(dim=0), torch.where(deviation > 0, deviation, 1.0)
