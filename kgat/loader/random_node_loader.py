r"""Mini-batches of random nodes."""

from __future__ import annotations

import math
from typing import Any

from torch_geometric.data import Data

from kgat.loader.neighbor_loader import NeighborLoader
from kgat.loader.part_loader import check_parts


class RandomNodeLoader(NeighborLoader):
    r"""Mini-batches of random nodes, with all edges between them: each node is in one batch of an epoch.

    Args:
        data (Data): The graph.
        num_parts (int): How many batches an epoch has.
        seed (int, optional): As of :class:`NeighborLoader`. (default: :obj:`None`)
        **kwargs (optional): As of :class:`NeighborLoader`.

    Shapes:
        - **batch:** nodes ``batch.n_id``, edges ``batch.e_id``

    Raises:
        ValueError: If there are fewer nodes than parts.

    Example:
        >>> import torch
        >>> from kgat.loader import RandomNodeLoader
        >>> from torch_geometric.data import Data
        >>> data = Data(torch.randn(4, 8), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]))
        >>> [batch.num_nodes for batch in RandomNodeLoader(data, 2, seed=0)]
        [2, 2]
    """

    def __init__(self, data: Data, num_parts: int, seed: int | None = None, **kwargs: Any) -> None:
        nodes = int(data.num_nodes or 0)
        check_parts(num_parts, nodes)
        size = math.ceil(nodes / num_parts)
        super().__init__(
            data, [], subgraph_type="induced", batch_size=size, shuffle=True, seed=seed, **kwargs
        )
