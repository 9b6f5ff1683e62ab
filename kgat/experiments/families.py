r"""Families of models: one row of a table, whose member is chosen inside its trials."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kgat.experiments.config import Config
from kgat.experiments.registry import MODELS, Model, named

__all__ = ["FAMILIES", "Family", "families"]

# What a name alone stands for.
FAMILIES = {"kernel": ("rbf", "dot", "spectral", "implicit", "laplace", "additive*rbf", "rbf*l2")}
NAME = r"[A-Za-z][\w.-]*"


@dataclass(frozen=True)
class Family:
    r"""Models that compete as one.

    Args:
        name (str): What tables call it.
        members (tuple of str): The names of the models, of which trials choose one.

    Example:
        >>> (family,), _ = families("kernel{RBF,dot}")
        >>> family, family.is_single
        (Family(name='kernel', members=('rbf', 'dot')), False)
    """

    name: str
    members: tuple[str, ...]

    @property
    def is_single(self) -> bool:
        r"""Whether it is a model, and no choice."""
        return self.members == (self.name,)

    @property
    def mark(self) -> dict[str, Any]:
        r"""What records say of it."""
        return {"model": self.name, **({} if self.is_single else {"family": list(self.members)})}

    def key(self, config: Config) -> str:
        r"""Returns the key of a run, which another family may have a run of, too."""
        return config.key if config.model == self.name else f"{self.name}-{config.key}"


def families(models: Any) -> tuple[list[Family], dict[str, Model]]:
    r"""Returns the families and models of a comparison, and the models whose name alone does not find them.

    Args:
        models (str or list or dict): As :func:`kgat.experiments.registry.named` takes them; of a family the
            name is as in :obj:`"kernel{rbf,dot}"`, a name of :data:`FAMILIES`, or a dictionary has a list:
            :obj:`{"kernel": ["rbf", "dot"]}`.

    Raises:
        TypeError: If one is nothing that could be a model.
        ValueError: If a family has fewer than two members or the name of a model or of another family.
    """
    if isinstance(models, str):
        models = [models]
    pairs = list(models.items()) if isinstance(models, Mapping) else [(None, model) for model in models]
    known: dict[str, Family] = {}
    own: dict[str, Model] = {}
    for label, thing in pairs:
        name, members = _members(label, thing)
        if name is None:
            names, of_label = named([thing] if label is None else {label: thing})
            family = Family(names[0], tuple(names))
        else:
            names, of_label = named(members)
            family = Family(name, tuple(names))
            _expect_family(family)
        if known.setdefault(family.name, family) != family:
            raise ValueError(f"Expected one family of a name (got two of '{family.name}'); rename one")
        own |= of_label
    return list(known.values()), own


def _members(label: str | None, thing: Any) -> tuple[str | None, list[Any]]:
    r"""The name of a family and its members; no name of anything else."""
    if isinstance(thing, list | tuple):
        return label, list(thing)
    if isinstance(thing, str):
        if match := re.fullmatch(rf"\s*({NAME})\s*\{{(.*)\}}\s*", thing):
            members = re.split(r",(?![^\[\]]*\])", match[2])
            return label or match[1], [member.strip() for member in members if member.strip()]
        if (name := thing.strip().lower()) in FAMILIES:
            return label or name, list(FAMILIES[name])
    return None, []


def _expect_family(family: Family) -> None:
    if not re.fullmatch(NAME, family.name) or family.name.lower() in MODELS:
        raise ValueError(
            f"Expected a name of its own for a family (got '{family.name}'); name it as in "
            f"mine{{{','.join(family.members)}}}"
        )
    if len(family.members) < 2:
        raise ValueError(
            f"Expected at least two models in the family '{family.name}' (got {len(family.members)}); list "
            "them as in kernel{rbf,dot}, or name the model alone"
        )
