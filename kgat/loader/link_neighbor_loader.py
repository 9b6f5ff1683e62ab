r"""Mini-batches of the neighbourhoods of links."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import LinkNeighborLoader as StockLinkNeighborLoader

from kgat.loader.keyed_data_loader import KeyedDataLoader
from kgat.loader.neighbor_sampler import NeighborSampler
from kgat.loader.sampled_loader import SampledLoader
from kgat.names import bare


class LinkNeighborLoader(SampledLoader, StockLinkNeighborLoader, KeyedDataLoader):  # type: ignore[misc]
    r"""PyG's :class:`~torch_geometric.loader.LinkNeighborLoader` on :class:`NeighborSampler`: it needs no
    compiler, and batches are the same with any number of workers.

    Args:
        data (Data or HeteroData): The graph.
        num_neighbors (list of int or dict): As of :class:`NeighborSampler`.
        seed (int, optional): What shuffling and sampling depend on, together with the number of the epoch;
            torch's generator if :obj:`None`. (default: :obj:`None`)
        neighbor_sampler (BaseSampler, optional): A sampler to take instead of a new one.
            (default: :obj:`None`)
        **kwargs (optional): :obj:`edge_label_index`, :obj:`edge_label`, :obj:`edge_label_time`,
            :obj:`neg_sampling` (negatives are drawn by the seed, too), :obj:`replace`, :obj:`subgraph_type`,
            :obj:`disjoint`, :obj:`temporal_strategy`, :obj:`time_attr`, :obj:`weight_attr`,
            :obj:`transform`, :obj:`is_sorted`, :obj:`filter_per_worker` and so on, as of PyG's loader, and
            :obj:`batch_size`, :obj:`shuffle`, :obj:`num_workers` and so on, as of
            :class:`torch.utils.data.DataLoader`.

    Shapes:
        - **batch:** its links are ``batch.edge_label_index``, :math:`(2, B)`, numbered within the batch

    Raises:
        ValueError: If an argument is not as described.
        IndexError: If an edge or an input names a node that is not there.

    Example:
        >>> import torch
        >>> from kgat.loader import LinkNeighborLoader
        >>> from torch_geometric.data import Data
        >>> data = Data(torch.randn(4, 8), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]))
        >>> loader = LinkNeighborLoader(data, [2, 2], neg_sampling="binary", batch_size=2, seed=0)
        >>> [batch.edge_label.tolist() for batch in loader]
        [[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]
    """

    stock = StockLinkNeighborLoader

    def __init__(self, data: Data | HeteroData, num_neighbors: Any, *args: Any, **kwargs: Any) -> None:
        bound = inspect.signature(StockLinkNeighborLoader).bind(data, num_neighbors, *args, **kwargs)
        links = bound.arguments.get("edge_label_index")
        if isinstance(data, Data) and links is not None:
            said = f"{bare(links.dtype)} {list(links.shape)}" if isinstance(links, Tensor) else repr(links)
            is_whole = isinstance(links, Tensor) and not (links.is_floating_point() or links.is_complex())
            if not is_whole or links.dim() != 2 or links.size(0) != 2:
                raise ValueError(
                    f"Expected 'edge_label_index' as whole numbers of shape [2, I] (got {said}); row 0 has "
                    "the sources, row 1 the targets"
                )
        super().__init__(data, num_neighbors, *args, **kwargs)

    def collate_fn(self, index: Any) -> Any:
        r"""Samples a subgraph from a batch of inputs."""
        keyed = isinstance(self.link_sampler, NeighborSampler)
        key = {"key": getattr(index, "key", None)} if keyed else {}
        out = self.link_sampler.sample_from_edges(
            self.input_data[index], neg_sampling=self.neg_sampling, **key
        )
        return self.filter_fn(out) if self.filter_per_worker else out
