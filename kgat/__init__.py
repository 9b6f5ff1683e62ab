r"""Attention whose score is a kernel, for PyTorch Geometric."""

from kgat import functional, kernels
from kgat.models import KernelGAT
from kgat.nn import KernelGATConv

__version__ = "0.1.0"

__all__ = ["KernelGAT", "KernelGATConv", "__version__", "functional", "kernels"]
