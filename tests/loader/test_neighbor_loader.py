r"""Mini-batches: they compute what the whole graph does, and depend on seed and epoch alone."""

import pytest
import torch
from torch_geometric.data import Data, HeteroData

from kgat import KernelGAT
from kgat.loader import LinkNeighborLoader, NeighborLoader

pytestmark = pytest.mark.quick

torch.manual_seed(0)
EDGES = torch.randint(0, 30, (2, 90))
DATA = Data(x=torch.randn(30, 16, dtype=torch.double), edge_index=EDGES, y=torch.randint(5, (30,)))


def hops(batch):
    return {
        "num_sampled_nodes_per_hop": batch.num_sampled_nodes,
        "num_sampled_edges_per_hop": batch.num_sampled_edges,
    }


@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize("options", [{}, {"disjoint": True}, {"subgraph_type": "induced"}])
def test_whole_neighbourhoods_give_outputs_and_gradients_of_the_graph(options, trimmed):
    if trimmed and "subgraph_type" in options:
        pytest.skip("an induced subgraph has no hops to trim")
    model = KernelGAT(16, 24, 2, 5, heads=4, kernel="rbf").double()
    full = model(DATA.x, EDGES)
    torch.nn.functional.cross_entropy(full, DATA.y, reduction="sum").backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for batch in NeighborLoader(DATA, [-1, -1], batch_size=7, shuffle=True, **options):
        out = model(batch.x, batch.edge_index, **(hops(batch) if trimmed else {}))[: batch.batch_size]
        torch.testing.assert_close(out, full[batch.n_id[: batch.batch_size]])
        torch.nn.functional.cross_entropy(out, batch.y[: batch.batch_size], reduction="sum").backward()
    for p, grad in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, grad)


def drawn(loader):
    return [(batch.n_id.tolist(), batch.e_id.tolist()) for batch in loader]


@pytest.mark.parametrize("make", [NeighborLoader, LinkNeighborLoader])
def test_batches_depend_on_seed_and_epoch_and_not_on_workers(make):
    options = {"batch_size": 8, "shuffle": True}
    if make is LinkNeighborLoader:
        options["neg_sampling"] = "binary"
    loader = make(DATA, [2, 2], seed=3, **options)
    first, second = drawn(loader), drawn(loader)
    assert first != second
    in_workers = make(DATA, [2, 2], seed=3, num_workers=2, **options)
    assert drawn(in_workers) == first
    in_workers.set_epoch(1)
    assert drawn(in_workers) == second
    assert drawn(make(DATA, [2, 2], seed=4, **options)) != first
    lasting = make(DATA, [2, 2], seed=3, num_workers=2, persistent_workers=True, **options)
    assert [drawn(lasting), drawn(lasting)] == [first, second]
    lasting.set_epoch(0)
    assert drawn(lasting) == first
    loader.set_epoch(0)
    early, late = iter(loader), iter(loader)  # each has the key of its own epoch, whichever draws first
    assert [(b.n_id.tolist(), b.e_id.tolist()) for b in late] == second
    assert [(b.n_id.tolist(), b.e_id.tolist()) for b in early] == first
    torch.manual_seed(5)
    free = drawn(make(DATA, [2, 2], **options))
    torch.manual_seed(5)
    assert drawn(make(DATA, [2, 2], **options)) == free


def test_links_that_are_none():
    for wrong in (torch.tensor([[0.5], [1.0]]), torch.arange(4), "x"):
        with pytest.raises(
            ValueError, match=r"Expected 'edge_label_index' as whole numbers of shape \[2, I\]"
        ):
            LinkNeighborLoader(DATA, [2], edge_label_index=wrong)


def test_links_and_negatives():
    loader = LinkNeighborLoader(DATA, [3], neg_sampling="binary", batch_size=9, seed=0)
    for number, batch in enumerate(loader):
        positive = batch.n_id[batch.edge_label_index[:, batch.edge_label == 1]]
        assert torch.equal(positive, EDGES[:, 9 * number : 9 * number + 9])
        assert (batch.edge_label == 0).sum() == 9
    triplet = next(iter(LinkNeighborLoader(DATA, [3], neg_sampling="triplet", batch_size=9, seed=0)))
    assert torch.equal(triplet.n_id[triplet.src_index], EDGES[0, :9])
    state = torch.get_rng_state()
    drawn(loader)
    before = torch.get_rng_state()
    loader.link_sampler.sample_from_edges(loader.input_data[[0, 1]], loader.neg_sampling, key=1)
    assert torch.equal(before, torch.get_rng_state())
    assert state is not None


def test_input_nodes_and_positional_arguments():
    mask = torch.arange(30) % 3 == 0
    loader = NeighborLoader(DATA, [2], mask, batch_size=4, replace=True)
    assert torch.cat([batch.input_id for batch in loader]).tolist() == mask.nonzero().view(-1).tolist()
    assert loader.node_sampler.replace
    assert "10 inputs" in repr(loader)
    with pytest.raises(ValueError, match="Expected 'seed'"):
        NeighborLoader(DATA, [2], seed=-3)
    for wrong in ("x", torch.tensor([1.5]), torch.ones(29, dtype=torch.bool), torch.zeros(2, 2).long()):
        with pytest.raises(ValueError, match="Expected 'input_nodes' as"):
            NeighborLoader(DATA, [2], input_nodes=wrong)
    typed = HeteroData({"paper": {"num_nodes": 3}})
    typed["paper", "cites", "paper"].edge_index = torch.tensor([[0, 1], [1, 2]])
    for wrong in (None, torch.arange(2), "papers", ("paper", torch.ones(4, dtype=torch.bool))):
        with pytest.raises(ValueError, match="'input_nodes'"):
            NeighborLoader(typed, [2], input_nodes=wrong)


def test_a_batch_of_too_few_hops_is_refused_where_it_is_trimmed():
    model = KernelGAT(16, 24, 4, 5, heads=4, kernel="rbf").double()
    batch = next(iter(NeighborLoader(DATA, [2, 2], batch_size=4)))
    model(batch.x, batch.edge_index)
    with pytest.raises(ValueError, match=r"as many hops as the model has layers, .*got 2 for layer 4"):
        model(batch.x, batch.edge_index, **hops(batch))


def test_several_types_in_workers():
    data = HeteroData()
    data["paper"].x, data["author"].x = torch.randn(20, 4), torch.randn(9, 3)
    for source, target in (("author", "paper"), ("paper", "author"), ("paper", "paper")):
        ends = torch.stack([torch.randint(data[s].num_nodes, (60,)) for s in (source, target)])
        data[source, "to", target].edge_index = ends
        data[source, "to", target].edge_attr = torch.randn(60, 2)
    options = {"input_nodes": "paper", "batch_size": 6, "seed": 1}
    here, there = (list(NeighborLoader(data, [3, 2], num_workers=n, **options)) for n in (0, 2))
    assert len(here) == len(there) == 4
    for batch, same in zip(here, there, strict=True):
        for name in data.edge_types:
            part = batch[name]
            assert torch.equal(part.e_id, same[name].e_id)
            ends = [batch[name[end]].n_id[part.edge_index[row]] for row, end in ((0, 0), (1, 2))]
            assert torch.equal(torch.stack(ends), data[name].edge_index[:, part.e_id])
            assert torch.equal(part.edge_attr, data[name].edge_attr[part.e_id])
    links = LinkNeighborLoader(
        data,
        [3],
        edge_label_index=("author", "to", "paper"),
        neg_sampling="binary",
        batch_size=7,
        disjoint=True,
    )
    batch = next(iter(links))
    source, target = batch["author", "to", "paper"].edge_label_index
    assert torch.equal(batch["author"].batch[source], batch["paper"].batch[target])


def test_links_of_a_time():
    time = torch.randint(0, 50, (90,))
    data = Data(edge_index=EDGES, num_nodes=30)
    data.edge_time = time
    loader = LinkNeighborLoader(
        data,
        [3, 3],
        edge_label_index=EDGES,
        edge_label_time=time,
        time_attr="edge_time",
        batch_size=9,
        seed=0,
    )
    for batch in loader:
        limit = batch.edge_label_time[batch.batch[batch.edge_index[1]]]
        assert (time[batch.e_id] <= limit).all()
