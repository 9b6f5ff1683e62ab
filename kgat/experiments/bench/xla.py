r"""A rival that is compiled by XLA: attention over sorted segments, in JAX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kgat.experiments.bench.measure import Candidate
from kgat.kernels import Additive, Kernel


@dataclass(frozen=True, eq=False)
class XlaCandidate(Candidate):
    r"""A candidate whose two ways to run are one compiled program each.

    Args:
        both (callable): Takes the gradient of the output and the inputs; returns the output, and the
            gradients of inputs and parameters.
    """

    both: Callable[..., tuple[Tensor, list[Tensor]]] = lambda *_: (torch.empty(0), [])

    def forward_and_backward(self, grad: Tensor) -> Tensor:
        leaves = (*self.inputs, *self.parameters)
        out, grads = self.both(grad, *self.inputs)
        for leaf, derivative in zip(leaves, grads, strict=True):
            leaf.grad = derivative
        return out


def segments(kernel: Kernel, edge_index: Tensor, inputs: tuple[Tensor, ...]) -> XlaCandidate:
    r"""Returns the attention core of an additive or a dot-product kernel, on edges sorted by target.

    Args:
        kernel (Kernel): The kernel.
        edge_index (torch.Tensor): The edges.
        inputs (tuple of torch.Tensor): Queries, keys and values, or one for all three.
    """
    import jax
    import jax.numpy as jnp

    nodes = inputs[0].size(0)
    col, row = (jnp.asarray(index.numpy()) for index in edge_index.int())
    parameters = tuple(kernel.parameters())
    options = {"num_segments": nodes, "indices_are_sorted": True}

    def score(query: Any, key: Any, *weights: Any) -> Any:
        if isinstance(kernel, Additive):
            att = dict(zip((name for name, _ in kernel.named_parameters()), weights, strict=True))
            of_query, of_key = (
                (x * att[name]).sum(-1) for x, name in ((query, "att_query"), (key, "att_key"))
            )
            return jax.nn.leaky_relu(of_query[row] + of_key[col], kernel.negative_slope)
        return (query[row] * key[col]).sum(-1) * kernel.channels**-0.5

    def attend(*operands: Any) -> Any:
        tensors, weights = operands[: len(inputs)], operands[len(inputs) :]
        query, key, value = tensors * (3 // len(inputs))
        scores = score(query, key, *weights)  # [E, H]
        top = jax.lax.stop_gradient(jax.ops.segment_max(scores, row, **options))
        weight = jnp.exp(scores - top[row])
        out = jax.ops.segment_sum(weight[..., None] * value[col], row, **options)
        out = out / jax.ops.segment_sum(weight, row, **options)[..., None]
        return out.reshape(nodes, -1)

    def with_gradients(grad: Any, *operands: Any) -> Any:
        out, pull = jax.vjp(attend, *operands)
        return out, pull(grad)

    run, run_both = jax.jit(attend), jax.jit(with_gradients)

    def given(*tensors: Tensor) -> list[Any]:
        return [jax.dlpack.from_dlpack(x.detach()) for x in tensors]

    def function(*tensors: Tensor) -> Tensor:
        return torch.from_dlpack(run(*given(*tensors, *parameters)).block_until_ready())

    def both(grad: Tensor, *tensors: Tensor) -> tuple[Tensor, list[Tensor]]:
        out, grads = jax.block_until_ready(run_both(*given(grad, *tensors, *parameters)))
        return torch.from_dlpack(out), [torch.from_dlpack(x) for x in grads]

    return XlaCandidate(function, inputs, parameters, both=both)
