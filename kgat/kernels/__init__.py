r"""Kernels: one similarity a file (or a family a file), all with the contract of :class:`Kernel`.

``__all__`` is the registry: a class listed here resolves by name, is tested by
:func:`kgat.testing.check_kernel` and appears in the documentation.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from torch_geometric.resolver import normalize_string

from kgat.kernels.additive import Additive, AdditiveV2, GatedAdditive
from kgat.kernels.cosine import Cosine, LeakyCosine, ScaledCosine
from kgat.kernels.distance import AbsoluteDifference, L2Distance, RationalQuadratic
from kgat.kernels.dot import DotProduct, Linear, Polynomial, TruncatedExponential
from kgat.kernels.features import RFA, EluPlusOne, FAVORPlus
from kgat.kernels.implicit import CopulaSpectral, ImplicitSpectral
from kgat.kernels.kan import KANScore
from kgat.kernels.kernel import Context as Context  # no kernel, so that it is not in the registry
from kgat.kernels.kernel import Kernel, Product, Sum
from kgat.kernels.laplace import Intersection, Laplace
from kgat.kernels.magnitude import Magnitude
from kgat.kernels.periodic import Periodic
from kgat.kernels.rbf import RBF
from kgat.kernels.sinc import SincProduct
from kgat.kernels.spectral import RandomFourier, Spectral, SpectralConcat

__all__ = [
    "RBF",
    "RFA",
    "AbsoluteDifference",
    "Additive",
    "AdditiveV2",
    "CopulaSpectral",
    "Cosine",
    "DotProduct",
    "EluPlusOne",
    "FAVORPlus",
    "GatedAdditive",
    "ImplicitSpectral",
    "Intersection",
    "KANScore",
    "Kernel",
    "L2Distance",
    "Laplace",
    "LeakyCosine",
    "Linear",
    "Magnitude",
    "Periodic",
    "Polynomial",
    "Product",
    "RandomFourier",
    "RationalQuadratic",
    "ScaledCosine",
    "SincProduct",
    "Spectral",
    "SpectralConcat",
    "Sum",
    "TruncatedExponential",
]

KernelLike = str | Kernel | Callable[..., Kernel]

# Other names that the literature uses.
_ALIASES = {
    "agnn": "ScaledCosine",
    "cfgat": "LeakyCosine",
    "copula": "CopulaSpectral",
    "dot": "DotProduct",
    "ei": "Intersection",
    "elu": "EluPlusOne",
    "favor": "FAVORPlus",
    "fourier": "SincProduct",
    "gat": "Additive",
    "gatv2": "AdditiveV2",
    "gaussian": "RBF",
    "glcn": "AbsoluteDifference",
    "ikan": "ImplicitSpectral",
    "ikandirect": "Spectral",
    "implicit": "ImplicitSpectral",
    "kaagat": "KANScore",
    "kan": "KANScore",
    "mikan": "CopulaSpectral",
    "performer": "FAVORPlus",
    "quadratic": "Polynomial",
    "rff": "RandomFourier",
    "sinc": "SincProduct",
    "supergat": "GatedAdditive",
    "taylor": "TruncatedExponential",
}


def names() -> list[str]:
    r"""Returns the names of all concrete kernels, sorted.

    Example:
        >>> from kgat.kernels import names
        >>> names()[:3]
        ['AbsoluteDifference', 'Additive', 'AdditiveV2']
    """
    return sorted(set(__all__) - {"Kernel", "Product", "Sum"})


def resolve(kernel: KernelLike, channels: int, heads: int = 1, **kwargs: Any) -> Kernel:
    r"""Builds a kernel from whatever names one.

    Args:
        kernel (str or type or Callable or Kernel): One of

            * a name from :func:`names`, regardless of case, ``-``, ``_`` and spaces, or one that
              the literature uses (``"gat"``, ``"gatv2"``, ``"agnn"``, ``"gaussian"``, ``"sinc"``);
            * names joined by ``*`` (product) and ``+`` (sum; products first);
            * a class, :func:`functools.partial` or function that takes ``(channels, heads)``;
            * a kernel, which is returned after a look at its channels and heads.
        channels (int): Channels per head :math:`D`.
        heads (int, optional): Number of heads :math:`H`. (default: :obj:`1`)
        **kwargs (optional): Further arguments of the class or factory. Of several names, each takes
            those that it knows.

    Raises:
        ValueError: If the name or an argument is unknown, or channels or heads differ.
        TypeError: If it is nothing that could be a kernel.

    Example:
        >>> from kgat.kernels import resolve
        >>> resolve("rbf", channels=8, heads=2)
        RBF(8, heads=2)
        >>> resolve("rbf * magnitude", channels=8, p=1.5)
        Product(RBF(8, heads=1) * Magnitude(8, heads=1, p=1.5))
    """
    if isinstance(kernel, str):
        return _from_name(kernel, channels, heads, kwargs)
    if isinstance(kernel, Kernel):
        if kwargs:
            raise ValueError(
                f"Expected no arguments beside a kernel that is built already "
                f"(got {_quoted(kwargs)}); pass them to its class"
            )
        return _checked(kernel, channels, heads)
    if isinstance(kernel, type):
        if not issubclass(kernel, Kernel) or kernel in (Kernel, Product, Sum):
            raise TypeError(f"Expected a concrete subclass of 'Kernel' (got {kernel!r})")
        _check_arguments([kernel], kwargs)
        return _checked(kernel(channels, heads, **kwargs), channels, heads)
    if not callable(kernel) or hasattr(kernel, "parameters"):  # a module is no factory
        raise TypeError(f"Expected a kernel: a name, a class, a factory or a 'Kernel' (got {kernel!r})")
    built = kernel(channels, heads, **kwargs)
    if not isinstance(built, Kernel):
        raise TypeError(f"Expected {kernel!r} to return a 'Kernel' (got {built!r})")
    return _checked(built, channels, heads)


def _from_name(name: str, channels: int, heads: int, kwargs: dict[str, Any]) -> Kernel:
    sums = [[_lookup(factor) for factor in term.split("*")] for term in name.split("+")]
    _check_arguments([cls for term in sums for cls in term], kwargs)

    def build(cls: type[Kernel]) -> Kernel:
        known = _arguments(cls)
        return cls(channels, heads, **{k: v for k, v in kwargs.items() if k in known})

    products = []
    for term in sums:
        factors = [build(cls) for cls in term]
        products.append(factors[0] if len(factors) == 1 else Product(*factors))
    return products[0] if len(products) == 1 else Sum(*products)


def _lookup(name: str) -> type[Kernel]:
    wanted = normalize_string(name)
    classes = {normalize_string(choice): choice for choice in names()} | _ALIASES
    if wanted not in classes:
        if order := re.fullmatch(r"l(p|inf|\d+(\.\d+)?)", name.strip().lower()):
            p = {"p": "'learned'", "inf": "float('inf')"}.get(order[1], order[1])
            kwargs = "'learn_p': 'layer'" if order[1] == "p" else f"'p': {p}"
            raise ValueError(
                f"Expected the name of a kernel (got {name.strip()!r}, as models are named); give a layer "
                f"magnitude={p} beside the name of its kernel, or name the factor 'magnitude', with "
                f"kernel_kwargs={{{kwargs}}}"
            )
        raise ValueError(
            f"Expected the name of a kernel (got {name.strip()!r}); choose from "
            f"{', '.join(names())}, or join several by '*' or '+'"
        )
    return globals()[classes[wanted]]


def _arguments(cls: type[Kernel]) -> list[str]:
    parameters = inspect.signature(cls).parameters
    return [name for name in parameters if name not in ("channels", "heads")]


def _check_arguments(classes: list[type[Kernel]], kwargs: dict[str, Any]) -> None:
    known = sorted({name for cls in classes for name in _arguments(cls)})
    unknown = [name for name in kwargs if name not in known]
    if unknown:
        title = " * ".join(cls.__name__ for cls in classes)
        takes = f"it takes {_quoted(known)}" if known else "it takes none"
        raise ValueError(f"Expected arguments of {title} (got {_quoted(unknown)}); {takes}")


def _checked(kernel: Kernel, channels: int, heads: int) -> Kernel:
    if (kernel.channels, kernel.heads) != (channels, heads):
        raise ValueError(
            f"Expected a kernel of channels={channels}, heads={heads} (got {kernel!r}); build it "
            f"for this layer, or pass its class"
        )
    return kernel


def _quoted(items: Any) -> str:
    return ", ".join(f"'{item}'" for item in items)
