r"""Attention whose score is a kernel, for PyTorch Geometric."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from kgat.moved import OldPaths

if TYPE_CHECKING:
    from kgat import (
        datasets,
        diagnostics,
        experiments,
        functional,
        kernels,
        loader,
        models,
        nn,
        ops,
        positions,
        score,
        testing,
    )
    from kgat.models import KernelGAT, KernelTransformer
    from kgat.nn import FourierAttention, KernelAttention, KernelGATConv, PrimalAttention

__version__ = "0.1.0"

__all__ = [
    "FourierAttention",
    "KernelAttention",
    "KernelGAT",
    "KernelGATConv",
    "KernelTransformer",
    "PrimalAttention",
    "__version__",
    "datasets",
    "diagnostics",
    "experiments",
    "functional",
    "kernels",
    "loader",
    "models",
    "nn",
    "ops",
    "positions",
    "score",
    "testing",
]

_CLASSES = {
    "FourierAttention": "kgat.nn",
    "KernelAttention": "kgat.nn",
    "KernelGAT": "kgat.models",
    "KernelGATConv": "kgat.nn",
    "KernelTransformer": "kgat.models",
    "PrimalAttention": "kgat.nn",
}


def __getattr__(name: str) -> Any:
    # Looked up at first use: torch and PyG take seconds to import, which `kgat --help` should not.
    if name in _CLASSES:
        return getattr(import_module(_CLASSES[name]), name)
    if name in __all__:
        return import_module(f"kgat.{name}")
    raise AttributeError(f"module 'kgat' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if OldPaths not in sys.meta_path:
    sys.meta_path.append(OldPaths)
