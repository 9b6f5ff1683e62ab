r"""Answers of a trained model for data that it was not trained on, as a table with the names of its owner."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from kgat.atomic import write_atomically
from kgat.datasets import (
    Encoding,
    Graphs,
    load,
    read_graphs,
    read_pairs,
    read_unlabelled,
    read_unlabelled_types,
)
from kgat.datasets.own.hetero import expect_types
from kgat.datasets.task import PARTS
from kgat.experiments import training
from kgat.experiments.batch_trainer import BatchTrainer
from kgat.experiments.config import Config
from kgat.experiments.link_batch_trainer import nodes_of
from kgat.experiments.trainer import inputs_of
from kgat.models.inference import EDGES

__all__ = ["Predictions", "Trained"]


@dataclass(frozen=True)
class Predictions:
    r"""A table of answers: a row for each node, graph or pair.

    Args:
        columns (dict): The columns by name, names of rows first.
    """

    columns: dict[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def text(self) -> str:
        r"""Returns the table as CSV; numbers are written so that they are read as the same ones.

        Example:
            >>> print(Predictions({"id": ["ann"], "prediction": [0.5]}).text(), end="")
            id,prediction
            ann,0.5
        """
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(zip(*self.columns.values(), strict=True))
        return out.getvalue()

    def save(self, path: str | os.PathLike[str]) -> None:
        r"""Writes the table as a CSV file, complete or not at all.

        Args:
            path (str or Path): The file.

        Raises:
            PermissionError: If it cannot be written.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, self.text().encode())
        except OSError as error:
            if error.strerror is None:  # a full disk has a sentence already
                raise
            raise PermissionError(
                f"Expected a file that can be written (got '{path}': {error.strerror}); choose another with "
                "--output"
            ) from None


@dataclass(frozen=True)
class Types:
    r"""What a model knows of a heterogeneous graph.

    Args:
        target (str): The type of nodes that it answers for.
        features (dict): The number of features by type of nodes.
        edge_features (dict): That by type of edges, 0 for none.
    """

    target: str
    features: Mapping[str, int]
    edge_features: Mapping[Any, int]


@dataclass(frozen=True, eq=False)
class Trained:
    r"""A model that ``kgat train --out`` wrote, with what was done to its data.

    Args:
        model (torch.nn.Module): The model, in evaluation mode.
        config (Config): The settings it was trained with.
        level (str): What it answers for: a :obj:`"node"`, :obj:`"graph"` or :obj:`"link"`.
        kind (str): The kind of the task.
        encoding (Encoding): How its data became numbers.
        classes (list of str): The names of classes, labels or values.
        types (Types, optional): Of a heterogeneous graph, its types. (default: :obj:`None`)
    """

    model: torch.nn.Module
    config: Config
    level: str
    kind: str
    encoding: Encoding
    classes: Sequence[str]
    types: Types | None = None

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "cpu") -> Trained:
        r"""Loads a model.

        Args:
            folder (str or Path): The folder.
            device (str, optional): Where to predict. (default: :obj:`"cpu"`)

        Raises:
            FileNotFoundError: If there is no model.
            ValueError: If a file is damaged.
        """
        folder = Path(folder)
        model = training.restore(folder).to(device)
        path = folder / training.CONFIG
        description = json.loads(path.read_text(encoding="utf8"))
        types, usual = None, {}
        if "target" in description:
            widths = {tuple(edge): width for edge, width in description.get("edge_dim") or []}
            edges = map(tuple, description["metadata"][1])
            types = Types(
                description["target"],
                description["in_channels"],
                {edge: widths.get(edge, 0) for edge in edges},
            )
        else:
            sizes = {"in_channels": "features", "edge_dim": "edge_features"}
            usual = {name: description.get(size) or 0 for size, name in sizes.items()}
        data = description.get("data", {})
        try:
            encoding = Encoding.of(data.get("encoding", usual))
        except (TypeError, AttributeError) as error:
            raise ValueError(
                f"Expected '{path}' as kgat train writes it (got {type(error).__name__}: {error}); "
                "train again"
            ) from error
        classes = data.get("classes") or list(map(str, range(description["out_channels"])))
        if not isinstance(classes, list) or len(classes) != description["out_channels"]:
            raise ValueError(
                f"Expected '{path}' as kgat train writes it, with {description['out_channels']} classes (got "
                f"{classes}); train again"
            )
        level, kind = description.get("level", "node"), description.get("kind", "multiclass")
        return cls(model, Config.from_dict(description["config"]), level, kind, encoding, classes, types)

    def on_data(
        self, path: str | os.PathLike[str], pairs: str | os.PathLike[str] | None = None, **options: Any
    ) -> Answers:
        r"""Answers for a graph of one's own, or for several.

        Args:
            path (str or Path): What :func:`kgat.datasets.read_unlabelled` takes; of whole graphs a ``.pt``
                file of several, or a folder of such files.
            pairs (str or Path, optional): Of links: a table with a column of sources and one of targets.
                (default: :obj:`None`)
            **options (optional): As of :func:`kgat.datasets.read_unlabelled`.

        Raises:
            ValueError: If features are not those of training; if there are no pairs.
        """
        if self.level == "graph":
            for name in options:
                raise ValueError(f"Expected no '{name}' of whole graphs (got one); leave it out")
            names, several = read_graphs(Path(path))
            return self._of_graphs(Graphs.of(str(path), several), names, f"'{path}'")
        if self.types is not None:
            for name in options:
                raise ValueError(
                    f"Expected no '{name}' of a heterogeneous graph (got one), a .pt file; leave it out"
                )
            graph, names_of = read_unlabelled_types(
                Path(path), self.types.features, self.types.edge_features, self.encoding.directed
            )
            return self._of_target(graph, names_of.get(self.types.target))
        task = read_unlabelled(path, self.encoding, **options)
        ids = task.data.get("node_id") or range(task.data.x.size(0))
        if self.level == "node":
            return self._of_nodes(task, ids)
        if pairs is None:
            raise ValueError(
                "Expected pairs of nodes to score (got none); name a table with the columns source and "
                "target: --pairs pairs.csv"
            )
        return self._of_pairs(task.data, ids, Path(pairs))

    def on_dataset(
        self,
        name: str | None = None,
        root: str | os.PathLike[str] | None = None,
        pairs: str | os.PathLike[str] | None = None,
    ) -> Answers:
        r"""Answers for a data set by name: all of its nodes or graphs; of links the test pairs of the split
        that the model was trained with, or those of a table.

        Args:
            name (str, optional): The name; that of training if :obj:`None`. (default: :obj:`None`)
            root (str or Path, optional): The folder of the data sets. (default: :obj:`None`)
            pairs (str or Path, optional): As of :meth:`on_data`. (default: :obj:`None`)

        Raises:
            ValueError: If features or the level are not those of training.
        """
        if name is None and self.config.data is not None:
            raise ValueError(
                f"Expected the graph to predict on (got none, and '{self.config.dataset}' is data of one's "
                "own); name it: --data PATH"
            )
        task = load(name or self.config.dataset, root)
        if task.level != self.level:
            raise ValueError(
                f"Expected a data set of {self.level}s, which the model was trained on (got '{task.name}' of "
                f"{task.level}s); choose another"
            )
        if (self.types is None) != (getattr(task, "target", None) is None):
            of = "several types" if self.types is None else "one type"
            raise ValueError(
                f"Expected a graph as the model was trained on (got '{task.name}', of {of} of nodes); choose "
                "another"
            )
        if self.level == "graph":
            return self._of_graphs(task.graphs, range(len(task.graphs)), f"'{task.name}'")
        if self.types is not None:
            expect_types(task.data, f"'{task.name}'", self.types.features, self.types.edge_features)
            return self._of_target(task.data)
        self._expect_sizes(task.data, f"'{task.name}'")
        nodes = range(task.data.x.size(0))
        if self.level == "node":
            return self._of_nodes(task, nodes)
        if pairs is not None:
            return self._of_pairs(task.data, nodes, Path(pairs))
        split = task.split(self.config.seed)
        index = split.test.index.flatten(1)
        scores = training.outputs(self.model, task, split, self.config)["test"].flatten()
        return Answers(self, {"source": index[0].tolist(), "target": index[1].tolist()}, scores)

    def _expect_sizes(self, graph: Any, source: str) -> None:
        edge_attr = graph.edge_attr
        width = 0 if edge_attr is None else edge_attr.size(1) if edge_attr.dim() > 1 else 1
        self.encoding.expect_table(source, False)
        self.encoding.expect_sizes(source, graph.x.size(1), width)

    def _of_nodes(self, task: Any, ids: Sequence[Any]) -> Answers:
        by_layer = self._by_layer(task.data.edge_index, self.config.batch_size is not None)
        with torch.no_grad():
            trainer = BatchTrainer if by_layer else training.TRAINERS["node"]
            output = trainer.outputs(self.model, task, None)[PARTS[0]]
        names: dict[str, Sequence[Any]] = {"id": ids}
        if "graph_name" in task.data:
            graphs = [task.data.graph_name[number] for number in task.data.batch.tolist()]
            ids = [name.removeprefix(f"{graph}/") for name, graph in zip(ids, graphs, strict=True)]
            names = {"graph": graphs, "id": ids}
        return Answers(self, names, output)

    def _by_layer(self, edge_index: Tensor, is_sampled: bool) -> bool:
        # Encodings are handed to the model's call, which knows the whole graph.
        return (is_sampled or edge_index.size(1) > EDGES) and self.config.position_dim is None

    def _of_target(self, graph: HeteroData, ids: Sequence[Any] | None = None) -> Answers:
        assert self.types is not None
        x, edge_index, kwargs = inputs_of(graph, next(self.model.parameters()).device)
        # Some layers number types as they come: in the order of training.
        x = {name: x[name] for name in self.types.features}
        edge_index = {edge: edge_index[edge] for edge in self.types.edge_features}
        with torch.no_grad():
            output = self.model(x, edge_index, **kwargs).cpu()
        return Answers(self, {"id": range(output.size(0)) if ids is None else ids}, output)

    def _of_graphs(self, graphs: Graphs, names: Sequence[Any], source: str) -> Answers:
        self._expect_sizes(graphs, source)
        with torch.no_grad():
            output = training.TRAINERS["graph"].outputs(self.model, _Asked(graphs), None)[PARTS[0]]
        return Answers(self, {"graph": names}, output)

    def _of_pairs(self, graph: Any, ids: Sequence[Any], path: Path) -> Answers:
        index = read_pairs(path, list(map(str, ids)), self.encoding.read)
        device = next(self.model.parameters()).device
        x, edge_index, kwargs = inputs = inputs_of(graph, device)
        with torch.no_grad():
            if self._by_layer(edge_index, self.config.neighbors is not None):
                decode: Any = self.model.decode
                scores = decode(nodes_of(self.model, inputs), index.to(device)).cpu()
            else:
                scores = self.model(x, edge_index, **kwargs, pairs=index.to(device)).cpu()
        ends = {"source": index[0], "target": index[1]}
        return Answers(self, {name: [ids[i] for i in end.tolist()] for name, end in ends.items()}, scores)


@dataclass(frozen=True)
class _Asked:
    graphs: Graphs


@dataclass(frozen=True, eq=False)
class Answers:
    r"""What a model says of rows that have names.

    Args:
        of (Trained): The model.
        names (dict): Columns that name the rows.
        output (torch.Tensor): Its outputs: logits, or values in the unit of the label.
    """

    of: Trained
    names: dict[str, Sequence[Any]]
    output: Tensor

    def table(self, probabilities: bool = False) -> Predictions:
        r"""Returns the answers in the words of the labels: the most likely class, whether each label holds,
        values, or scores of pairs.

        Args:
            probabilities (bool, optional): Whether those of classes, labels or links stand beside them.
                (default: :obj:`False`)

        Raises:
            ValueError: If there are none, of a regression.
        """
        kind, classes, output = self.of.kind, self.of.classes, self.output
        if kind == "regression" and probabilities:
            raise ValueError(
                "Expected classes, labels or links for probabilities (got a regression); leave them out"
            )
        columns = dict(self.names)
        if self.of.level == "link":
            columns["score"] = output.tolist()
            chances = {"probability": output.sigmoid()}
        elif kind in ("multilabel", "regression"):
            names = classes if kind == "multilabel" or len(classes) > 1 else ["prediction"]
            values = output if kind == "regression" else (output > 0).long()
            columns |= dict(zip(names, values.t().tolist(), strict=True))
            chances = dict(zip((f"probability {name}" for name in names), output.sigmoid().t(), strict=True))
        else:
            columns["prediction"] = [classes[number] for number in output.argmax(dim=-1).tolist()]
            shares = output.softmax(dim=-1).t()
            chances = dict(zip((f"probability {name}" for name in classes), shares, strict=True))
        if probabilities:
            columns |= {name: chance.tolist() for name, chance in chances.items()}
        return Predictions(columns)
