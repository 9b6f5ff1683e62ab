r"""What a layer of a transformer may be told to attend with: a name, or a factory of modules that are called
like :class:`torch.nn.MultiheadAttention`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from kgat import kernels
from kgat.names import UnknownName, unknown
from kgat.nn.fourier_attention import FourierAttention
from kgat.nn.kernel_attention import KernelAttention
from kgat.nn.key_value_cache import KeyValueCache
from kgat.nn.primal_attention import PrimalAttention

AttentionLike = str | Callable[..., torch.nn.Module]

NAMED = {"fourier": FourierAttention, "kernel": KernelAttention, "primal": PrimalAttention}


def resolve(attention: AttentionLike) -> Callable[..., torch.nn.Module]:
    r"""Returns the factory of attention modules that is meant.

    Args:
        attention (str or Callable): One of

            * ``"kernel"``, :class:`~kgat.nn.KernelAttention`, whose kernel is an argument of its own;
            * ``"fourier"``, :class:`~kgat.nn.FourierAttention`, or ``"primal"``,
              :class:`~kgat.nn.PrimalAttention`;
            * the name of a kernel (``"rbf"``, ``"rbf*l1.5"``), see :func:`kgat.kernels.resolve`: short for
              :class:`~kgat.nn.KernelAttention` with that kernel;
            * a class, :func:`functools.partial` or function that takes ``(embed_dim, num_heads)`` and
              keyword arguments, and returns a module called like :class:`torch.nn.MultiheadAttention`.

    Raises:
        ValueError: If it is a name of neither.
        TypeError: If it is a module that is built already, which no two layers may share, or no factory.

    Example:
        >>> from kgat.nn.attention import resolve
        >>> resolve("rbf")(32, num_heads=4).kernel
        RBF(8, heads=4)
    """
    if isinstance(attention, str):
        named = NAMED.get(attention.strip().lower())
        if named is not None:
            return named
        try:
            kernels.CATALOGUE.read(attention)
        except UnknownName as error:
            choices, also = [*NAMED, *kernels.names()], kernels.CATALOGUE.spellings
            unknown("the name of an attention or a kernel", attention, choices, also, part=error.name)
        return functools.partial(KernelAttention, kernel=attention)
    if not callable(attention) or isinstance(attention, torch.nn.Module):
        raise TypeError(
            f"Expected 'attention' as a name or a factory called with (embed_dim, num_heads) (got one of "
            f"type '{type(attention).__name__}'); pass a class, or a functools.partial of it"
        )
    return attention


def accepts(attention: AttentionLike, argument: str) -> bool:
    r"""Whether an attention module has an argument that no :func:`functools.partial` has set.

    Args:
        attention (str or Callable): As in :func:`resolve`.
        argument (str): Its name.

    Example:
        >>> from kgat.nn.attention import accepts
        >>> accepts("kernel", "kernel"), accepts("rbf", "kernel"), accepts("primal", "position")
        (True, False, False)
    """
    factory, arguments = _unwrapped(attention)
    if argument in arguments:
        return False
    if not isinstance(factory, type):
        return _takes(factory, argument) is not False
    if issubclass(factory, FourierAttention) and argument in ("kernel", "kernel_kwargs"):
        return False  # it passes on to KernelAttention what it does not set
    for cls in factory.__mro__:
        if "__init__" in vars(cls) and (taken := _takes(vars(cls)["__init__"], argument)) is not None:
            return taken
    return False


def _unwrapped(attention: AttentionLike) -> tuple[Callable[..., torch.nn.Module], Mapping[str, Any]]:
    factory = resolve(attention)
    return (factory.func, factory.keywords) if isinstance(factory, functools.partial) else (factory, {})


def _takes(function: Callable[..., Any], argument: str) -> bool | None:
    # None: as one of any, which may be passed on to where it is not known.
    parameters = inspect.signature(function).parameters
    if argument in parameters:
        return True
    return None if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) else False


def is_primal(attention: AttentionLike) -> bool:
    r"""Whether an attention module is a :class:`~kgat.nn.PrimalAttention`.

    Args:
        attention (str or Callable): As in :func:`resolve`.
    """
    factory, _ = _unwrapped(attention)
    return isinstance(factory, type) and issubclass(factory, PrimalAttention)


def build(
    attention: AttentionLike,
    embed_dim: int,
    num_heads: int,
    offered: Mapping[str, Any],
    given: Mapping[str, Any] | None = None,
) -> torch.nn.Module:
    r"""Builds an attention module.

    Args:
        attention (str or Callable): As in :func:`resolve`.
        embed_dim (int): Channels of a token.
        num_heads (int): Number of heads :math:`H`.
        offered (dict): What the layer around it knows: each argument that the module has is passed.
        given (dict, optional): What the user asks for: all of it is passed, and goes before what is offered.
            (default: :obj:`None`)

    Raises:
        ValueError: If the module lacks an argument that is given.
    """
    given = {} if given is None else given
    unknown = [name for name in given if not accepts(attention, name)]
    if unknown:
        raise ValueError(
            f"Expected arguments of attention={attention!r} (got {', '.join(map(repr, unknown))}); it has no "
            f"such argument, or has it set"
        )
    taken = {name: value for name, value in offered.items() if accepts(attention, name)}
    return resolve(attention)(embed_dim, num_heads, **{**taken, **given})


def attend(
    attention: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    attn_mask: Tensor | None,
    key_padding_mask: Tensor | None,
    is_causal: bool,
    losses: list[Tensor] | None,
    cache: KeyValueCache | None,
) -> Tensor:
    r"""Calls an attention module, with penalties and cache only where there are some: not all modules take
    them.

    Shapes:
        - **query, output:** :math:`(B, N, F)`, **key:** :math:`(B, M, F)`
    """
    extra = {name: x for name, x in (("losses", losses), ("cache", cache)) if x is not None}
    out, _ = attention(
        *(query, key, key),
        key_padding_mask=key_padding_mask,
        need_weights=False,
        attn_mask=attn_mask,
        is_causal=is_causal,
        **extra,
    )
    return out


def empty_cache(attention: torch.nn.Module, fixed: bool = False) -> KeyValueCache | None:
    r"""Returns an empty cache of an attention module, or :obj:`None` if it keeps none.

    Args:
        attention (torch.nn.Module): The module.
        fixed (bool, optional): As in :class:`~kgat.nn.KeyValueCache`. (default: :obj:`False`)
    """
    return KeyValueCache(fixed) if isinstance(attention, KernelAttention) else None
