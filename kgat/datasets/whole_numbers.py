r"""Unsigned whole numbers as signed ones: torch compares, sorts and takes maxima of few unsigned types."""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data, HeteroData

__all__ = ["signed", "signed_data", "signed_tensor"]

Array = NDArray[Any]
LARGEST = np.iinfo(np.int64).max
UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)
FEATURES = ("x", "edge_attr", "edge_weight")  # they become floats, whatever they are


def signed(values: Array, name: str, source: str) -> Array:
    r"""Returns an array in :obj:`int64` if it is of an unsigned type, else as it is.

    Args:
        values (numpy.ndarray): The values.
        name (str): What errors call them.
        source (str): Where they come from.

    Raises:
        ValueError: If a value is larger than :obj:`int64` can hold.

    Example:
        >>> signed(np.array([1, 2], dtype=np.uint16), "y", "the given arrays").dtype
        dtype('int64')
    """
    if values.dtype.kind != "u":
        return values
    if values.dtype.itemsize == 8 and len(wrong := np.argwhere(values > LARGEST)):
        place = tuple(wrong[0].tolist())
        raise ValueError(
            f"Expected whole numbers up to {LARGEST} in '{name}' of {source} (got {values[place]} at "
            f"{', '.join(map(str, place))}); it may be a negative number in an unsigned type: write "
            "it as int64"
        )
    return values.astype(np.int64)


def signed_tensor(values: Tensor, name: str, source: str) -> Tensor:
    r"""Returns a tensor in :obj:`torch.int64` if it is of an unsigned type, else as it is.

    Example:
        >>> signed_tensor(torch.tensor([1, 2], dtype=torch.uint64), "y", "the given Data")
        tensor([1, 2])
    """
    if values.dtype not in UNSIGNED:
        return values
    return torch.from_numpy(signed(values.detach().cpu().numpy(), name, source))


def signed_data(data: Data | HeteroData, source: str) -> Any:
    r"""Returns a graph whose labels, edges and columns are in signed types; features and masks stay.

    Args:
        data (torch_geometric.data.Data or torch_geometric.data.HeteroData): The graph, which is not changed.
        source (str): Where it comes from.

    Raises:
        ValueError: If a value is larger than :obj:`int64` can hold.
    """
    data = copy.copy(data)
    for store in data.stores:
        for name, values in [*store.items()]:
            if name in FEATURES or str(name).endswith("_mask"):
                continue
            if isinstance(values, Tensor) and values.dtype in UNSIGNED:
                store[name] = signed_tensor(values, name, source)
            elif isinstance(values, np.ndarray):
                store[name] = signed(values, name, source)
    return data
