"""Memory of layers as graphs grow."""

import pytest
from typer.testing import CliRunner

from kgat.cli.program import app
from kgat.experiments.bench import memory
from kgat.experiments.ledger import read


def test_records_and_their_table(warm_workers, tmp_path, monkeypatch):
    path = tmp_path / "memory.jsonl"
    arguments = ["--sizes", "0.03x0.1", "--kernels", "additive", "--heads", "2", "--channels", "16"]
    done = CliRunner().invoke(app, ["bench", "memory", *arguments, "--out", str(path)])
    assert done.exit_code == 0, done.output
    (record,) = read(path)
    assert record["kind"] == "memory"
    assert (record["nodes"], record["edges"], record["node_bytes"]) == (30_000, 100_000, 4 * 30_000 * 32)
    assert record["sorted_bytes"] == 2 * 8 * 30_001 + 4 * 4 * 100_000 + 16
    if record["both_bytes"] is not None:  # a projection, the output, and their gradients
        counted = 2**20  # the kernel counts pages of each core before it adds them up
        assert record["both_bytes"] > 4 * record["node_bytes"] + record["sorted_bytes"] - counted
        assert record["forward_bytes"] > 2 * record["node_bytes"] + record["sorted_bytes"] - counted
    table = CliRunner().invoke(app, ["bench", "table", str(path)])
    assert "| additive | 2 × 16 | 30,000 | 100,000 |" in table.output
    assert table.output.strip() in done.output
    with monkeypatch.context() as patch:
        patch.setattr(memory.worker, "ask", lambda *_: pytest.fail("measured again"))
        again = CliRunner().invoke(app, ["bench", "memory", *arguments, "--out", str(path)])
        assert again.exit_code == 0, again.output
    assert read(path) == [record]
    monkeypatch.setattr(memory.worker, "ask", lambda *_: [{**record, "both_bytes": None}])
    CliRunner().invoke(app, ["bench", "memory", *arguments, "--out", str(path), "--fresh"])
    assert [found["both_bytes"] for found in read(path)] == [record["both_bytes"], None]


@pytest.mark.parametrize("size", ["infx1", "1", "0x1", "axb"])
def test_a_size_that_is_none(size):
    done = CliRunner().invoke(app, ["bench", "memory", "--sizes", size])
    assert isinstance(done.exception, ValueError)
    assert "Expected" in str(done.exception)
