import pytest
import torch

from kgat.experiments import ledger
from kgat.experiments.bench import epoch, layers, measure, report
from kgat.experiments.bench.epoch import bench_epoch
from kgat.experiments.bench.layers import SIZES, bench_layers, draw, run
from kgat.experiments.bench.measure import paired
from kgat.experiments.bench.scenarios import Scenario


def test_records_of_all_peers(tmp_path):
    path = tmp_path / "bench.jsonl"
    said = []
    found = run(["tiny"], 2, path, said.append)
    stock = [record for record in found if record["peer"].endswith("Conv")]
    assert [(r["peer"], r["what"]) for r in stock] == [
        (peer, what)
        for peer in ("GATConv", "GATv2Conv", "TransformerConv")
        for what in ("forward", "forward+backward")
    ]
    for record in stock:
        middle, low, high = record["ratio"]
        assert 0 < low <= middle <= high
        assert record["clock"] == "CPU"
    assert said == found == ledger.read(path)


def test_unequal_layers_are_not_timed(monkeypatch):
    def broken(size):
        stock, ours = torch.nn.Identity(), torch.nn.Identity()
        stock.forward = lambda x, edges: x
        ours.forward = lambda x, edges: x + 1
        return {"GATConv": (stock, ours)}

    monkeypatch.setattr(layers, "pairs", broken)
    with pytest.raises(ValueError, match=r"equal outputs of GATConv and ours .* \(got 1 apart\)"):
        bench_layers(SIZES["tiny"], 1)


def test_ratio_is_peer_over_ours(monkeypatch):
    clock = [0.0]
    monkeypatch.setitem(measure.CLOCKS, "wall", lambda: clock[0])

    def takes(seconds):
        def step():
            clock[0] += seconds

        return step

    assert paired(takes(3.0), takes(2.0), 4) == [1.5, 1.5, 1.5]


def test_unknown_size():
    with pytest.raises(ValueError, match=r"got huge\); choose from: tiny, cora"):
        run(["huge"], 1, None, print)


def test_graphs_have_hubs():
    size = SIZES["cora"]
    degree = torch.bincount(draw(size)[1], minlength=size.nodes)
    assert degree.sum() == size.edges
    assert degree.max() > 20 * size.edges / size.nodes


@pytest.mark.parametrize("sparse", [False, True])
def test_epochs_of_both_layouts(tmp_path, monkeypatch, sparse):
    if sparse:  # pixels are dense as they come
        task = epoch.load("digits")
        task.data.x = task.data.x.to_sparse_csr()
        monkeypatch.setattr(epoch, "load", lambda dataset, root: task)
    path = tmp_path / "bench.jsonl"
    found = bench_epoch("digits", rounds=2, path=path, models=["additive", "rbf"])
    assert found == ledger.read(path)
    cases = [("additive", "sparse_csr"), ("additive", "dense"), ("rbf", "sparse_csr")]
    if not sparse:
        cases = [("additive", "dense"), ("rbf", "dense")]
    assert [(r["what"], r["model"], r["features"]) for r in found] == [
        (what, *case) for what in ("step", "validation") for case in cases
    ]
    text = report.epochs(found)
    for record in found:
        middle, low, high = record["ratio"]
        assert 0 < low <= middle <= high
        assert (record["clock"], record["rounds"]) == ("CPU", 2)
    for model, layout in cases:
        assert f"| digits, {model} | {layout} | " in text


def test_table_of_epochs():
    def timed(what, ratio, ours, peer):
        return {
            **{"kind": "epoch", "dataset": "Cora", "model": "rbf", "features": "dense", "what": what},
            **{"ratio": [ratio] * 3, "contended": False, "seconds": [ours] * 3, "peer_seconds": [peer] * 3},
            **{"threads": 1, "clock": "CPU", "commit": "abc"},
        }

    found = [timed("step", 9.0, 1.0, 9.0), timed("step", 3.0, 0.02, 0.06)]  # the last counts
    assert "| Cora, rbf | dense | 3.00 [3.00, 3.00] | – | – | 20 + – | 60 + – |" in report.epochs(found)
    text = report.epochs([*found, timed("validation", 2.0, 0.01, 0.02)])
    assert "| 3.00 [3.00, 3.00] | 2.00 [2.00, 2.00] | 2.67 | 20 + 10 | 60 + 20 |" in text
    assert "CPU time" in text


def test_a_drawn_graph_of_the_size_of_a_data_set(monkeypatch):
    monkeypatch.setitem(epoch.SIZES, "tolokers", Scenario("", 40, 120, 3, 1, 1))
    task = epoch._task("tolokers-sized", None)
    assert (task.data.num_nodes, task.data.num_edges, task.metric) == (40, 80, "roc_auc")
    found = bench_epoch("tolokers-sized", rounds=1, models=["rbf"])
    assert found[0]["config"]["dataset"] == "tolokers"
    with pytest.raises(ValueError, match=r"size of tolokers \(got 'Cora'\); e.g. tolokers-sized"):
        epoch._task("Cora-sized", None)


def test_unequal_models_are_not_timed(monkeypatch):
    make = epoch._trainer

    def other(task, config, x):
        return make(task, config, x + 1.0 if config.model == "gat" else x)

    monkeypatch.setattr(epoch, "_trainer", other)
    with pytest.raises(ValueError, match=r"equal outputs of both models before timing \(got"):
        bench_epoch("digits", rounds=1)
