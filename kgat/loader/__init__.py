r"""Mini-batches of graphs, drawn without a compiler: pip alone installs what they need."""

from kgat.loader.link_neighbor_loader import LinkNeighborLoader
from kgat.loader.neighbor_loader import NeighborLoader
from kgat.loader.neighbor_sampler import NeighborSampler

__all__ = ["LinkNeighborLoader", "NeighborLoader", "NeighborSampler"]
