r"""Mini-batches of the neighbourhoods of nodes."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import NeighborLoader as StockNeighborLoader

from kgat.brief import brief
from kgat.loader.keyed_data_loader import KeyedDataLoader
from kgat.loader.neighbor_sampler import NeighborSampler
from kgat.loader.sampled_loader import SampledLoader
from kgat.names import bare, unknown


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

    def __init__(self, data: Data | HeteroData, num_neighbors: Any, *args: Any, **kwargs: Any) -> None:
        bound = inspect.signature(StockNeighborLoader).bind(data, num_neighbors, *args, **kwargs)
        _check_inputs(data, bound.arguments.get("input_nodes"))
        super().__init__(data, num_neighbors, *args, **kwargs)

    def collate_fn(self, index: Any) -> Any:
        r"""Samples a subgraph from a batch of inputs."""
        keyed = isinstance(self.node_sampler, NeighborSampler)
        key = {"key": getattr(index, "key", None)} if keyed else {}
        out = self.node_sampler.sample_from_nodes(self.input_data[index], **key)
        return self.filter_fn(out) if self.filter_per_worker else out


def _check_inputs(data: Data | HeteroData, input_nodes: Any) -> None:
    # Of others than these PyG's loader says what is wrong, or the sampler, whose nodes are out of range.
    nodes, num_nodes = input_nodes, data.num_nodes
    if isinstance(data, HeteroData):
        is_pair = isinstance(input_nodes, list | tuple) and len(input_nodes) == 2
        if not isinstance(input_nodes[0] if is_pair else input_nodes, str):
            raise ValueError(
                "Expected 'input_nodes' as a type of nodes, or a pair of it and nodes (got "
                f"{brief(input_nodes)}); types are {', '.join(data.node_types)}"
            )
        name, nodes = input_nodes if is_pair else (input_nodes, None)
        if name not in data.node_types:
            unknown("a type of nodes of 'input_nodes'", name, data.node_types)
        num_nodes = data[name].num_nodes
    elif isinstance(input_nodes, str):
        raise ValueError(
            f"Expected 'input_nodes' as numbers or a mask of nodes (got '{input_nodes}'); the graph has one "
            "type of them"
        )
    if nodes is None:
        return
    nodes = nodes if isinstance(nodes, Tensor) else torch.as_tensor(nodes)
    is_mask = nodes.dtype == torch.bool
    wrong = nodes.is_floating_point() or nodes.is_complex()
    if nodes.numel() and (nodes.dim() != 1 or wrong or (is_mask and nodes.numel() != num_nodes)):
        raise ValueError(
            f"Expected 'input_nodes' as whole numbers of shape [I], or a mask of {num_nodes} nodes (got "
            f"{bare(nodes.dtype)} {list(nodes.shape)}); pass data.train_mask, or numbers of nodes"
        )
