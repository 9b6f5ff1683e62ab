"""Several threads against one."""

import pytest
import torch
from typer.testing import CliRunner

from kgat.cli.program import app
from kgat.experiments.bench import threads, worker
from kgat.experiments.bench.scenarios import SCENARIOS, Scenario
from kgat.experiments.ledger import read


@pytest.fixture
def here(monkeypatch):
    """In this process, with no regime of memory."""
    before = torch.get_num_threads()
    monkeypatch.setattr(worker, "ask", lambda benchmark, question, _: threads.answers(question))
    yield
    torch.set_num_threads(before)


def test_records_and_their_table(tmp_path, here):
    path, page = tmp_path / "threads.jsonl", tmp_path / "page.md"
    records = threads.bench_threads(["tiny"], ["gat core"], rounds=1, path=path)
    assert records == read(path)
    assert [(record["what"], record["regime"]) for record in records] == [
        (what, regime) for regime in ("R1", "R2") for what in ("forward", "forward+backward")
    ]
    assert all(record["kind"] == "threads" and record["threads"] == 2 for record in records)
    # What is there is not measured again, half of an answer is.
    kept = path.read_text().splitlines(keepends=True)
    path.write_text("".join(kept[:3]))
    again = threads.bench_threads(["tiny"], ["gat core"], rounds=1, path=path)
    assert again[:2] == records[:2]
    assert [record["regime"] for record in read(path)] == ["R1", "R1", "R2", "R2", "R2"]
    path.write_text("".join(kept))
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
        threads.bench_threads(*arguments)


def test_a_hub_is_a_target_and_a_source():
    graph = Scenario("hub", 50, 2 * 600 + 50, 3, 2, 4, hub=600).load(None, "cpu")
    source, target = graph.edge_index
    assert graph.edge_index.size(1) == 1250
    assert (target == 0).sum() >= 600
    assert (source == 1).sum() >= 600
    assert (target.diff() >= 0).all()
    known = SCENARIOS["hub"]
    assert known.edges == 2 * known.hub + known.nodes
