r"""How a graph became numbers, so that another one becomes numbers in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from kgat.datasets.own.columns import Column
from kgat.datasets.own.raw import MISSING, Array, listed

__all__ = ["Encoding"]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    r"""What was done to a graph of one's own, from its files to features and edges.

    Args:
        columns (list of Column, optional): The columns of a table of nodes as features; :obj:`None` if
            features came as numbers. (default: :obj:`None`)
        edge_columns (list of Column, optional): Those of a table of edges. (default: :obj:`()`)
        ignored (list of str, optional): Columns that are no features: labels, and what decided about splits.
            (default: :obj:`()`)
        read (dict, optional): How the files are read, arguments of :func:`read_graph`. (default: :obj:`{}`)
        scale (tuple, optional): Mean and deviation that points were standardised by. (default: :obj:`None`)
        structure (list of str, optional): Features made of the edges. (default: :obj:`()`)
        degrees (tuple, optional): Mean and deviation that those of degrees were standardised by.
            (default: :obj:`None`)
        directed (bool, optional): Whether an edge counts in its direction alone; if :obj:`None`, that is left
            to the graph. (default: :obj:`None`)
        features (int, optional): How many features came as numbers. (default: :obj:`None`)
        edge_features (int, optional): How many features of edges did. (default: :obj:`0`)
    """

    columns: Sequence[Column] | None = None
    edge_columns: Sequence[Column] = ()
    ignored: Sequence[str] = ()
    read: Mapping[str, Any] = field(default_factory=dict)
    scale: Sequence[Sequence[float]] | None = None
    structure: Sequence[str] = ()
    degrees: Sequence[Sequence[float]] | None = None
    directed: bool | None = None
    features: int | None = None
    edge_features: int = 0

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Encoding:
        r"""Returns what :meth:`as_dict` was made of.

        Raises:
            TypeError: If something else is there.
        """
        content = dict(content)
        for name in ("columns", "edge_columns"):
            if content.get(name) is not None:
                content[name] = [Column(**column) for column in content[name]]
        return cls(**content)

    def as_dict(self) -> dict[str, Any]:
        r"""Returns what JSON can hold, without what is at its default.

        Example:
            >>> Encoding(structure=["degree"], directed=True).as_dict()
            {'structure': ['degree'], 'directed': True}
        """
        usual = Encoding()
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        kept = {name: value for name, value in kept.items() if value != getattr(usual, name)}
        for name in {"columns", "edge_columns"} & kept.keys():
            kept[name] = [{**asdict(column), "categories": list(column.categories)} for column in kept[name]]
        return kept

    def expect_table(self, source: str, has_columns: bool) -> None:
        r"""Refuses a table where features came as numbers, and numbers where they came as a table."""
        if has_columns == (self.columns is not None):
            return
        if has_columns:
            raise ValueError(
                f"Expected features as rows of {self.features} numbers as in training (got the table "
                f"{source}); give a Data or arrays with 'x'"
            )
        raise ValueError(
            f"Expected a table with the columns {listed([c.name for c in self.columns or ()])} as in "
            f"training (got {source}, which holds numbers without names); give the table"
        )

    def expect_sizes(self, source: str, features: int, edge_features: int) -> None:
        r"""Refuses features of another length."""
        what: dict[str, tuple[int | None, int]] = {
            "features per node": (self.features, features),
            "features per edge": (self.edge_features, edge_features),
        }
        for name, (wanted, there) in what.items():
            if wanted is not None and wanted != there:
                raise ValueError(
                    f"Expected {wanted} {name} as in training (got {there} in {source}); give the same "
                    "ones in the same order"
                )

    def names(self) -> list[str]:
        r"""Returns the columns, of nodes and edges, in which a text such as "NA" or "007" is a name."""
        columns = [*(self.columns or ()), *self.edge_columns]
        others = {column.name for column in columns if column.kind != "category"}
        return [
            column.name
            for column in columns
            if column.kind == "category"
            # A number of edges may be called as a category of nodes is.
            and (column.name not in others or {*column.categories} & {*MISSING})
        ]

    def scaled(self, x: Array) -> Array:
        r"""Returns points in the units that those of training had."""
        if self.scale is None:
            return x
        mean, deviation = map(np.asarray, self.scale)
        return (x - mean) / deviation  # type: ignore[no-any-return]
