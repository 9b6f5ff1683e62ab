import json

import numpy as np
import pytest

from kgat import cli
from kgat.datasets import load_mapped
from kgat.experiments.bench import scale

pytestmark = pytest.mark.quick


def test_drawn_degrees_follow_a_power_law(tmp_path):
    scale.draw(tmp_path / "source", 2000, 40_000, 3)
    edges = np.load(tmp_path / "source" / "edges.npy")
    for ends in edges:
        degree = np.sort(np.bincount(ends, minlength=2000))[::-1]
        # Of rank r in N nodes: E / (2 sqrt(r N)).
        for rank in (10, 100, 1000):
            expected = 40_000 / (2 * np.sqrt(rank * 2000))
            assert degree[rank] == pytest.approx(expected, rel=0.35)
    parts = [np.load(tmp_path / "source" / f"{name}.npy") for name in ("train", "val", "test")]
    assert [len(part) for part in parts] == [200, 100, 100]
    assert len(np.unique(np.concatenate(parts))) == 400


def test_phases_in_processes_of_their_own(tmp_path, capsys):
    out = tmp_path / "scale.jsonl"
    arguments = ["bench", "scale", "--sizes", "0.001x0.01", "--channels", "4", "--processes", "2"]
    arguments += ["--batch-size", "64", "--neighbors", "3,3"]
    assert cli.main([*arguments, "--folder", str(tmp_path / "g"), "--out", str(out)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["phase"] for record in records] == ["convert", "train", "inference", "train"]
    assert [record["processes"] for record in records] == [1, 1, 1, 2]
    assert {record["threads"] for record in records} == {1}  # of the processes, not of who asks them
    assert all(record["resident"] > 1 << 20 for record in records)
    assert records[1]["batches"] == 2
    assert records[1]["samples"] == 100
    assert load_mapped(tmp_path / "g" / "drawn-1000-10000-4").data.edge_index.shape == (2, 10_000)
    assert [path.name for path in (tmp_path / "g").iterdir()] == ["drawn-1000-10000-4"]
    assert "GiB" in capsys.readouterr().out


def test_slopes_need_three_sizes():
    def record(nodes, edges):
        memory = 1e9 + 500.0 * nodes + 20.0 * edges
        return {"phase": "train", "nodes": nodes, "edges": edges, "resident": memory, "cpu_seconds": 1.0}

    sizes = [(10**5, 10**6), (10**5, 2 * 10**6), (2 * 10**5, 2 * 10**6)]
    expected = 1e9 + 500.0 * 1e8 + 20.0 * 1e9
    found = scale.extrapolated([record(*size) for size in sizes], "train", 10**8, 10**9)
    assert found["resident"] == pytest.approx(expected, rel=1e-9)
    assert (
        scale.extrapolated([record(n, 10 * n) for n in (10**5, 10**6, 10**7)], "train", 10**8, 10**9) is None
    )


@pytest.mark.parametrize("sizes", ["2.4", "axb", "0.00001x1"])
def test_sizes_that_are_none(sizes, tmp_path, capsys):
    assert cli.main(["bench", "scale", "--sizes", sizes, "--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
