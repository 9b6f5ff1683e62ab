r"""Molecules of the `"Open Graph Benchmark" <https://arxiv.org/abs/2005.00687>`_, split by scaffold."""

from functools import partial
from pathlib import Path

import numpy as np

from kgat.datasets.files import RawFile, expect, read_csv
from kgat.datasets.graph import Array, mask
from kgat.datasets.source import Collection, CollectionSource

URL = "https://snap.stanford.edu/ogb/data/graphproppred/csv_mol_download"
# How many values each category of an atom and of a bond has in OGB's encoders, which are embeddings of them:
# a linear map of one-hot categories is the sum of their embeddings.
ATOM = (119, 5, 12, 12, 10, 6, 6, 2, 2)
BOND = (5, 6, 2)


def _one_hot(values: Array, sizes: tuple[int, ...]) -> Array:
    expect(values.shape[1] == len(sizes), f"{values.shape[1]} categories where {len(sizes)} are known")
    expect(bool((values >= 0).all() and (values < sizes).all()), "a category that is not known")
    columns = [np.eye(size, dtype=np.float32)[value] for size, value in zip(sizes, values.T, strict=True)]
    return np.concatenate(columns, axis=1)


def _read(paths: list[Path], regression: bool) -> Collection:
    edges, bonds, atoms, labels, num_nodes, num_edges, *split = paths
    nodes, counts = (read_csv(path, np.int64)[:, 0] for path in (num_nodes, num_edges))
    pairs, bond = read_csv(edges, np.int64), _one_hot(read_csv(bonds, np.int64), BOND)
    graph = np.repeat(np.arange(len(nodes)), nodes)
    expect(len(pairs) == len(bond) == counts.sum(), f"{len(pairs)} edges where {counts.sum()} are counted")
    # Within each molecule atoms are counted from 0, and a bond is there once.
    row, col = (pairs + np.repeat(nodes.cumsum() - nodes, counts)[:, None]).T
    y = read_csv(labels, np.float32)
    parts = tuple(mask(read_csv(path, np.int64)[:, 0], len(nodes)) for path in split)
    return Collection(
        _one_hot(read_csv(atoms, np.int64), ATOM),
        np.concatenate([row, col]),
        np.concatenate([col, row]),
        graph,
        y if regression or y.shape[1] > 1 else y[:, 0].astype(np.int64),
        np.concatenate([bond, bond]),
        [("scaffold", *parts)],  # type: ignore[list-item]
    )


def _source(name: str, metric: str, what: str) -> CollectionSource:
    raw = ("edge", "edge-feat", "node-feat", "graph-label", "num-node-list", "num-edge-list")
    files = [f"raw/{file}.csv.gz" for file in raw]
    files += [f"split/scaffold/{part}.csv.gz" for part in ("train", "valid", "test")]
    archive = name.removeprefix("mol") if name != "mollipo" else "lipophilicity"
    return CollectionSource(
        name=f"ogbg-{name}",
        read=partial(_read, regression=metric == "rmse"),
        citation=f"{what}; Wu et al., MoleculeNet (2018), Hu et al., Open Graph Benchmark (2020), MIT",
        features="9 categories of atoms and 3 of bonds, one-hot with all values that OGB's encoders know",
        files=tuple(
            RawFile(f"ogbg_{name}/{file}", f"{URL}/{archive}.zip", f"{archive}/{file}") for file in files
        ),
        metric=metric,
        needs=("pandas",),
    )


SOURCES = [
    _source("molbace", "roc_auc", "Inhibitors of human beta-secretase 1"),
    _source("molbbbp", "roc_auc", "Penetration of the blood-brain barrier"),
    _source("molhiv", "roc_auc", "Inhibitors of HIV replication"),
    _source("molclintox", "roc_auc", "Drugs that failed for toxicity"),
    _source("moltox21", "roc_auc", "Toxicity on 12 targets"),
    _source("moltoxcast", "roc_auc", "Toxicity in 617 experiments"),
    _source("molmuv", "average_precision", "Validation of virtual screening, 17 targets"),
    _source("molpcba", "average_precision", "128 assays of PubChem"),
    _source("molsider", "roc_auc", "Side effects of drugs in 27 classes"),
    _source("molesol", "rmse", "Solubility in water, log mol per litre"),
    _source("molfreesolv", "rmse", "Hydration free energy, kcal per mol"),
    _source("mollipo", "rmse", "Lipophilicity, octanol/water distribution"),
]
