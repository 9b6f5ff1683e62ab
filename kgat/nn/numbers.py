r"""Numbers that layers and models are built with, looked at where they come in."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from kgat.kernels.kernel import number

__all__ = ["check_heads", "check_number", "check_probability", "check_whole", "read_channels"]


def check_whole(least: int = 1, *, optional: bool = False, **given: Any) -> None:
    r"""Checks sizes and counts.

    Those of NumPy are taken too. :obj:`True` is none, as it is a flag in the wrong place.

    Args:
        least (int, optional): The smallest that is allowed. (default: :obj:`1`)
        optional (bool, optional): Whether :obj:`None` is allowed. (default: :obj:`False`)
        **given (int): The numbers, by the names of the arguments.

    Raises:
        ValueError: If one is no whole number of at least :obj:`least`.

    Example:
        >>> from kgat.nn.numbers import check_whole
        >>> check_whole(heads=4)
        >>> check_whole(heads=2.5)
        Traceback (most recent call last):
        ...
        ValueError: Expected a whole 'heads' of at least 1 (got 2.5); give an int
    """
    for name, value in given.items():
        if value is None and optional:
            continue
        if not _is_whole(value) or value < least:
            raise ValueError(
                f"Expected a whole '{name}' of at least {least} (got {value!r}); give an int"
                f"{' or None' if optional else ''}"
            )


def check_probability(*, optional: bool = False, **given: Any) -> None:
    r"""Checks probabilities of dropping something.

    Args:
        optional (bool, optional): Whether :obj:`None` is allowed. (default: :obj:`False`)
        **given (float): The probabilities, by the names of the arguments.

    Raises:
        ValueError: If one is not in :math:`[0, 1]`, not-a-number neither.

    Example:
        >>> from kgat.nn.numbers import check_probability
        >>> check_probability(dropout=1.5)
        Traceback (most recent call last):
        ...
        ValueError: Expected 'dropout' in [0, 1] (got 1.5); it is a probability, and 0 drops nothing
    """
    for name, value in given.items():
        if value is None and optional:
            continue
        if isinstance(value, bool) or not hasattr(value, "__float__") or not 0.0 <= value <= 1.0:
            raise ValueError(
                f"Expected '{name}' in [0, 1] (got {value!r}); it is a probability, and 0 drops nothing"
            )


def check_number(least: float | None = None, **given: Any) -> None:
    r"""Checks numbers that need not be whole.

    Args:
        least (float, optional): The smallest that is allowed; any if :obj:`None`. (default: :obj:`None`)
        **given (float): The numbers, by the names of the arguments.

    Raises:
        ValueError: If one is not finite, or smaller.

    Example:
        >>> from kgat.nn.numbers import check_number
        >>> check_number(0.0, layer_norm_eps=-1.0)
        Traceback (most recent call last):
        ...
        ValueError: Expected 'layer_norm_eps' of at least 0 (got -1.0); give such a number
    """
    for name, value in given.items():
        number(name, value)
        if isinstance(value, bool):
            raise ValueError(f"Expected a number as '{name}' (got {value!r}); it is no flag")
        if least is not None and value < least:
            raise ValueError(f"Expected '{name}' of at least {least:g} (got {value!r}); give such a number")


def check_heads(embed_dim: Any, num_heads: Any) -> None:
    r"""Checks that the heads of attention on tokens share the channels evenly.

    Args:
        embed_dim (int): Channels of a token.
        num_heads (int): Number of heads :math:`H`.

    Raises:
        ValueError: If they do not.

    Example:
        >>> from kgat.nn.numbers import check_heads
        >>> check_heads(16, 4)
    """
    check_whole(embed_dim=embed_dim, num_heads=num_heads)
    if embed_dim % num_heads != 0:
        raise ValueError(
            f"Expected 'embed_dim' divisible by 'num_heads' (got embed_dim={embed_dim}, "
            f"num_heads={num_heads}); every head takes an equal part of the channels"
        )


def read_channels(in_channels: Any) -> int | tuple[int, int]:
    r"""Returns the size of node features, or those of sources and targets; :obj:`-1` is that of the first
    input.

    Args:
        in_channels (int or tuple): As the layer is given it.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> from kgat.nn.numbers import read_channels
        >>> read_channels(-1), read_channels([3, 4])
        (-1, (3, 4))
    """
    sides = in_channels if isinstance(in_channels, Sequence) and not isinstance(in_channels, str) else None
    sizes = [in_channels] if sides is None else list(sides)
    right = all(_is_whole(size) and (size == -1 or size >= 1) for size in sizes)
    if not right or (sides is not None and len(sizes) != 2):
        raise ValueError(
            f"Expected 'in_channels' as a positive whole number, or -1 for that of the first input (got "
            f"{in_channels!r}); give an int, or one for sources and one for targets"
        )
    first, *others = map(int, sizes)
    return (first, others[0]) if others else first


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
