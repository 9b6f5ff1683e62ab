r"""Mini-batches of parts of a graph with all edges inside of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from kgat.loader import loops
from kgat.loader.neighbor_loader import NeighborLoader
from kgat.names import bare
from kgat.ops.graph.adjacency import Adjacency


def breadth_first_parts(edge_index: Tensor, num_nodes: int, num_parts: int, seed: int = 0) -> Tensor:
    r"""Returns a part for each node, of equally many nodes, grown breadth first.

    It is quick and cuts fewer edges than chance, but more than METIS, which it does not stand in for in a
    comparison with Cluster-GCN.

    Args:
        edge_index (torch.Tensor): The edges; their direction does not matter.
        num_nodes (int): Number of nodes :math:`N`.
        num_parts (int): Number of parts.
        seed (int, optional): Decides where the first part starts. (default: :obj:`0`)

    Shapes:
        - **edge_index:** :math:`(2, E)`, **output:** :math:`(N)`

    Raises:
        ValueError: If there are fewer nodes than parts.

    Example:
        >>> import torch
        >>> from kgat.loader import breadth_first_parts
        >>> path = torch.stack([torch.arange(5), torch.arange(1, 6)])
        >>> breadth_first_parts(path, 6, 2).bincount()
        tensor([3, 3])
    """
    check_parts(num_parts, num_nodes)
    adjacency = Adjacency.of(edge_index.cpu(), 1, num_nodes, num_nodes)
    sides = (adjacency.rowptr, adjacency.col, adjacency.colptr, adjacency.row)
    generator = torch.Generator("cpu").manual_seed(seed)
    order = torch.randperm(num_nodes, generator=generator, device="cpu")
    return torch.from_numpy(loops.grow_parts(*(side.numpy() for side in (*sides, order)), num_parts))


def check_parts(num_parts: int, num_nodes: int) -> None:
    r"""Raises a :class:`ValueError` unless a graph has so many parts."""
    if not 0 < num_parts <= num_nodes:
        raise ValueError(
            f"Expected 'num_parts' in [1, {num_nodes}], the number of nodes (got {num_parts}); no part "
            "is empty"
        )


class _PartBatches:
    # Some parts at a time: their nodes.
    def __init__(self, part: Tensor, size: int, shuffle: bool, generator: torch.Generator | None) -> None:
        self.nodes = part.argsort(stable=True).split(part.bincount().tolist())
        self.size, self.shuffle, self.generator = size, shuffle, generator

    def __len__(self) -> int:
        return math.ceil(len(self.nodes) / self.size)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.arange(len(self.nodes))
        if self.shuffle:
            order = torch.randperm(len(self.nodes), generator=self.generator, device="cpu")
        for parts in order.split(self.size):
            yield torch.cat([self.nodes[part] for part in parts]).tolist()


class PartLoader(NeighborLoader):
    r"""Mini-batches of parts of a graph, with all edges inside of a batch, as in the `"Cluster-GCN"
    <https://arxiv.org/abs/1905.07953>`_ paper, which takes parts from METIS.

    Args:
        data (Data): The graph.
        num_parts (int or torch.Tensor): How many parts :func:`breadth_first_parts` makes, or the part of each
            node, from whatever made them.
        batch_size (int, optional): Parts per batch. (default: :obj:`1`)
        shuffle (bool, optional): Whether to draw which parts meet, anew in each epoch.
            (default: :obj:`False`)
        seed (int, optional): As of :class:`NeighborLoader`. (default: :obj:`None`)
        **kwargs (optional): As of :class:`NeighborLoader`.

    Shapes:
        - **batch:** nodes ``batch.n_id``, edges ``batch.e_id``

    Raises:
        ValueError: If there are fewer nodes than parts, or parts are not one per node.

    Example:
        >>> import torch
        >>> from kgat.loader import PartLoader
        >>> from torch_geometric.data import Data
        >>> data = Data(torch.randn(4, 8), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]))
        >>> [batch.num_nodes for batch in PartLoader(data, 2, shuffle=True, seed=0)]
        [2, 2]
    """

    def __init__(
        self,
        data: Data,
        num_parts: int | Tensor,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        nodes = int(data.num_nodes or 0)
        if isinstance(num_parts, Tensor):
            part = num_parts
            if part.shape != (nodes,) or part.is_floating_point() or (part < 0).any():
                raise ValueError(
                    f"Expected 'num_parts' as a number or as a part of at least 0 for each of {nodes} nodes "
                    f"(got {bare(part.dtype)} {list(part.shape)}); number the parts from 0"
                )
        else:
            part = breadth_first_parts(data.edge_index, nodes, num_parts, seed or 0)
        generator = kwargs.pop("generator", None)
        if generator is None and seed is not None:
            generator = torch.Generator()
        batches = _PartBatches(part, batch_size, shuffle, generator)
        kwargs |= {"batch_sampler": batches, "generator": generator, "seed": seed}
        super().__init__(data, [], subgraph_type="induced", **kwargs)
