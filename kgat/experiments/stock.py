r"""The layers of PyG that ours are compared with, in the very same stack."""

from torch_geometric.nn.conv import GATConv, GATv2Conv

from kgat.models import AttentionGNN

__all__ = ["StockGAT", "StockGATv2"]


class StockGAT(AttentionGNN):
    r"""PyG's own :class:`GATConv` in the stack of :class:`KernelGAT`: only the layer differs.

    Args:
        *args: As :class:`AttentionGNN`.
        **kwargs: As :class:`AttentionGNN`.

    Shapes:
        - **input:** node features :math:`(N, F_{in})`, edges :math:`(2, E)`
        - **output:** :math:`(N, F_{out})`

    Example:
        >>> from kgat.experiments.stock import StockGAT
        >>> StockGAT(16, 32, num_layers=2, out_channels=3, heads=4)
        StockGAT(16, 3, num_layers=2)
    """

    conv_class = GATConv


class StockGATv2(AttentionGNN):
    r"""PyG's own :class:`GATv2Conv` in the stack of :class:`KernelGAT`: only the layer differs.

    Args:
        *args: As :class:`AttentionGNN`.
        **kwargs: As :class:`AttentionGNN`.

    Shapes:
        - **input:** node features :math:`(N, F_{in})`, edges :math:`(2, E)`
        - **output:** :math:`(N, F_{out})`

    Example:
        >>> from kgat.experiments.stock import StockGATv2
        >>> StockGATv2(16, 32, num_layers=2, out_channels=3, heads=4)
        StockGATv2(16, 3, num_layers=2)
    """

    conv_class = GATv2Conv
