r"""What a backend is, and the table of them.

A backend has a name and answers two questions about a :class:`~kgat.ops.call.Call`: why it cannot run it, and
what comes out. There are two kinds. One computes calls itself, on any device, as the eager backend does. The
other is the code of one type of device, and a room of its own: it inherits from
:class:`~kgat.ops.fused.FusedBackend`, which turns a call into *passes* (see :mod:`kgat.ops.recipe`), and
computes those.

A new backend is a room whose class has a name, a device and the functions of a pass, and one more entry of
:data:`BACKENDS` in :mod:`kgat.ops`. ``kgat.testing.check_backend`` holds it against the reference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from kgat.names import nearest
from kgat.ops.call import Call
from kgat.ops.graph.adjacency import Adjacency
from kgat.ops.operands import Operands
from kgat.ops.recipe import Recipe


class Backend(ABC):
    r"""One way to compute edge attention.

    Attributes:
        name (str): What a user calls it.
        device (str, optional): The type of the devices that its code is for, of which it computes the passes;
            :obj:`None` if it takes any and has no passes. (default: :obj:`None`)
        on_request (bool): Whether it runs only where it is named. (default: :obj:`False`)
    """

    name: ClassVar[str]
    device: ClassVar[str | None] = None
    on_request: ClassVar[bool] = False

    def reasons(self, call: Call) -> list[str]:
        r"""Returns why it cannot run :obj:`call`; empty if it can."""
        return []

    def remarks(self, call: Call) -> list[str]:
        r"""Returns what makes a call slower that it can run, and why."""
        return []

    def is_here(self) -> bool:
        r"""Returns whether this machine has the device and the packages for it."""
        return True

    @abstractmethod
    def edge_attention_with_weights(self, call: Call) -> tuple[Tensor, Tensor]:
        r"""Computes :meth:`edge_attention` and the weights in it, after dropout.

        Shapes:
            - **output:** :math:`(N, H, C)` and :math:`(E, H)`
        """

    def edge_attention(self, call: Call) -> Tensor:
        r"""Computes what :func:`kgat.functional.edge_attention` says.

        Shapes:
            - **output:** :math:`(N, H, C)`

        Raises:
            BackendError: If a rule cannot be compiled; the eager backend then runs the call.
        """
        return self.edge_attention_with_weights(call)[0]


class Passes(Backend):
    r"""A backend of one type of device: what it computes of operands that have been checked.

    Operands are contiguous, on that device and of float32 or float64; values may be of a half type, and are
    then summed in float32. Results do not depend on the run, on the number of threads or on chance beyond the
    seed: the same operands give the same bits.
    """

    device: ClassVar[str]

    def is_here(self) -> bool:
        device = self.device == "cpu" or torch.get_device_module(self.device).is_available()
        return device and self.available() is None

    @abstractmethod
    def available(self) -> str | None:
        r"""Returns why nothing of it can run on this machine, :obj:`None` if it can."""

    @abstractmethod
    def attention(self, recipe: Recipe, adjacency: Adjacency, x: Operands) -> tuple[Tensor, Tensor]:
        r"""Computes :math:`\mathbf{o}` and :math:`\lambda`, both 0 for rows without edges and for rows whose
        scores are all :math:`-\infty`.

        Args:
            recipe (Recipe): What to compute.
            adjacency (Adjacency): The edges.
            x (Operands): The tensors.

        Shapes:
            - **output:** :math:`(N, H, C)` and :math:`(N, H, 2)`, both of the type of scores: backward takes
              differences of :math:`\mathbf{o}` that are lost when it is rounded to that of values.
              :math:`\lambda` is the sum of two numbers, a score near the largest, or 0, and the logarithm of
              the sum of exponentials beyond it: scores in the millions would leave nothing of the second

        Raises:
            BackendError: If it cannot be compiled, as all of these functions.
        """

    def attention_and_base(
        self, recipe: Recipe, adjacency: Adjacency, x: Operands, base: Tensor | None, keeps: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Computes what :meth:`attention` does, and :math:`\mathbf{o}` plus a base.

        Args:
            recipe (Recipe): What to compute.
            adjacency (Adjacency): The edges.
            x (Operands): The tensors.
            base (torch.Tensor, optional): What is added, of the type of scores.
            keeps (bool): Whether :math:`\mathbf{o}` is for backward, and therefore memory of its own: the sum
                may be changed in place. Else it may be overwritten.

        Shapes:
            - **base:** :math:`(H, C)` or :math:`(N, H, C)`
            - **output:** as of :meth:`attention`, and the sum, as :math:`\mathbf{o}`
        """
        out, lse = self.attention(recipe, adjacency, x)
        if base is not None:
            return out, lse, out + base
        return out, lse, out.clone() if keeps and out.dtype is x.value.dtype else out

    @abstractmethod
    def attention_backward(
        self, recipe: Recipe, adjacency: Adjacency, x: Operands, out: Tensor, lse: Tensor, grad: Tensor
    ) -> dict[str, Tensor]:
        r"""Computes the gradients of :attr:`~kgat.ops.operands.Operands.learned`, by name.

        Where value, query or key are the same object, it may give the sum of their gradients to the first of
        them and none to the others.

        Args:
            recipe (Recipe): What was computed.
            adjacency (Adjacency): The edges.
            x (Operands): The tensors.
            out (torch.Tensor): :math:`\mathbf{o}`.
            lse (torch.Tensor): :math:`\lambda`, in its two parts.
            grad (torch.Tensor): The gradient of :math:`\mathbf{o}`.
        """

    @abstractmethod
    def score(self, recipe: Recipe, adjacency: Adjacency, x: Operands) -> Tensor:
        r"""Computes the sums :math:`t` of the pairs alone, without link and biases.

        Args:
            recipe (Recipe): What to compute; it has a pair.
            adjacency (Adjacency): The edges.
            x (Operands): The tensors; the value has no channels.

        Shapes:
            - **output:** :math:`(E, H)`, in the caller's order of edges
        """

    @abstractmethod
    def score_backward(
        self, recipe: Recipe, adjacency: Adjacency, x: Operands, grad: Tensor
    ) -> dict[str, Tensor]:
        r"""Computes the gradients of query, key and weight, by name.

        Args:
            recipe (Recipe): What was computed.
            adjacency (Adjacency): The edges.
            x (Operands): The tensors.
            grad (torch.Tensor): The gradient of :math:`t`.

        Shapes:
            - **grad:** :math:`(E, H)`, in the caller's order of edges
        """

    @abstractmethod
    def dropout_mask(self, edges: int, heads: int, p: float, seed: Tensor) -> Tensor:
        r"""Returns the mask that a seed stands for in every pass, over :math:`1 - p`.

        Args:
            edges (int): :math:`E`.
            heads (int): :math:`H`.
            p (float): Probability of dropping.
            seed (torch.Tensor): The seed.

        Shapes:
            - **output:** :math:`(E, H)`, float64, in the caller's order of edges
        """


# In order of preference; filled by kgat.ops, which knows the rooms.
BACKENDS: list[Backend] = []


def named(name: str) -> Backend:
    r"""Returns the backend of a name.

    Raises:
        ValueError: If there is none.
    """
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    known = ", ".join(repr(backend.name) for backend in BACKENDS)
    close = nearest(name, [backend.name for backend in BACKENDS])
    raise ValueError(f"Expected 'backend' as None or one of {known} (got {name!r}){close}")


def on(device: torch.device) -> Passes:
    r"""Returns the backend that computes passes on a device.

    Raises:
        ValueError: If there is none.
    """
    for backend in BACKENDS:
        if backend.device == device.type:
            return backend  # type: ignore[return-value]
    known = " or ".join(sorted(backend.device for backend in BACKENDS if backend.device is not None))
    raise ValueError(
        f"Expected tensors on {known}, which have fused code (got {device}); pass backend='eager'"
    )
