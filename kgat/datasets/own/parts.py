r"""What an owner says of the parts of a split: masks of nodes, and columns that name the parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kgat.datasets.own.raw import MISSING, Array, is_na
from kgat.datasets.task import PARTS

__all__ = [
    "SPELLINGS",
    "SPLIT",
    "Masks",
    "expect_one_split",
    "given_split",
    "is_mask",
    "masks_in",
    "names_parts",
    "numpy_of",
    "tells_parts",
    "with_masks",
]

# How people call the parts.
SPELLINGS = {"train": 1, "training": 1, "val": 2, "valid": 2, "validation": 2, "dev": 2, "test": 3}
SPLIT = "split"  # a column of this name is a split, if nothing else is said
MASK = re.compile(rf"({'|'.join(SPELLINGS)})_mask(\[\d+\])?")
Masks = list[tuple[str, Array, Array, Array]]


def given_split(data: Any, source: str, nodes: int, options: dict[str, Any]) -> Masks:
    r"""Returns the masks that come with arrays or tensors, unless another split is asked for. An array
    ``split`` of names of parts becomes the option instead.

    Args:
        data (torch_geometric.data.Data or dict): The arrays.
        source (str): What errors call them.
        nodes (int): The number of nodes.
        options (dict): Those of :func:`~kgat.datasets.from_data`, of which ``split`` may be set.

    Raises:
        ValueError: As :func:`masks_in`; if there are both.

    Example:
        >>> options = {}
        >>> given_split({"split": np.array(["train", "val", "test"])}, "the given arrays", 3, options)
        []
        >>> options
        {'split': 'column:split'}
    """
    if options.get("split") or options.get("like") is not None:
        return []
    masks = masks_in(data, source, nodes)
    values = data.get(SPLIT)
    if isinstance(values, list | tuple | np.ndarray) and len(values) == nodes and names_parts(values):
        expect_one_split(SPLIT, masks, source)
        options["split"] = f"column:{SPLIT}"
    return masks


def with_masks(arrays: dict[str, Any], nodes: int, source: str) -> dict[str, Any]:
    r"""Returns arrays in which ``train``, ``val`` and ``test``, ids of nodes from 0 as :func:`convert_arrays`
    reads them, are masks, if there are no others.

    Args:
        arrays (dict): The arrays.
        nodes (int): The number of nodes.
        source (str): What errors call them.

    Raises:
        IndexError: If an id is that of no node.

    Example:
        >>> ids = {"train": np.array([0]), "val": np.array([1]), "test": np.array([2])}
        >>> with_masks(ids, 3, "the given arrays")["val_mask"].tolist()
        [False, True, False]
    """
    if any(is_mask(name) for name in arrays) or not all(_are_ids(arrays.get(part), nodes) for part in PARTS):
        return arrays
    masks = {}
    for part in PARTS:
        ids = arrays[part]
        masks[f"{part}_mask"] = mask = np.zeros(nodes, np.bool_)
        wrong = ids[(ids < 0) | (ids >= nodes)] if ids.dtype != np.bool_ else ids[:0]
        if len(wrong):
            raise IndexError(
                f"Expected nodes from 0 to {nodes - 1} in '{part}' of {source} (got {wrong[0]}); there are "
                f"{nodes} nodes"
            )
        mask[ids] = True
    return {**{name: values for name, values in arrays.items() if name not in PARTS}, **masks}


def _are_ids(values: Any, nodes: int) -> bool:
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        return False
    return values.dtype.kind in "iu" or (values.dtype == np.bool_ and len(values) == nodes)


def expect_one_split(column: str, masks: Masks, source: str) -> None:
    r"""Refuses masks beside a column of parts, of which nobody could say which is meant."""
    if masks:
        raise ValueError(
            f"Expected one split in {source} (got masks and '{column}'); remove one of them, or pass "
            f"split='column:{column}' (--split column:{column})"
        )


def masks_in(data: Any, source: str, nodes: int) -> Masks:
    r"""Returns the splits that come as masks: their names, and of each the masks of the three parts.

    Args:
        data (torch_geometric.data.Data or dict): May hold ``train_mask``, ``val_mask`` and ``test_mask``.
        source (str): What errors call it.
        nodes (int): The number of nodes.

    Raises:
        ValueError: If some of the three are missing, or one is no mask of the nodes.

    Example:
        >>> train, val, test = np.eye(3, dtype=bool)
        >>> masks = {"train_mask": train, "val_mask": val, "test_mask": test}
        >>> [name for name, *_ in masks_in(masks, "the given arrays", 3)]
        ['given']
    """
    names = [f"{part}_mask" for part in PARTS]
    present = [name for name in names if name in data]
    if not present:
        return []
    if len(present) < 3:
        lacking = next(name for name in names if name not in data)
        raise ValueError(
            f"Expected 'train_mask', 'val_mask' and 'test_mask' in {source} (got no '{lacking}'); add it, or "
            "let splits be drawn: split='stratified' or split='random' (--split random)"
        )
    masks = [_truth(numpy_of(data[name])) for name in names]
    for name, mask in zip(names, masks, strict=True):
        if mask.dtype != np.bool_ or mask.ndim not in (1, 2):
            raise ValueError(
                f"Expected a boolean '{name}' with one column per split in {source} (got {list(mask.shape)} "
                f"{mask.dtype}); convert it"
            )
        if len(mask) != nodes:
            raise ValueError(
                f"Expected '{name}' for the {nodes} nodes of {source} (got {list(mask.shape)}); pass one row "
                "per node"
            )
    masks = [mask.reshape(len(mask), -1) for mask in masks]
    count = max(mask.shape[1] for mask in masks)
    # Of a benchmark with several training masks and one test mask, that one belongs to each.
    masks = [np.repeat(mask, count, axis=1) if mask.shape[1] == 1 else mask for mask in masks]
    if len({mask.shape for mask in masks}) > 1:
        shapes = ", ".join(str(list(mask.shape)) for mask in masks)
        raise ValueError(f"Expected masks of one shape in {source} (got {shapes}); correct them")
    train, val, test = masks
    names = [f"given-{i}" for i in range(count)] if count > 1 else ["given"]
    return [(name, train[:, i], val[:, i], test[:, i]) for i, name in enumerate(names)]


def numpy_of(value: Any) -> Array:
    r"""Returns the values of a tensor, an array or a list.

    Example:
        >>> numpy_of(torch.ones(2, dtype=torch.bfloat16)).dtype
        dtype('float32')
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return np.asarray(value.float() if value.dtype == torch.bfloat16 else value)  # NumPy has none
    return np.asarray(value)


def _truth(mask: Array) -> Array:
    # Zeros and ones in an unsigned type are how masks were written before there were truth values.
    is_truth = mask.dtype.kind == "u" and mask.max(initial=0) <= 1
    return mask.astype(np.bool_) if is_truth else mask


def names_parts(values: Array | Sequence[Any]) -> bool:
    r"""Whether all values that are there are names of parts, of more than one.

    Example:
        >>> names_parts(["train", "Valid", "", None]), names_parts(["train", "bus"])
        (True, False)
    """
    parts = set()
    for value in values.tolist() if isinstance(values, np.ndarray) else values:
        if value is None or is_na(value) or (isinstance(value, str) and value.strip() in MISSING):
            continue
        part = SPELLINGS.get(value.strip().lower()) if isinstance(value, str) else None
        if part is None:
            return False
        parts.add(part)
    return len(parts) > 1


def is_mask(name: str) -> bool:
    r"""Whether a column is called as a mask of a split, of which a list has several.

    Example:
        >>> is_mask("train_mask"), is_mask("Val_mask[3]"), is_mask("mask")
        (True, True, False)
    """
    return MASK.fullmatch(name.lower()) is not None


def tells_parts(name: str, values: Any) -> bool:
    r"""Whether a column says in which part of a split a row is, by its name or by what is in it. That is
    nothing to predict by: who drew the parts knew the answers.

    Args:
        name (str): What it is called.
        values (pandas.Series): What is in it.

    Example:
        >>> import pandas as pd
        >>> tells_parts("Split", pd.Series([0, 1])), tells_parts("fold", pd.Series(["train", "test"]))
        (True, True)
    """
    if name.lower() == SPLIT or is_mask(name):
        return True
    return values.dtype.kind not in "biufmMc" and names_parts(values.to_numpy(dtype=object))
