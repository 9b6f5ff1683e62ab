r"""Nested tensors as padded ones, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def lengths_of(x: Tensor) -> list[int]:
    r"""Returns the length of each sequence of a nested tensor.

    Example:
        >>> import torch
        >>> from kgat.nn.nested import lengths_of
        >>> lengths_of(torch.nested.nested_tensor([torch.ones(3, 2), torch.ones(0, 2)]))
        [3, 0]
    """
    return [row.size(0) for row in _rows(x)]


def to_padded(x: Tensor, *sizes: int) -> Tensor:
    r"""Returns the sequences of a nested tensor, filled up with zeros at their ends.

    Torch's own function refuses a batch whose sequences are all empty.

    Args:
        x (torch.Tensor): The nested tensor, of any layout.
        *sizes (int): Sizes of one token, for a batch without sequences, which does not know them.

    Shapes:
        - **output:** :math:`(B, N, *)` with :math:`N` the largest length

    Example:
        >>> import torch
        >>> from kgat.nn.nested import to_padded
        >>> to_padded(torch.nested.nested_tensor([torch.ones(3, 2), torch.ones(1, 2)])).shape
        torch.Size([2, 3, 2])
        >>> to_padded(torch.nested.nested_tensor([]), 2).shape
        torch.Size([0, 0, 2])
    """
    rows = _rows(x)
    if not rows:
        return torch.zeros(0, 0, *sizes, device=x.device, dtype=x.dtype)
    return pad_sequence(rows, batch_first=True)


def padding_of(lengths: Sequence[int], device: torch.device) -> Tensor:
    r"""Returns where sequences are padded: True where there is no token.

    Shapes:
        - **output:** :math:`(B, N)` with :math:`N` the largest length

    Example:
        >>> import torch
        >>> from kgat.nn.nested import padding_of
        >>> padding_of([2, 0], torch.device("cpu"))
        tensor([[False, False],
                [ True,  True]])
    """
    index = torch.arange(max(lengths, default=0), device=device)
    return index >= torch.tensor(lengths, device=device, dtype=torch.long).unsqueeze(1)


def check_nested(masks: Mapping[str, Tensor | None], batch_first: bool = True) -> None:
    r"""Refuses what has no place beside nested tensors.

    Args:
        masks (dict): Masks, by the names of the arguments.
        batch_first (bool, optional): Whether the module takes the batch before the tokens, as these tensors
            have it. (default: :obj:`True`)

    Raises:
        ValueError: If there is a mask, or the tokens come first.

    Example:
        >>> from kgat.nn.nested import check_nested
        >>> check_nested({"attn_mask": None})
    """
    for name, mask in masks.items():
        if mask is not None:
            raise ValueError(
                f"Expected no '{name}' beside nested tensors (got one); their lengths say what is padding"
            )
    if not batch_first:
        raise ValueError(
            "Expected batch_first=True for nested tensors (got False); build the module with it, as they are "
            "lists of sequences"
        )


def unnested(name: str, x: Tensor, mask: Tensor | None, *sizes: int) -> tuple[Tensor, Tensor]:
    r"""Returns a nested tensor as :func:`to_padded` has it, and where it is padded.

    Args:
        name (str): What the caller calls :obj:`mask`.
        x (torch.Tensor): The nested tensor.
        mask (torch.Tensor, optional): Has to be :obj:`None`.
        *sizes (int): Sizes of one token.

    Shapes:
        - **output:** :math:`(B, N, *)` and :math:`(B, N)`

    Raises:
        ValueError: If there is a mask.
    """
    check_nested({name: mask})
    return to_padded(x, *sizes), padding_of(lengths_of(x), x.device)


def to_nested(x: Tensor, like: Tensor) -> Tensor:
    r"""Returns padded sequences as a nested tensor of the lengths and layout of another.

    Args:
        x (torch.Tensor): The padded sequences.
        like (torch.Tensor): The nested tensor; one of a jagged layout can be added to the result.

    Shapes:
        - **x:** :math:`(B, N, *)`

    Example:
        >>> import torch
        >>> from kgat.nn.nested import to_nested, to_padded
        >>> nested = torch.nested.nested_tensor([torch.ones(3, 2), torch.ones(1, 2)], layout=torch.jagged)
        >>> (to_nested(to_padded(nested), nested) + nested).unbind()[1]
        tensor([[2., 2.]])
    """
    rows = [row[:size] for row, size in zip(x, lengths_of(like), strict=True)]
    if like.layout == torch.jagged and like.lengths() is None:  # type: ignore[attr-defined]
        # Jagged sizes are equal if their offsets are one tensor.
        return torch.nested.nested_tensor_from_jagged(torch.cat(rows), offsets=like.offsets())  # type: ignore[attr-defined]
    if not rows:
        return like
    return torch.nested.as_nested_tensor(rows, layout=like.layout)


def _rows(x: Tensor) -> list[Tensor]:
    # A nested tensor without sequences has one dimension, and cannot be taken apart.
    return list(x.unbind()) if x.size(0) > 0 else []
