r"""Mini-batches of graphs, drawn without a compiler: pip alone installs what they need."""

from kgat.loader.link_neighbor_loader import LinkNeighborLoader
from kgat.loader.neighbor_loader import NeighborLoader
from kgat.loader.neighbor_sampler import NeighborSampler
from kgat.loader.part_loader import PartLoader, breadth_first_parts
from kgat.loader.random_node_loader import RandomNodeLoader

__all__ = [
    "LinkNeighborLoader",
    "NeighborLoader",
    "NeighborSampler",
    "PartLoader",
    "RandomNodeLoader",
    "breadth_first_parts",
]
