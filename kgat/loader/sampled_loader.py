r"""What loaders of sampled neighbourhoods have in common, whether their inputs are nodes or links."""

from __future__ import annotations

from typing import Any, ClassVar

from torch_geometric.data import Data, HeteroData
from torch_geometric.sampler import BaseSampler

from kgat.loader.neighbor_sampler import NeighborSampler


class SampledLoader:
    r"""A loader that hands PyG's the sampler of ours. It stands before PyG's loader among the bases of a
    class: what it is given goes on to that one.

    Args:
        data (Data or HeteroData): The graph.
        num_neighbors (list of int or dict): As of :class:`NeighborSampler`.
        *args (optional): As of PyG's loader.
        seed (int, optional): As of :class:`~kgat.loader.keyed_data_loader.KeyedDataLoader`.
            (default: :obj:`None`)
        neighbor_sampler (BaseSampler, optional): A sampler to take instead of a new one.
            (default: :obj:`None`)
        **kwargs (optional): As of PyG's loader.
    """

    stock: ClassVar[type]  # PyG's loader, whose arguments say what is sampled

    def __init__(
        self,
        data: Data | HeteroData,
        num_neighbors: Any,
        *args: Any,
        seed: int | None = None,
        neighbor_sampler: BaseSampler | None = None,
        **kwargs: Any,
    ) -> None:
        if neighbor_sampler is None:
            neighbor_sampler = NeighborSampler.of_arguments(self.stock, data, num_neighbors, *args, **kwargs)
        # To PyG's loader, which hands on to torch's what it does not know.
        kwargs |= {"neighbor_sampler": neighbor_sampler, "seed": seed}
        super().__init__(data, num_neighbors, *args, **kwargs)  # type: ignore[call-arg]

    def __repr__(self) -> str:
        inputs = len(self.dataset)  # type: ignore[attr-defined]
        return f"{type(self).__name__}({inputs} inputs, batch_size={self.batch_size})"  # type: ignore[attr-defined]
