r"""How the places of tokens enter attention: one integration a file, and the filters of what a query sees.

:func:`names` is the registry: a class listed there resolves by name, is tested and documented.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.nn import Module
from torch_geometric.resolver import normalize_string

from kgat.positions.alibi import ALiBi
from kgat.positions.filters import Filter, causal, full, memory, strided, visible_edges, window
from kgat.positions.kerple import Kerple
from kgat.positions.position import Index, Position, offsets, sinusoids
from kgat.positions.relative_table import RelativeTable
from kgat.positions.rotary import Rotary
from kgat.positions.sum import Sum
from kgat.positions.symmetric_product import SymmetricProduct
from kgat.positions.transformer_xl import TransformerXL

__all__ = [
    "ALiBi",
    "Filter",
    "Index",
    "Kerple",
    "Position",
    "PositionLike",
    "RelativeTable",
    "Rotary",
    "Sum",
    "SymmetricProduct",
    "TransformerXL",
    "causal",
    "full",
    "memory",
    "names",
    "offsets",
    "resolve",
    "sinusoids",
    "strided",
    "visible_edges",
    "window",
]

PositionLike = str | Position | Callable[..., Position] | None

_CLASSES: tuple[type[Position], ...] = (
    ALiBi,
    Kerple,
    RelativeTable,
    Rotary,
    Sum,
    SymmetricProduct,
    TransformerXL,
)

# Other names that the literature uses.
_ALIASES: dict[str, Callable[..., Position]] = {
    "absolute": Sum,
    "kerplelog": partial(Kerple, form="log"),
    "kerplepower": partial(Kerple, form="power"),
    "rope": Rotary,
    "roformer": Rotary,
    "shaw": partial(RelativeTable, form="table-S"),
    "symmetric": SymmetricProduct,
    "table": partial(RelativeTable, form="table"),
    "tables": partial(RelativeTable, form="table-S"),
    "txl": TransformerXL,
}


def names() -> list[str]:
    r"""Returns the names of all positions, sorted; ``"none"`` is that of having none.

    Example:
        >>> from kgat.positions import names
        >>> names()
        ['ALiBi', 'Kerple', 'RelativeTable', 'Rotary', 'Sum', 'SymmetricProduct', 'TransformerXL', 'none']
    """
    return [*(cls.__name__ for cls in _CLASSES), "none"]


def resolve(position: PositionLike, embed_dim: int, num_heads: int = 1, **kwargs: Any) -> Position | None:
    r"""Builds a position from whatever names one.

    Args:
        position (str or type or Callable or Position, optional): One of

            * a name from :func:`names`, regardless of case, ``-``, ``_`` and spaces, or one that the
              literature uses (``"table"``, ``"table-S"``, ``"shaw"``, ``"txl"``, ``"symmetric"``,
              ``"kerple_power"``, ``"rope"``);
            * a class, :func:`functools.partial` or function that takes ``(embed_dim, num_heads)``;
            * a position, which is returned after a look at its width and heads;
            * :obj:`None` or ``"none"``: no position.
        embed_dim (int): Width of the tokens :math:`F = H D`.
        num_heads (int, optional): Number of heads :math:`H`. (default: :obj:`1`)
        **kwargs (optional): Further arguments of the class or factory.

    Raises:
        ValueError: If the name or an argument is unknown, or width or heads differ.
        TypeError: If it is nothing that could be a position.

    Example:
        >>> from kgat.positions import resolve
        >>> resolve("table-S", 8, num_heads=2, max_offset=4)
        RelativeTable(8, num_heads=2, max_offset=4, form='table-S')
        >>> resolve("none", 8) is None
        True
    """
    if isinstance(position, str):
        position = _lookup(position)
    if position is None or isinstance(position, Position):
        if kwargs:
            raise ValueError(
                f"Expected no arguments beside a position that is built already or none (got "
                f"{_quoted(kwargs)} beside {position!r}); pass its class or name"
            )
        built = position
    elif not callable(position) or isinstance(position, Module):  # a module is no factory
        raise TypeError(f"Expected a position: a name, a class, a factory or a 'Position' (got {position!r})")
    else:
        _check_arguments(position, kwargs)
        built = position(embed_dim, num_heads, **kwargs)
        if not isinstance(built, Position):
            raise TypeError(f"Expected {position!r} to return a 'Position' (got {built!r})")
    if built is not None and (built.embed_dim, built.num_heads) != (embed_dim, num_heads):
        raise ValueError(
            f"Expected a position of embed_dim={embed_dim}, num_heads={num_heads} (got {built!r}); build it "
            f"for this layer, or pass its class"
        )
    return built


def _lookup(name: str) -> Callable[..., Position] | None:
    choices = {normalize_string(cls.__name__): cls for cls in _CLASSES} | _ALIASES
    wanted = normalize_string(name)
    if wanted != "none" and wanted not in choices:
        raise ValueError(f"Expected the name of a position (got {name!r}); choose from {', '.join(names())}")
    return choices.get(wanted)


def _check_arguments(factory: Callable[..., Position], kwargs: dict[str, Any]) -> None:
    parameters = inspect.signature(factory).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = [name for name in parameters if name not in ("embed_dim", "num_heads")]
    unknown = [name for name in kwargs if name not in known]
    if unknown:
        title = getattr(factory, "__name__", factory)
        takes = f"it takes {_quoted(known)}" if known else "it takes none"
        raise ValueError(f"Expected arguments of {title} (got {_quoted(unknown)}); {takes}")


def _quoted(items: Any) -> str:
    return ", ".join(f"'{item}'" for item in items)
