r"""What the attention modules of a trained model do on validation sequences, in numbers that records hold."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kgat.datasets.sequence_task import Part
from kgat.diagnostics import (
    AttentionCall,
    attention_spectrum,
    cumulative_spectrum,
    effective_rank,
    gram_matrix,
    head_correlation,
    head_distance,
    negative_mass,
    numerical_rank,
    singular_values,
    symmetry_gap,
    trace_attention,
)
from kgat.experiments.sequences.fitting import answer, batches
from kgat.experiments.sequences.papers import Setting
from kgat.nn import KernelAttention, PrimalAttention

SEQUENCES = 32  # that are looked at, of all lengths
TOKENS = 512  # of all of them together, for a Gram matrix
CURVE = 32  # singular values whose cumulative share is kept
TOLERANCE = 1e-3  # of the rank: the share of the largest singular value that still counts


def layers_record(
    model: torch.nn.Module, part: Part, setting: Setting, device: str = "cpu"
) -> list[dict[str, Any]]:
    r"""Returns what each attention module does, means over sequences and heads.

    Args:
        model (torch.nn.Module): The model.
        part (Labelled or Stream or Pairs): What to look at; a few of its sequences of all lengths are taken.
        setting (Setting): How it is cut into sequences.
        device (str, optional): Where the model is. (default: :obj:`"cpu"`)

    Returns:
        list of dict: Per module its :obj:`name`; of attention weights :obj:`distance` of the heads and the
        same :obj:`relative` to the mean norm of a head, :obj:`correlation` of the heads, :obj:`spectrum` (the
        cumulative share of singular values) and :obj:`effective_rank`; of a kernel on tokens of all sequences
        :obj:`gram_rank` and, within a sequence, :obj:`asymmetry` and :obj:`negative`
        (:func:`~kgat.diagnostics.symmetry_gap` and :func:`~kgat.diagnostics.negative_mass`); of a copula the
        :obj:`copula` it learned; of a primal layer :obj:`ksvd`, the root mean square of J.
    """
    single = [*batches(part, replace(setting, batch_size=1))]
    step = max(1, len(single) // SEQUENCES)
    by_name: dict[str, list[AttentionCall]] = {}
    for batch in single[step // 2 :: step][:SEQUENCES]:
        for call in trace_attention(model, lambda batch=batch: answer(model, batch, device)):  # type: ignore[misc]
            if call.query.size(1) > 1 and call.key.size(1) > 1:
                by_name.setdefault(call.name, []).append(call)
    with torch.no_grad():
        return [{"name": name, **_rounded(dict(_of_module(calls)))} for name, calls in by_name.items()]


def ksvd(model: torch.nn.Module, part: Part, setting: Setting, device: str = "cpu") -> float | None:
    r"""Returns the root mean square of J over primal layers and sequences; :obj:`None` without such layers.

    It is measured whatever weight it had in training.
    """
    layers = [module for module in model.modules() if isinstance(module, PrimalAttention)]
    weights = [layer.ksvd_weight for layer in layers]
    squares: list[Tensor] = []
    model.eval()
    try:
        for layer in layers:
            layer.ksvd_weight = 1.0
        with torch.no_grad():
            for batch in batches(part, setting):
                answer(model, batch, device, squares)
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.ksvd_weight = weight
    return float(torch.stack(squares).mean().sqrt()) if layers else None


def _of_module(calls: Sequence[AttentionCall]) -> Iterator[tuple[str, Any]]:
    module = calls[0].module
    alphas = [call.alpha[0].double() for call in calls if call.alpha is not None]
    if alphas:
        distances = torch.stack([head_distance(alpha) for alpha in alphas])
        norms = torch.stack([torch.linalg.matrix_norm(alpha.movedim(-1, 0)).mean() for alpha in alphas])
        yield "distance", distances.mean()
        yield "relative", (distances / norms).mean()
        yield "correlation", torch.stack([_correlation(alpha) for alpha in alphas]).nanmean()
    if isinstance(module, PrimalAttention):
        spectra = [module.singular_values(call.query, call.padding)[0].double() for call in calls]
    else:
        spectra = [attention_spectrum(alpha) for alpha in alphas]
    curves = [cumulative_spectrum(values).mean(dim=0)[:CURVE] for values in spectra]
    whole = [torch.nn.functional.pad(curve, (0, CURVE - curve.size(0)), value=1.0) for curve in curves]
    yield "spectrum", torch.stack(whole).mean(dim=0)
    yield "effective_rank", torch.stack([effective_rank(values).mean() for values in spectra]).mean()
    if isinstance(module, KernelAttention) and module.position is None:
        yield from _of_kernel(module, calls)


def _of_kernel(module: KernelAttention, calls: Sequence[AttentionCall]) -> Iterator[tuple[str, Any]]:
    kernel = copy.deepcopy(module.kernel).double()
    pairs = [module.project(call.query, call.key, call.key)[:2] for call in calls]
    heads = [(query[0].double(), key[0].double()) for query, key in pairs]
    if all(call.query is call.key for call in calls):  # the same tokens on both sides
        grams = [gram_matrix(kernel, *pair) for pair in heads]
        yield "asymmetry", torch.stack([symmetry_gap(gram).mean() for gram in grams]).mean()
        yield "negative", torch.stack([negative_mass(gram).mean() for gram in grams]).mean()
    query, key = (torch.cat(side) for side in zip(*heads, strict=True))
    gram = gram_matrix(kernel, query, key, TOKENS)
    yield "gram_rank", numerical_rank(gram, TOLERANCE).double().mean()
    yield "gram_effective_rank", effective_rank(singular_values(gram)).mean()
    correlation = head_correlation(kernel, query, key)
    if correlation is not None:
        yield "copula", correlation


def _correlation(alpha: Tensor) -> Tensor:
    # Mean over pairs of heads, over all pairs of tokens that see each other.
    seen = (alpha > 0).any(dim=-1)
    first, second = torch.triu_indices(alpha.size(-1), alpha.size(-1), 1)
    return torch.corrcoef(alpha[seen].T)[first, second].nanmean()


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    def rounded(value: Any) -> Any:
        if isinstance(value, list):
            return [rounded(one) for one in value]
        return float(f"{value:.4g}") if value == value else None

    return {name: rounded(value.tolist()) for name, value in values.items()}
