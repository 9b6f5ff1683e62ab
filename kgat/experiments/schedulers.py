r"""Learning rates that change while a model trains, by the names that PyG and torch have for them."""

import ast
import re
from functools import cache
from typing import Any

import torch
from torch_geometric.nn.resolver import lr_scheduler_resolver
from torch_geometric.resolver import normalize_string

__all__ = ["build_scheduler", "expect_steps"]

MOST = 5000  # steps that are tried
SHORT = {"cosine": "CosineAnnealingLR", "plateau": "ReduceLROnPlateau"}


def build_scheduler(name: str, optimizer: torch.optim.Optimizer, epochs: int) -> Any:
    r"""Builds a scheduler of the learning rate, for a step per epoch.

    Args:
        name (str): :obj:`"cosine"`, :obj:`"plateau"`, or a name that PyG or torch has
            (:obj:`"linear_with_warmup"`, :obj:`"exponential"`), with arguments where there are some:
            :obj:`"step[step_size=50, gamma=0.5]"`.
        optimizer (torch.optim.Optimizer): Whose learning rate it is.
        epochs (int): Epochs at most, over which cosines, cycles and warm-ups are spread.

    Raises:
        ValueError: If there is none of this name, or it takes other arguments.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = build_scheduler("step[step_size=1, gamma=0.5]", optimizer, 10)
        >>> optimizer.step()
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.5]
    """
    try:
        match = re.fullmatch(r"\s*(\w+)\s*(?:\[(.*)\])?\s*", name)
        if match is None:
            raise ValueError("it is not of the form NAME[ARGUMENT=VALUE, ...]")
        short, arguments = match.groups()
        spelled = SHORT.get(normalize_string(short), short)
        call = ast.parse(f"f({arguments or ''})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args:
            raise ValueError("an argument has no name")
        chosen = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        spread = {
            "cosineannealinglr": {"T_max": epochs},
            "onecyclelr": {"max_lr": optimizer.defaults["lr"], "total_steps": epochs},
        }
        title = normalize_string(spelled)
        kwargs = spread.get(title, spread.get(f"{title}lr", {})) | chosen
        for argument in ("max_lr", "base_lr"):  # of cycles: one number would be the rate of all groups
            if isinstance(kwargs.get(argument), int | float):
                factor = kwargs[argument] / optimizer.defaults["lr"]
                kwargs[argument] = [factor * group["lr"] for group in optimizer.param_groups]
        return lr_scheduler_resolver(spelled, optimizer, num_training_steps=epochs, **kwargs)
    except (ValueError, TypeError, SyntaxError, AttributeError, NotImplementedError) as error:
        raise _fault(name, error) from None


@cache
def expect_steps(name: str, lr: float, epochs: int) -> None:
    r"""Checks that a scheduler can be built and takes all steps of a run, before anything is trained.

    Args:
        name (str): As of :func:`build_scheduler`.
        lr (float): The learning rate.
        epochs (int): Epochs at most.

    Raises:
        ValueError: If it does not.
    """
    optimizer = torch.optim.Adam([torch.zeros(1)], lr)
    scheduler = build_scheduler(name, optimizer, epochs)
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):  # its steps are those of a metric
        return
    optimizer.step()
    try:
        for _ in range(min(epochs, MOST)):
            scheduler.step()
    except (ValueError, ArithmeticError) as error:
        raise _fault(name, error) from None


def _fault(name: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ValueError(
        f"Expected 'scheduler' as cosine, plateau, linear_with_warmup, step[step_size=50] or another of "
        f"PyG or torch with its arguments (got '{name}': {reason}); change it with --set scheduler=VALUE"
    )
