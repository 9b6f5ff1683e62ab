r"""The law of a rule: its derivative is a slope."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from kgat.kernels.kernel import Kernel
from kgat.score.rules import Link, Pair, ScoreRule
from kgat.testing.law import fail

# Kinks, arguments that are equal, nearly so or far apart, and some that are nothing special.
_ODD_POINTS = (0.0, 0.5, 1.0, 1.5, 2.0, 1e-9, 0.1, 0.77, 3.3, 20.0, 1e3)


def check_derivatives(kernel: Kernel, seed: int) -> None:
    r"""Checks the derivatives of a kernel's rules: at each point between the slopes to the left and right."""
    torch.manual_seed(seed)
    odd = torch.tensor(_ODD_POINTS, dtype=torch.float64)
    points = torch.cat([odd, -odd, torch.randn(10, dtype=torch.float64)])
    x, y = torch.cartesian_prod(points, points).T
    features = torch.zeros(1, kernel.heads, kernel.channels, dtype=torch.float64)
    gram = copy.deepcopy(kernel).double()(features, features)
    for term in getattr(gram, "terms", ()):
        if isinstance(term.rule, ScoreRule):
            for function, constants, at in (
                (term.rule.pair, term.rule.pair_args, (x, y)),
                (term.rule.link, term.rule.link_args, (points,)),
            ):
                args = [torch.as_tensor(arg).detach().double().flatten()[0] for arg in constants]
                _check_derivative(kernel, function, at, args)


def _check_derivative(kernel: Kernel, rule: Pair | Link, at: tuple[Tensor, ...], args: list[Tensor]) -> None:
    # Between the slopes to the left and to the right: where these differ, any number between them is one.
    if rule.derivative is None:
        return
    slopes = rule.derivative(*at, *args)
    for place, slope in enumerate(slopes if isinstance(slopes, tuple) else (slopes,)):
        step = 1e-6 * at[place].abs().clamp_min(1.0)
        low, middle, high = (
            rule.in_scalars(*(x + n * step if i == place else x for i, x in enumerate(at)), *args)
            for n in (-1, 0, 1)
        )
        left, right = (middle - low) / step, (high - middle) / step
        allowed = 1e-4 * (1.0 + left.abs() + right.abs())
        inside = slope >= torch.minimum(left, right) - allowed
        inside &= slope <= torch.maximum(left, right) + allowed
        wrong = (~inside & left.isfinite() & right.isfinite()).nonzero()
        if wrong.numel():
            i = int(wrong[0])
            where = ", ".join(f"{x[i].item():g}" for x in at)
            numbers = f"between {left[i].item():.6g} and {right[i].item():.6g} (got {slope[i].item():.6g})"
            what = f"of '{rule.name}' at ({where}) by argument {place}: expected {numbers}"
            fail(kernel, "derivatives", what)
