r"""Which models have penalties to collect."""

from __future__ import annotations

import torch

__all__ = ["penalised"]


def _penalised(model: torch.nn.Module) -> bool:
    # One around another model is told by 'takes' what it can hand on to it.
    if not getattr(model, "takes", {"**"}) & {"losses", "**"}:
        return False
    return any(getattr(part, "penalised", False) for part in model.modules() if part is not model)


#: What a model says of itself, whatever it is made of: the layers and kernels in it know.
penalised = property(_penalised, doc="Whether a part of it has a penalty for ``losses``.")
