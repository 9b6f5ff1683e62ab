r"""Answers to test data in the form that OGB's evaluators take."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kgat.datasets.files import atomic

__all__ = ["save_submission", "submission"]


def submission(task: Any, split: Any, output: Tensor, part: str = "test") -> dict[str, Any]:
    r"""Returns what ``ogb``'s ``Evaluator.eval`` is given beside the truth.

    Args:
        task (Task, GraphTask or LinkTask): The task.
        split (Split or LinkSplit): The split.
        output (torch.Tensor): What the model gave for all nodes or graphs, or for all pairs of the part.
        part (str, optional): The part that is answered for. (default: :obj:`"test"`)

    Returns:
        dict: Of nodes and graphs :obj:`y_pred`, a row each: classes where accuracy is the metric, the
        difference of two logits of a binary task, logits of labels, or values. Of links
        :obj:`y_pred_pos` and :obj:`y_pred_neg`, a row of these for each edge if it has its own.

    Example:
        >>> from kgat.datasets import load
        >>> import torch
        >>> task = load("karate")
        >>> submission(task, task.split(0), torch.eye(34, 2))["y_pred"].shape
        (16, 1)
    """
    output = output.detach().cpu()
    if task.level == "link":
        y = getattr(split, part).y
        if y.dim() == 1:
            return {"y_pred_pos": output[y > 0].numpy(), "y_pred_neg": output[y == 0].numpy()}
        return {"y_pred_pos": output[:, 0].numpy(), "y_pred_neg": output[:, 1:].numpy()}
    rows = output[getattr(split, part)]
    if task.metric == "accuracy":
        rows = rows.argmax(dim=-1, keepdim=True)
    elif task.kind == "binary":
        rows = rows[:, 1:] - rows[:, :1]
    return {"y_pred": rows.numpy()}


def save_submission(path: str | os.PathLike[str], task: Any, split: Any, output: Tensor) -> None:
    r"""Writes a file ``.npz`` with what :func:`submission` returns, complete or not at all.

    Args:
        path (str or Path): The file.
        task (Task, GraphTask or LinkTask): The task.
        split (Split or LinkSplit): The split.
        output (torch.Tensor): As of :func:`submission`.

    Raises:
        PermissionError: If it cannot be written.

    Example:
        >>> import tempfile, torch
        >>> from kgat.datasets import load
        >>> task, path = load("karate"), Path(tempfile.mkdtemp()) / "answers.npz"
        >>> save_submission(path, task, task.split(0), torch.eye(34, 2))
        >>> np.load(path).files
        ['y_pred']
    """
    with atomic(Path(path), "choose another 'path'") as file:
        np.savez_compressed(file, **submission(task, split, output))
