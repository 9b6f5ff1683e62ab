import pytest

from kgat.experiments import ledger
from kgat.experiments.bench.loader import bench_loader


def test_records(tmp_path):
    path, said = tmp_path / "loader.jsonl", []
    records = bench_loader("tiny", tmp_path, [3, 2], 8, 2, path, said.append)
    assert said == records == ledger.read(path)
    feeds = [record["what"] for record in records if record["peer"] == "the training step it feeds"]
    assert feeds == ["sampling", "sampling and features", "ordering the edges of a batch for attention"]
    for record in records:
        middle, low, high = record["ratio"]
        assert 0 < low <= middle <= high


def test_unknown_graph(tmp_path):
    with pytest.raises(ValueError, match=r"Expected graphs that exist \(got arxif\)"):
        bench_loader("arxif", tmp_path)
