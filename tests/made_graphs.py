r"""Small graphs as their owners have them."""

import numpy as np
import pandas as pd

NODES, EDGES = 60, 150


def tables(seed=0):
    r"""A table of people and one of who knows whom."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, NODES)
    nodes = pd.DataFrame(
        {
            "id": [f"p{i}" for i in range(NODES)],
            "age": np.round(rng.normal(30 + 10 * kind, 5), 1),
            "job": rng.choice(["smith", "cook", "clerk"], NODES),
            "member": rng.random(NODES) > 0.5,
            "label": np.array(["red", "green", "blue"])[kind],
        }
    )
    ends = rng.integers(0, NODES, (2, EDGES))
    edges = pd.DataFrame({"source": nodes["id"][ends[0]].values, "target": nodes["id"][ends[1]].values})
    return nodes, edges


def write(folder, nodes, edges=None, suffix="csv", **names):
    r"""Writes tables where ``--data`` looks for them."""
    folder.mkdir(exist_ok=True)
    for name, table in (("nodes", nodes), ("edges", edges)):
        if table is None:
            continue
        path = folder / f"{name}.{suffix}"
        if suffix == "parquet":
            table.to_parquet(path)
        else:
            table.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    return folder
