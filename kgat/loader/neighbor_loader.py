r"""Mini-batches of the neighbourhoods of nodes."""

from __future__ import annotations

from typing import Any

from torch_geometric.loader import NeighborLoader as StockNeighborLoader

from kgat.loader.keyed_data_loader import KeyedDataLoader
from kgat.loader.neighbor_sampler import NeighborSampler
from kgat.loader.sampled_loader import SampledLoader


class NeighborLoader(SampledLoader, StockNeighborLoader, KeyedDataLoader):  # type: ignore[misc]
    r"""PyG's :class:`~torch_geometric.loader.NeighborLoader` on :class:`NeighborSampler`: it needs no
    compiler, and batches are the same with any number of workers.

    Args:
        data (Data or HeteroData): The graph.
        num_neighbors (list of int or dict): As of :class:`NeighborSampler`.
        seed (int, optional): What shuffling and sampling depend on, together with the number of the epoch;
            torch's generator if :obj:`None`. (default: :obj:`None`)
        neighbor_sampler (BaseSampler, optional): A sampler to take instead of a new one.
            (default: :obj:`None`)
        **kwargs (optional): :obj:`input_nodes`, :obj:`input_time`, :obj:`replace`, :obj:`subgraph_type`,
            :obj:`disjoint`, :obj:`temporal_strategy`, :obj:`time_attr`, :obj:`weight_attr`,
            :obj:`transform`, :obj:`is_sorted`, :obj:`filter_per_worker` and so on, as of PyG's loader, and
            :obj:`batch_size`, :obj:`shuffle`, :obj:`num_workers` and so on, as of
            :class:`torch.utils.data.DataLoader`.

    Shapes:
        - **batch:** its first ``batch.batch_size`` nodes are the inputs ``batch.input_id``

    Raises:
        ValueError: If an argument is not as described.
        IndexError: If an edge or an input names a node that is not there.

    Example:
        >>> import torch
        >>> from kgat.loader import NeighborLoader
        >>> from torch_geometric.data import Data
        >>> data = Data(torch.randn(4, 8), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]))
        >>> loader = NeighborLoader(data, [2, 2], batch_size=2, shuffle=True, seed=0)
        >>> [batch.batch_size for batch in loader]
        [2, 2]
    """

    stock = StockNeighborLoader

    def collate_fn(self, index: Any) -> Any:
        r"""Samples a subgraph from a batch of inputs."""
        keyed = isinstance(self.node_sampler, NeighborSampler)
        key = {"key": getattr(index, "key", None)} if keyed else {}
        out = self.node_sampler.sample_from_nodes(self.input_data[index], **key)
        return self.filter_fn(out) if self.filter_per_worker else out
