r"""Layers: projections, heads, dropout and masks around a kernel."""

from kgat.nn.fourier_attention import FourierAttention
from kgat.nn.kernel_attention import KernelAttention, KeyValueCache
from kgat.nn.kernel_gat_conv import KernelGATConv

__all__ = ["FourierAttention", "KernelAttention", "KernelGATConv", "KeyValueCache"]
