r"""How the places of tokens enter attention: one integration a file, and the filters of what a query sees.

:func:`names` is the registry: a class listed there resolves by name, is tested and documented.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kgat.names import Catalogue, normalized
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

CATALOGUE = Catalogue(
    Position,
    {
        cls.__name__: cls
        for cls in (ALiBi, Kerple, RelativeTable, Rotary, Sum, SymmetricProduct, TransformerXL)
    },
    sizes=("embed_dim", "num_heads"),
    # Other names that the literature uses.
    aliases={
        "absolute": "Sum",
        "alibi": "ALiBi",
        "kerplelog": "Kerple[form=log]",
        "kerplepower": "Kerple[form=power]",
        "rope": "Rotary",
        "roformer": "Rotary",
        "shaw": "RelativeTable[form=table-S]",
        "symmetric": "SymmetricProduct",
        "table": "RelativeTable[form=table]",
        "tables": "RelativeTable[form=table-S]",
        "txl": "TransformerXL",
    },
    others=("none",),
)


def names() -> list[str]:
    r"""Returns the names of all positions, sorted; ``"none"`` is that of having none.

    Example:
        >>> from kgat.positions import names
        >>> names()
        ['ALiBi', 'Kerple', 'RelativeTable', 'Rotary', 'Sum', 'SymmetricProduct', 'TransformerXL', 'none']
    """
    return CATALOGUE.choices


def resolve(position: PositionLike, embed_dim: int, num_heads: int = 1, **kwargs: Any) -> Position | None:
    r"""Builds a position from whatever names one.

    Args:
        position (str or type or Callable or Position, optional): One of

            * a name from :func:`names`, regardless of case, ``-``, ``_`` and spaces, or one that the
              literature uses (``"table"``, ``"table-S"``, ``"shaw"``, ``"txl"``, ``"symmetric"``,
              ``"kerple_power"``, ``"rope"``), with arguments in brackets: ``"table-S[max_offset=4]"``;
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
        >>> resolve("table-S[max_offset=4]", 8, num_heads=2)
        RelativeTable(8, num_heads=2, max_offset=4, form='table-S')
        >>> resolve("none", 8) is None
        True
    """
    if position is None or (isinstance(position, str) and normalized(position) == "none"):
        if kwargs:
            raise ValueError(
                f"Expected no arguments where there is no position (got {', '.join(map(repr, kwargs))}); "
                f"name the position that takes them, or leave them out"
            )
        return None
    return CATALOGUE.resolve(position, embed_dim, num_heads, **kwargs)
