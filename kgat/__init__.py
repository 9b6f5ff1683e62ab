r"""Attention whose score is a kernel, for PyTorch Geometric."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgat import functional, kernels, positions
    from kgat.models import KernelGAT, KernelTransformer
    from kgat.nn import KernelGATConv

__version__ = "0.1.0"

__all__ = [
    "KernelGAT",
    "KernelGATConv",
    "KernelTransformer",
    "__version__",
    "functional",
    "kernels",
    "positions",
]

_CLASSES = {
    "KernelGAT": "kgat.models",
    "KernelGATConv": "kgat.nn",
    "KernelTransformer": "kgat.models",
}


def __getattr__(name: str) -> Any:
    # Looked up at first use: torch and PyG take seconds to import, which `kgat --help` should not.
    if name in _CLASSES:
        return getattr(import_module(_CLASSES[name]), name)
    if name in __all__:
        return import_module(f"kgat.{name}")
    raise AttributeError(f"module 'kgat' has no attribute '{name}'")
