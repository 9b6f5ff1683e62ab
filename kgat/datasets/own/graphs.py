r"""Several graphs at a path, and pairs of nodes in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from kgat.datasets.own.data import read_several
from kgat.datasets.own.table_files import read_table
from kgat.datasets.own.tables import ends_of

__all__ = ["read_graphs", "read_pairs"]


def read_graphs(path: Path) -> tuple[list[str], list[Data]]:
    r"""Reads graphs and what they are called: those of a ``.pt`` file by number, those of a folder of such
    files by the name of their file, with the number behind it where a file has several.

    Args:
        path (Path): The file or folder.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If there is something else.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> ring = Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]))
        >>> torch.save(ring.to_dict(), folder / "ring.pt")
        >>> torch.save([ring.to_dict(), ring.to_dict()], folder / "two.pt")
        >>> names, graphs = read_graphs(folder)
        >>> names, graphs[0].num_edges
        (['ring', 'two/0', 'two/1'], 3)
    """
    if not path.exists():
        raise FileNotFoundError(f"Expected graphs at '{path}' (got no file or folder); check the path")
    if path.is_file():
        several = read_several(path)
        return list(map(str, range(len(several)))), several
    names: list[str] = []
    graphs: list[Data] = []
    for file in sorted(file for file in path.iterdir() if file.suffix in (".pt", ".pth")):
        several = read_several(file)
        names += [file.stem] if len(several) == 1 else [f"{file.stem}/{i}" for i in range(len(several))]
        graphs += several
    if not graphs:
        present = ", ".join(sorted(file.name for file in path.iterdir())[:10]) or "nothing"
        raise FileNotFoundError(
            f"Expected files .pt of graphs in '{path}' (got {present}); write them with "
            "torch.save(data.to_dict(), 'NAME.pt')"
        )
    return names, graphs


def read_pairs(path: Path, ids: Sequence[str], read: Mapping[str, Any]) -> Tensor:
    r"""Reads pairs of nodes from a table.

    Args:
        path (Path): The table.
        ids (list of str): The ids of the nodes, in their order.
        read (dict): ``edge_source`` and ``edge_target``, if the columns are not called source and target.

    Shapes:
        - **output:** :math:`(2, M)`

    Raises:
        FileNotFoundError: If there is no table.
        ValueError: If it lacks a column.
        IndexError: If it names a node that is not there.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "pairs.csv"
        >>> _ = path.write_text("source,target\nann,bob\nbob,cleo")
        >>> read_pairs(path, ["ann", "bob", "cleo"], {})
        tensor([[0, 1],
                [1, 2]])
    """
    source, target = read.get("edge_source", "source"), read.get("edge_target", "target")
    table, where = read_table(path, [source, target])
    ends = ends_of(table, ids, source, target, f"'{path}'", where)
    return torch.stack([torch.from_numpy(end) for end in ends])
