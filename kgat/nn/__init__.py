r"""Layers: projections, heads, dropout and masks around a kernel."""

from kgat.nn.kernel_gat_conv import KernelGATConv

__all__ = ["KernelGATConv"]
