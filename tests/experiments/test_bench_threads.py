"""Several threads against one."""

import pytest
from typer.testing import CliRunner

from kgat.cli.program import app
from kgat.experiments.bench.scenarios import SCENARIOS, Scenario
from kgat.experiments.bench.threads import bench_threads
from kgat.experiments.ledger import read


def test_records_and_their_table(tmp_path):
    path, said, page = tmp_path / "threads.jsonl", [], tmp_path / "page.md"
    records = bench_threads(["tiny"], ["gat core"], rounds=1, path=path, say=said.append)
    assert said == records == read(path)
    assert [(record["what"], record["regime"]) for record in records] == [
        (what, regime) for regime in ("R1", "R2") for what in ("forward", "forward+backward")
    ]
    assert all(record["kind"] == "threads" and record["threads"] == 2 for record in records)
    page.write_text("above\n<!-- threads:begin -->\nold\n<!-- threads:end -->\nbelow\n")
    done = CliRunner().invoke(app, ["bench", "table", str(path), "--readme", str(page)])
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "old" not in text
    assert f"| tiny | gat core | 2 | {records[0]['ratio'][0]:.2f}" in text


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [((["tiny"], ["gat corr"]), "gat corr"), (([], ["gat core"]), "scenarios"), ((["tiny"], [], 1), "got 1")],
)
def test_what_cannot_be_measured(arguments, wrong):
    with pytest.raises(ValueError, match=wrong):
        bench_threads(*arguments)


def test_a_hub_is_a_target_and_a_source():
    graph = Scenario("hub", 50, 2 * 600 + 50, 3, 2, 4, hub=600).load(None, "cpu")
    source, target = graph.edge_index
    assert graph.edge_index.size(1) == 1250
    assert (target == 0).sum() >= 600
    assert (source == 1).sum() >= 600
    assert (target.diff() >= 0).all()
    known = SCENARIOS["hub"]
    assert known.edges == 2 * known.hub + known.nodes
