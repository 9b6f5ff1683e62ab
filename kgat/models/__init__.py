r"""Whole models: stacks of our layers, and PyG's own layers in the very same stack to compare with."""

from kgat.models.kernel_gat import AttentionGNN, KernelGAT, StockGAT, StockGATv2

__all__ = ["AttentionGNN", "KernelGAT", "StockGAT", "StockGATv2"]
