import pytest
import torch

from kgat.experiments import ledger
from kgat.experiments.bench import epoch, layers, measure, report
from kgat.experiments.bench.epoch import bench_epoch
from kgat.experiments.bench.layers import SIZES, bench_layers, draw, run
from kgat.experiments.bench.measure import paired
from kgat.experiments.table import render


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
    found = bench_epoch("digits", rounds=2, path=path)
    assert found == ledger.read(path)
    layouts = ["sparse_csr", "dense"] if sparse else ["dense"]
    assert [record["features"] for record in found] == layouts
    for layout, record in zip(layouts, found, strict=True):
        middle, low, high = record["ratio"]
        assert 0 < low <= middle <= high
        assert f"| digits, {layout} features | " in render(report._epochs(found))


def test_unequal_models_are_not_timed(monkeypatch):
    make = epoch._trainer

    def other(task, config, x):
        return make(task, config, x + 1.0 if config.model == "gat" else x)

    monkeypatch.setattr(epoch, "_trainer", other)
    with pytest.raises(ValueError, match=r"equal outputs of both models before timing \(got"):
        bench_epoch("digits", rounds=1)
