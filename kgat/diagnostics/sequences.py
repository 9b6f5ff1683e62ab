r"""What the attention modules of a transformer saw and did in a forward pass."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kgat.nn import PrimalAttention


class AttentionCall(NamedTuple):
    r"""One call of an attention module.

    Args:
        name (str): Its name in the model.
        module (torch.nn.Module): The module.
        query (torch.Tensor): The tokens that look.
        key (torch.Tensor): The tokens that are looked at.
        padding (torch.Tensor, optional): Its :obj:`key_padding_mask`.
        alpha (torch.Tensor, optional): The attention weights; :obj:`None` of a
            :class:`~kgat.nn.PrimalAttention`, which has none.

    Shapes:
        - **query:** :math:`(B, N, F)`, **key:** :math:`(B, M, F)`, **padding:** :math:`(B, M)`
        - **alpha:** :math:`(B, N, M, H)`

    Example:
        >>> import torch
        >>> from kgat.diagnostics import trace_attention
        >>> from kgat.nn import KernelAttention
        >>> attention, x = KernelAttention(8, 2), torch.randn(1, 5, 8)
        >>> call = trace_attention(attention, lambda: attention(x))[0]
        >>> call.query.shape, call.alpha.shape
        (torch.Size([1, 5, 8]), torch.Size([1, 5, 5, 2]))
    """

    name: str
    module: Any
    query: Tensor
    key: Tensor
    padding: Tensor | None
    alpha: Tensor | None


def trace_attention(model: torch.nn.Module, call: Callable[[], Any]) -> list[AttentionCall]:
    r"""Runs a transformer once and keeps what each attention module saw and did: for sequences what
    :func:`trace` is for graphs.

    The forward pass is the model's own, in evaluation mode; the mode of every submodule is restored.

    Args:
        model (torch.nn.Module): The model. Its attention modules, wherever they are in it, are those that are
            called as :class:`torch.nn.MultiheadAttention` is, with :obj:`need_weights`.
        call (Callable): Calls the model, as ``lambda: model(tokens)``.

    Returns:
        list[AttentionCall]: One entry per call of a module, in the order of the calls.

    Example:
        >>> import torch
        >>> from kgat import KernelTransformer
        >>> from kgat.diagnostics import trace_attention
        >>> model, x = KernelTransformer(16, 2, num_layers=2), torch.randn(3, 5, 16)
        >>> [(call.name, call.alpha.shape) for call in trace_attention(model, lambda: model(x))][:1]
        [('encoder.0.self_attn', torch.Size([3, 5, 5, 2]))]
    """
    names = {
        module: name
        for name, module in model.named_modules()
        if "need_weights" in inspect.signature(module.forward).parameters
    }
    calls: list[AttentionCall] = []
    inputs: list[dict[str, Any]] = []

    def ask(module: torch.nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        inputs.append(dict(bound.arguments))
        if not isinstance(module, PrimalAttention):
            bound.arguments |= {"need_weights": True, "average_attn_weights": False}
        return bound.args, bound.kwargs

    def keep(module: torch.nn.Module, _: tuple, output: tuple[Tensor, Tensor | None]) -> Any:
        given = inputs.pop()
        query, key = given["query"], given.get("key")
        alpha = None if output[1] is None else output[1].detach().movedim(-3, -1)
        seen = (query, query if key is None else key, given.get("key_padding_mask"))
        calls.append(AttentionCall(names[module], module, *seen, alpha))
        if not given.get("need_weights", True):
            return output[0], None
        if output[1] is None or not given.get("average_attn_weights", True):
            return output
        return output[0], output[1].mean(dim=-3)

    modes = [(module, module.training) for module in model.modules()]
    handles = [module.register_forward_pre_hook(ask, with_kwargs=True) for module in names]
    handles += [module.register_forward_hook(keep) for module in names]
    try:
        model.eval()
        with torch.no_grad():
            call()
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return calls
