r"""What tells one content from another."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from kgat.ops.graph.fingerprint import contents

__all__ = ["CONTENT", "digest_of"]

CONTENT = "content"  # a digest that is to be taken of it


def digest_of(parts: Iterable[Tensor | str | None]) -> str:
    r"""Returns a short text that is equal for equal content, and for no other.

    Args:
        parts (list of torch.Tensor or str or None): The content.

    Example:
        >>> digest_of([torch.tensor([1]), "a"]) == digest_of([torch.tensor([1]), "b"])
        False
    """
    content = hashlib.sha256()
    for part in parts:
        for tensor in contents(part, values=True) if isinstance(part, Tensor) else [part]:
            if isinstance(tensor, Tensor):
                content.update(f"{tensor.dtype} {list(tensor.shape)};".encode())
                content.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
            else:
                content.update(f"{tensor!r};".encode())
    return content.hexdigest()[:16]
