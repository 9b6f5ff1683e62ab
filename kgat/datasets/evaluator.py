r"""The Evaluator of OGB, which scores its sets where the package ``ogb`` is installed."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from kgat.datasets.submission import submission

ROOMS = {"ogbn": "nodeproppred", "ogbg": "graphproppred", "ogbl": "linkproppred"}
OURS = {"acc": "accuracy", "rocauc": "roc_auc", "ap": "average_precision"}  # other metrics have the same name


@cache
def evaluator_of(name: str) -> Any:
    r"""Returns OGB's Evaluator of a data set, nothing if it has none or is not installed.

    Args:
        name (str): The name of the data set.

    Example:
        >>> evaluator_of("Cora") is None
        True
    """
    room = ROOMS.get(name.partition("-")[0])
    if room is None or find_spec("ogb") is None:
        return None
    evaluate = import_module(f"ogb.{room}.evaluate")
    try:
        return evaluate.Evaluator(name)
    except ValueError:  # not one of OGB's, but made of one: fewer labels, more edges, its structure alone
        return None


def official(task: Any, split: Any, part: str, output: Tensor, score: float) -> float:
    r"""Returns what OGB's Evaluator says of validation or test where it is its metric, else our score.

    Args:
        task (Task, GraphTask or LinkTask): The task.
        split (Split or LinkSplit): The split.
        part (str): The part that is scored.
        output (torch.Tensor): As of :meth:`Task.score`.
        score (float): Our score.
    """
    own = task.digest is not None  # a graph of one's own may have any name
    evaluator = None if own or part == "train" else evaluator_of(task.name)
    if evaluator is None or OURS.get(evaluator.eval_metric, evaluator.eval_metric) != task.metric:
        return score
    answer = submission(task, split, output, part)
    if task.level == "link":  # ranks of arrays fail in ogb 1.3.6, those of tensors do not
        answer = {name: torch.from_numpy(values) for name, values in answer.items()}
    else:
        y = task.y[getattr(split, part)]
        answer["y_true"] = y.view(len(y), -1).numpy()
    said = evaluator.eval(answer)
    return float(said["mrr_list"].mean() if "mrr_list" in said else said[evaluator.eval_metric])
