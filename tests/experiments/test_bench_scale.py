import json
from pathlib import Path

import numpy as np
import pytest

from kgat import cli
from kgat.datasets import load_mapped
from kgat.experiments import ledger
from kgat.experiments.bench import scale


@pytest.mark.quick
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


def test_each_phase_has_a_record(warm_workers, tmp_path, capsys, monkeypatch):
    in_a_process = scale._asked

    def asked(question):  # a phase of one process in this one, which has all loaded
        return in_a_process(question) if question.processes > 1 else next(scale.answers(question))

    monkeypatch.setattr(scale, "_asked", asked)
    out = tmp_path / "scale.jsonl"
    arguments = ["bench", "scale", "--sizes", "0.001x0.01", "--channels", "4", "--processes", "2"]
    arguments += ["--batch-size", "64", "--neighbors", "3,3"]
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- scale:begin -->\n<!-- scale:end -->\n")
    arguments += ["--folder", str(tmp_path / "g"), "--out", str(out), "--readme", str(page)]
    assert cli.main(arguments) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    phases = [(record["phase"], record["processes"]) for record in records]
    assert phases == [("convert", 1), ("train", 1), ("train", 2), ("speedup", 2), ("inference", 1)]
    assert records[2]["threads"] == records[3]["threads"] == 1  # of the processes, not of who asks them
    convert, one, two, speedup, _ = records
    assert speedup["ratio"][0] == pytest.approx(
        two["samples_per_second"] / one["samples_per_second"], rel=1e-3
    )
    assert all(record["resident"] >= record["anonymous"] > 1 << 20 for record in (convert, one))
    assert two["anonymous"] > two["resident"] / 2 > 1 << 20  # of both together, and of the larger
    assert (one["batches"], one["samples"]) == (2, 100)
    assert load_mapped(tmp_path / "g" / "drawn-1000-10000-4").data.edge_index.shape == (2, 10_000)
    assert [path.name for path in (tmp_path / "g").iterdir()] == ["drawn-1000-10000-4"]
    shown = capsys.readouterr().out
    assert "| train in 2 processes | 1,000 | 10,000 |" in shown
    assert "2 processes train" in shown
    assert scale.laid_out(records, 111 * 10**6, 1615 * 10**6) in page.read_text()


def record(nodes, edges):
    memory = 1e9 + 500.0 * nodes + 20.0 * edges
    return {
        **{"phase": "train", "nodes": nodes, "edges": edges, "processes": 1, "samples_per_second": 7.0},
        **{"load": 0.5, "cpu_seconds": 1.0, "resident": memory, "anonymous": memory / 2},
    }


@pytest.mark.quick
def test_slopes_need_three_sizes_and_say_what_a_larger_graph_takes():
    records = [record(10**5, 10**6), record(10**5, 2 * 10**6), record(2 * 10**5, 2 * 10**6)]
    fit = scale.slopes(records, "train")
    assert fit["resident"] == pytest.approx((1e9, 500.0, 20.0), rel=1e-9)
    assert fit["anonymous"] == pytest.approx((5e8, 250.0, 10.0), rel=1e-9)
    gigabytes = (1e9 + 500.0 * 1e7 + 20.0 * 1e8) / 2**30
    last = f"| train, by slopes | 10,000,000 | 100,000,000 | 1 | {gigabytes:.2f} GiB |"
    assert last in scale.laid_out(records, 10**7, 10**8)
    assert "by slopes" not in scale.laid_out(records, 10**8, 10**8)  # too far away
    on_one_line = [record(n, 10 * n) for n in (10**5, 10**6, 10**7)]
    assert scale.slopes(on_one_line, "train") is None
    assert "by slopes" not in scale.laid_out(on_one_line, 10**7, 10**8)


@pytest.mark.quick
def test_the_page_has_what_the_records_say():
    root = Path(__file__).parents[2]
    records = ledger.read(root / "benchmarks" / "scale.jsonl")
    table = scale.laid_out(records, 111 * 10**6, 1615 * 10**6)
    assert table in (root / "docs" / "how-to" / "large-graphs.md").read_text()


@pytest.mark.quick
@pytest.mark.parametrize("sizes", ["2.4", "axb", "0.00001x1"])
def test_sizes_that_are_none(sizes, tmp_path, capsys):
    assert cli.main(["bench", "scale", "--sizes", sizes, "--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
