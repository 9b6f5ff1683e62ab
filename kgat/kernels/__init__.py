r"""Kernels: one similarity a file (or a family a file), all with the contract of :class:`Kernel`.

A public subclass of :class:`Kernel` in a file of this folder is one of them, with nothing else to be done: it
resolves by name, is held to the laws by :func:`kgat.testing.check_kernel`, and is in the catalogue of the
documentation.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

# For those who read types; at run time each file of the folder is asked for its kernels, see below.
from kgat.kernels.additive import Additive as Additive
from kgat.kernels.additive import AdditiveV2 as AdditiveV2
from kgat.kernels.additive import GatedAdditive as GatedAdditive
from kgat.kernels.constant import Constant as Constant
from kgat.kernels.cosine import Cosine as Cosine
from kgat.kernels.cosine import LeakyCosine as LeakyCosine
from kgat.kernels.cosine import ScaledCosine as ScaledCosine
from kgat.kernels.distance import AbsoluteDifference as AbsoluteDifference
from kgat.kernels.distance import L2Distance as L2Distance
from kgat.kernels.distance import RationalQuadratic as RationalQuadratic
from kgat.kernels.dot import DotProduct as DotProduct
from kgat.kernels.dot import Linear as Linear
from kgat.kernels.dot import Polynomial as Polynomial
from kgat.kernels.dot import TruncatedExponential as TruncatedExponential
from kgat.kernels.features import RFA as RFA
from kgat.kernels.features import EluPlusOne as EluPlusOne
from kgat.kernels.features import FAVORPlus as FAVORPlus
from kgat.kernels.implicit import CopulaSpectral as CopulaSpectral
from kgat.kernels.implicit import ImplicitSpectral as ImplicitSpectral
from kgat.kernels.kan import KANScore as KANScore
from kgat.kernels.kernel import Context as Context
from kgat.kernels.kernel import Kernel as Kernel
from kgat.kernels.kernel import PerHead as PerHead
from kgat.kernels.kernel import Product as Product
from kgat.kernels.kernel import Sum as Sum
from kgat.kernels.laplace import Intersection as Intersection
from kgat.kernels.laplace import Laplace as Laplace
from kgat.kernels.magnitude import Magnitude as Magnitude
from kgat.kernels.periodic import Periodic as Periodic
from kgat.kernels.rbf import RBF as RBF
from kgat.kernels.sinc import SincProduct as SincProduct
from kgat.kernels.spectral import RandomFourier as RandomFourier
from kgat.kernels.spectral import Spectral as Spectral
from kgat.kernels.spectral import SpectralConcat as SpectralConcat
from kgat.names import Catalogue

KernelLike = str | Kernel | Callable[..., Kernel]


def _classes() -> dict[str, type[Kernel]]:
    modules = [importlib.import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__)]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Kernel) and value.__module__ == module.__name__
        if not name.startswith("_")
    }


_ALL = _classes()
globals().update(_ALL)
__all__ = sorted(_ALL)

_ABSTRACT = (Kernel, Product, Sum, PerHead)

CATALOGUE = Catalogue(
    Kernel,
    {name: cls for name, cls in _ALL.items() if cls not in _ABSTRACT},
    sizes=("channels", "heads"),
    # Other names that the literature uses.
    aliases={
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
        "lp": "Magnitude[learn_p=layer]",
        "mikan": "CopulaSpectral",
        "performer": "FAVORPlus",
        "quadratic": "Polynomial",
        "rff": "RandomFourier",
        "sinc": "SincProduct",
        "supergat": "GatedAdditive",
        "taylor": "TruncatedExponential",
    },
    orders={r"l(inf|\d+(?:\.\d+)?)": r"Magnitude[p=\1]"},
    joins={"*": Product, "+": Sum, "|": PerHead},
    abstract=_ABSTRACT,
)


def names() -> list[str]:
    r"""Returns the names of all concrete kernels, sorted.

    Example:
        >>> from kgat.kernels import names
        >>> names()[:3]
        ['AbsoluteDifference', 'Additive', 'AdditiveV2']
    """
    return CATALOGUE.choices


def resolve(kernel: KernelLike, channels: int, heads: int = 1, **kwargs: Any) -> Kernel:
    r"""Builds a kernel from whatever names one.

    Args:
        kernel (str or type or Callable or Kernel): One of

            * a name from :func:`names`, regardless of case, ``-``, ``_`` and spaces, or one that
              the literature uses (``"gat"``, ``"gatv2"``, ``"agnn"``, ``"gaussian"``, ``"sinc"``);
            * ``"l2"``, ``"l1.5"``, ``"linf"``: a :class:`Magnitude` of this order; ``"lp"`` learns it;
            * a name with arguments in brackets: ``"spectral[num_features=4,stationary=true]"``;
            * these joined by ``*`` (product) and ``+`` (sum; products first), and parentheses:
              ``"rbf[lengthscale=2]*l1.5"``, ``"(rbf+laplace)*lp"``;
            * several of these with ``|`` between, each of which has an equal part of the heads (the first
              ones one more, where they do not divide): ``"additive|rbf|laplace*l2"``;
            * a class, :func:`functools.partial` or function that takes ``(channels, heads)``;
            * a kernel, which is returned after a look at its channels and heads.
        channels (int): Channels per head :math:`D`.
        heads (int, optional): Number of heads :math:`H`. (default: :obj:`1`)
        **kwargs (optional): Further arguments of the class or factory. Of several names, each takes
            those that it knows; what it has in brackets goes before them.

    Raises:
        ValueError: If the name or an argument is unknown, or channels or heads differ.
        TypeError: If it is nothing that could be a kernel.

    Example:
        >>> from kgat.kernels import resolve
        >>> resolve("rbf", channels=8, heads=2)
        RBF(8, heads=2)
        >>> resolve("rbf[lengthscale=2] * l1.5", channels=8)
        Product(RBF(8, heads=1, lengthscale=2.0) * Magnitude(8, heads=1, p=1.5))
    """
    return CATALOGUE.resolve(kernel, channels, heads, **kwargs)
