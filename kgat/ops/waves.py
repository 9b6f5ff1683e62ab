r"""Points on circles: the sines and cosines of projected nodes, which spectral kernels compare.

On the CPU in single precision one compiled pass makes them, and another their gradients: angles stay in the
cache, and only the features are kept. Elsewhere, and inside of compilers and transforms, torch's ops do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kgat.capture import differentiates_forward, is_captured, is_legacy_batched
from kgat.ops.graph.device import available

# A product of matrices is faster for more channels, unless they are projected to many angles.
NARROW = 32


def components(x: Tensor, omega: Tensor) -> Tensor:
    r"""Multiplies each node's channels with its head's directions, in the wider of both dtypes.

    Shapes:
        - **x:** :math:`(*, N, H, D)`, **omega:** :math:`(H, D, S)`
        - **output:** :math:`(*, N, H, S)`
    """
    dtype = torch.promote_types(x.dtype, omega.dtype)
    return torch.einsum("...hd,hds->...hs", x.to(dtype), omega.to(dtype))


def circle(angle: Tensor, families: int = 1) -> Tensor:
    r"""Returns :math:`[\sin, \cos] / \sqrt m` of :math:`m` angles, a unit vector; of several families, one
    after another, the mean of theirs.

    Args:
        angle (torch.Tensor): The angles.
        families (int, optional): Number :math:`F` of families. (default: :obj:`1`)

    Shapes:
        - **angle:** :math:`(*, F m)`, **output:** :math:`(*, 2 m)`
    """
    if not _in_one_pass(angle):
        return _mean_circle(angle, families)
    out: Tensor = _Circle.apply(angle, None, families)  # type: ignore[no-untyped-call]
    return out


def waves(x: Tensor, omega: Tensor, families: int = 1) -> Tensor:
    r"""Returns the :func:`circle` of the :func:`components` of nodes along directions.

    Args:
        x (torch.Tensor): The nodes.
        omega (torch.Tensor): The directions of each head, one family after another.
        families (int, optional): Number :math:`F` of families. (default: :obj:`1`)

    Shapes:
        - **x:** :math:`(*, N, H, D)`, **omega:** :math:`(H, D, F m)`, **output:** :math:`(*, N, H, 2 m)`
    """
    narrow = 0 < x.size(-1) <= max(NARROW, omega.size(-1) // 2)
    dtype = torch.promote_types(x.dtype, omega.dtype)
    if omega.dim() != 3 or not narrow or not _in_one_pass(x.to(dtype), omega.to(dtype)):
        return circle(components(x, omega), families)
    out: Tensor = _Circle.apply(x.to(dtype), omega.to(dtype), families)  # type: ignore[no-untyped-call]
    return out


def _in_one_pass(*tensors: Tensor) -> bool:
    if is_captured() or differentiates_forward() or any(map(is_legacy_batched, tensors)):
        return False
    for x in tensors:
        if x.device.type != "cpu" or x.dtype != torch.float32 or type(x.detach()) is not Tensor:
            return False
    return available() is None


def _mean_circle(angle: Tensor, families: int) -> Tensor:
    angle = angle.unflatten(-1, (families, -1))
    both = torch.cat([angle.sin(), angle.cos()], dim=-1)
    return (both.squeeze(-2) if families == 1 else both.sum(dim=-2)) * (angle.size(-1) ** -0.5 / families)


class _Circle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, omega: Tensor | None, families: int) -> Tensor:  # type: ignore[override]
        from kgat.ops.cpu.launch import circle as compiled

        ctx.save_for_backward(x, omega)
        ctx.families = families
        return compiled(x, omega, families)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:  # type: ignore[override]
        x, omega = ctx.saved_tensors
        if torch.is_grad_enabled() or not _in_one_pass(x, grad):
            return *_gradients(x, omega, ctx.families, grad), None
        from kgat.ops.cpu.launch import circle_backward as compiled

        return *compiled(x, omega, ctx.families, grad), None


def _gradients(x: Tensor, omega: Tensor | None, families: int, grad: Tensor) -> tuple[Tensor, Tensor | None]:
    # In ops of torch, of which there are derivatives.
    angle = x if omega is None else components(x, omega)
    size = angle.size(-1) // families
    by_sin, by_cos = (torch.cat([part] * families, dim=-1) for part in grad.split(size, dim=-1))
    d_angle = (angle.cos() * by_sin - angle.sin() * by_cos) * (size**-0.5 / families)
    if omega is None:
        return d_angle, None
    # Products by head: torch cannot batch gradients of an einsum that way.
    nodes, (heads, channels, width) = x.shape[:-2].numel(), omega.shape
    by_head, turned = d_angle.reshape(nodes, heads, width).transpose(0, 1), omega.transpose(1, 2)
    d_omega = x.reshape(nodes, heads, channels).permute(1, 2, 0) @ by_head
    return (by_head @ turned).transpose(0, 1).reshape(x.shape), d_omega
