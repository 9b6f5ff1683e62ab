r"""What the sampler draws: structure of batches, the law of the draws, seeds, time, bad inputs."""

import threading
from collections import Counter
from itertools import permutations

import pytest
import torch
import torch_geometric.typing
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import NeighborLoader as StockNeighborLoader
from torch_geometric.sampler import NeighborSampler as StockNeighborSampler
from torch_geometric.sampler import NodeSamplerInput
from torch_geometric.testing import withPackage

from kgat.loader import NeighborSampler
from kgat.loader.neighbor_sampler import is_sorted

pytestmark = pytest.mark.quick

torch.manual_seed(0)
EDGES = torch.randint(0, 30, (2, 90))  # with loops and parallel edges
DATA = Data(x=torch.randn(30, 4), edge_index=EDGES, edge_attr=torch.randn(90, 2))


def sample(sampler, seeds, time=None, key=None):
    return sampler.sample_from_nodes(NodeSamplerInput(None, torch.tensor(seeds), time), key=key)


def check_block(out, edge_index, seeds):
    assert out.node[: len(seeds)].tolist() == list(seeds)
    assert torch.equal(out.node[torch.stack([out.row, out.col])], edge_index[:, out.edge])
    assert (out.col.diff() >= 0).all()
    if out.num_sampled_nodes is not None:
        assert sum(out.num_sampled_nodes) == out.node.numel()
        assert sum(out.num_sampled_edges) == out.edge.numel()
        known, done = 0, 0
        for nodes, edges in zip(out.num_sampled_nodes, out.num_sampled_edges, strict=False):
            # A hop's edges lead into the nodes of the hop before.
            part = out.col[done : done + edges]
            assert ((part >= known) & (part < known + nodes)).all()
            known, done = known + nodes, done + edges


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("disjoint", [False, True])
@pytest.mark.parametrize("counts", [[3, 2], [-1, -1], [0], [2, -1, 1], []])
def test_blocks_are_as_pyg_has_them(counts, disjoint, replace):
    out = sample(NeighborSampler(DATA, counts, replace=replace, disjoint=disjoint, seed=0), [5, 3, 29])
    check_block(out, EDGES, [5, 3, 29])
    assert len(out.num_sampled_nodes) == len(counts) + 1
    degree = EDGES[1].bincount(minlength=30)
    if counts:
        first = [min(int(degree[i]), counts[0]) if counts[0] >= 0 else int(degree[i]) for i in (5, 3, 29)]
        if not replace or counts[0] <= 0:
            assert out.num_sampled_edges[0] == sum(first)
    pairs = out.node if out.batch is None else torch.stack([out.batch, out.node], dim=1)
    assert pairs.unique(dim=0).size(0) == out.node.numel()
    if disjoint:
        assert torch.equal(out.batch[out.row], out.batch[out.col])
    if not replace and not disjoint:
        assert out.edge.unique().numel() == out.edge.numel()


def test_all_neighbours_are_all():
    out = sample(NeighborSampler(DATA, [-1]), [4, 7])
    assert out.col.bincount(minlength=2)[:2].tolist() == [int((EDGES[1] == i).sum()) for i in (4, 7)]
    assert sorted(out.edge.tolist()) == ((EDGES[1] == 4) | (EDGES[1] == 7)).nonzero().view(-1).tolist()


def test_a_seed_that_is_there_twice_has_two_places():
    out = sample(NeighborSampler(DATA, [2, 2], seed=0), [5, 5, 1])
    assert out.node[:3].tolist() == [5, 5, 1]
    assert torch.equal(out.node[torch.stack([out.row, out.col])], EDGES[:, out.edge])
    assert out.node[3:].unique().numel() == out.node.numel() - 3


def test_induced_is_every_edge_between_the_nodes():
    for disjoint in (False, True):
        out = sample(
            NeighborSampler(DATA, [2, 2], subgraph_type="induced", disjoint=disjoint, seed=0), [5, 3]
        )
        check_block(out, EDGES, [5, 3])
        trees = [out.node] if out.batch is None else [out.node[out.batch == tree] for tree in range(2)]
        expected = [e for nodes in trees for e in range(90) if EDGES[0, e] in nodes and EDGES[1, e] in nodes]
        assert sorted(out.edge.tolist()) == sorted(expected)


def test_bidirectional_has_each_edge_both_ways():
    out = sample(NeighborSampler(DATA, [2, 2], subgraph_type="bidirectional", seed=0), [5, 3])
    pairs = set(zip(out.row.tolist(), out.col.tolist(), strict=True))
    assert pairs
    assert pairs == {(j, i) for i, j in pairs}


@pytest.mark.parametrize(("degree", "count"), [(5, 2), (5, 4), (7, 3)])
def test_sets_without_replacement_are_equally_likely(degree, count):
    star = Data(edge_index=torch.stack([torch.arange(1, degree + 1), torch.zeros(degree, dtype=torch.long)]))
    star.num_nodes = degree + 1
    sampler, rounds = NeighborSampler(star, [count], disjoint=True, seed=1), 400
    sets = Counter()
    for key in range(20):
        out = sample(sampler, [0] * rounds, key=key)
        for drawn in out.edge.view(rounds, count).sort(dim=1).values.tolist():
            sets[tuple(drawn)] += 1
    possible = len(list(permutations(range(degree), count))) // len(list(permutations(range(count))))
    assert len(sets) == possible
    assert chi_squared(sets.values(), [1 / possible] * possible, 20 * rounds) < 4.0


def chi_squared(counts, law, total):
    r"""How many standard deviations the statistic is above its mean."""
    statistic = sum((n - total * p) ** 2 / (total * p) for n, p in zip(counts, law, strict=True))
    freedom = len(law) - 1
    return (statistic - freedom) / (2 * freedom) ** 0.5


@pytest.mark.parametrize("weighted", [False, True])
def test_law_with_replacement(weighted):
    weight = torch.tensor([1.0, 0.0, 3.0, 0.5, 2.5]) if weighted else torch.ones(5)
    sampler = star_of(weight, [4], replace=True)
    drawn = Counter()
    for key in range(50):
        drawn.update(sample(sampler, [0] * 50, key=key).edge.tolist())
    law = (weight / weight.sum()).tolist()
    if weighted:
        assert 1 not in drawn
    places = [e for e in range(5) if law[e] > 0]
    assert chi_squared([drawn[e] for e in places], [law[e] for e in places], 50 * 50 * 4) < 4.0


def star_of(weight, counts, **options):
    degree = weight.numel()
    star = Data(edge_index=torch.stack([torch.arange(1, degree + 1), torch.zeros(degree, dtype=torch.long)]))
    star.num_nodes, star.weight = degree + 1, weight
    return NeighborSampler(star, counts, weight_attr="weight", disjoint=True, **options)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_law_of_weights_without_replacement(count):
    weight = torch.tensor([1.0, 4.0, 0.5, 2.0, 0.0, 2.5])
    law = Counter()
    for order in permutations(range(6), count):
        left, p = float(weight.sum()), 1.0
        for e in order:
            p, left = p * float(weight[e]) / left, left - float(weight[e])
        if p > 0:
            law[tuple(sorted(order))] += p
    sets, rounds = Counter(), 500
    sampler = star_of(weight, [count])
    for key in range(20):
        for drawn in sample(sampler, [0] * rounds, key=key).edge.view(rounds, count).sort(1).values.tolist():
            sets[tuple(drawn)] += 1
    assert set(sets) <= set(law)
    assert chi_squared([sets[s] for s in law], list(law.values()), 20 * rounds) < 4.0


def test_weights_of_zero():
    out = sample(star_of(torch.tensor([0.0, 1.0, 0.0, 2.0]), [3]), [0])
    assert sorted(out.edge.tolist()) == [1, 3]
    assert sample(star_of(torch.zeros(4), [3]), [0]).edge.numel() == 0
    assert sample(star_of(torch.zeros(4), [3], replace=True), [0]).edge.numel() == 0


def test_batches_depend_on_seeds_alone():
    sampler = NeighborSampler(DATA, [2, 2], seed=7)
    first, again = sample(sampler, [1, 2, 3]), sample(NeighborSampler(DATA, [2, 2], seed=7), [1, 2, 3])
    assert torch.equal(first.edge, again.edge)
    results = {}

    def work(number):
        results[number] = [sample(sampler, [1, 2, 3]).edge.tolist() for _ in range(20)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(edges == first.edge.tolist() for result in results.values() for edges in result)
    assert any(
        sample(NeighborSampler(DATA, [2, 2], seed=s), [1, 2, 3]).edge.tolist() != first.edge.tolist()
        for s in range(3)
    )
    free = NeighborSampler(DATA, [2, 2])
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append([sample(free, [1, 2, 3]).edge.tolist() for _ in range(3)])
    assert drawn[0] == drawn[1]
    assert len({tuple(edges) for edges in drawn[0]}) > 1


def test_no_neighbour_is_later_than_its_seed():
    time = torch.randint(0, 50, (90,))
    data = Data(edge_index=EDGES, time=time, num_nodes=30)
    data.edge_time = time
    seed_time = torch.tensor([20, 45, 5])
    for strategy in ("uniform", "last"):
        sampler = NeighborSampler(data, [2, 2], time_attr="edge_time", temporal_strategy=strategy, seed=0)
        out = sample(sampler, [5, 3, 29], seed_time)
        check_block(out, EDGES, [5, 3, 29])
        assert (time[out.edge] <= seed_time[out.batch[out.col]]).all()
        if strategy == "last":
            for tree, node in enumerate((5, 3, 29)):
                allowed = time[(EDGES[1] == node) & (time <= seed_time[tree])].sort().values[-2:]
                first = out.col[: out.num_sampled_edges[0]] == tree
                assert (
                    time[out.edge[: out.num_sampled_edges[0]][first]].sort().values.tolist()
                    == allowed.tolist()
                )
    node_time = torch.randint(0, 50, (30,))
    sampler = NeighborSampler(
        Data(edge_index=EDGES, t=node_time, num_nodes=30), [3, 3], time_attr="t", seed=0
    )
    out = sample(sampler, [5, 3, 29])
    assert out.row.numel()
    assert (node_time[out.node[out.row]] <= node_time[out.node[:3]][out.batch[out.row]]).all()


def hetero():
    data = HeteroData()
    data["paper"].x, data["author"].x = torch.randn(20, 4), torch.randn(9, 3)
    for i, (source, target) in enumerate([("author", "paper"), ("paper", "paper"), ("paper", "author")]):
        ends = torch.stack([torch.randint(data[s].num_nodes, (60,)) for s in (source, target)])
        data[source, f"rel{i}", target].edge_index = ends
    return data


@pytest.mark.parametrize("disjoint", [False, True])
def test_several_types(disjoint):
    data = hetero()
    sampler = NeighborSampler(data, [3, -1], disjoint=disjoint, seed=0)
    out = sampler.sample_from_nodes(NodeSamplerInput(None, torch.tensor([4, 1]), None, "paper"))
    assert out.node["paper"][:2].tolist() == [4, 1]
    for name in data.edge_types:
        ends = torch.stack([out.node[name[0]][out.row[name]], out.node[name[2]][out.col[name]]])
        assert torch.equal(ends, data[name].edge_index[:, out.edge[name]])
        assert (out.col[name].diff() >= 0).all()
        assert sum(out.num_sampled_edges[name]) == out.edge[name].numel()
        if disjoint:
            assert torch.equal(out.batch[name[0]][out.row[name]], out.batch[name[2]][out.col[name]])
    for name in data.node_types:
        assert sum(out.num_sampled_nodes[name]) == out.node[name].numel()
    none = NeighborSampler(data, {name: [0] if "rel1" in name else [2] for name in data.edge_types}, seed=0)
    out = none.sample_from_nodes(NodeSamplerInput(None, torch.tensor([4, 1]), None, "paper"))
    assert out.edge["paper", "rel1", "paper"].numel() == 0
    assert out.edge["author", "rel0", "paper"].numel() > 0


def test_empty_graph_isolated_nodes_and_hub():
    empty = NeighborSampler(Data(edge_index=EDGES[:, :0], num_nodes=5), [2, 2])
    out = sample(empty, [4, 0])
    assert (out.node.tolist(), out.edge.numel(), out.num_sampled_nodes) == ([4, 0], 0, [2, 0, 0])
    assert sample(NeighborSampler(Data(num_nodes=3, edge_index=EDGES[:, :0]), [1]), []).node.numel() == 0
    degree = 500_000
    hub = torch.stack([torch.arange(degree) % 1000 + 1, torch.zeros(degree, dtype=torch.long)])
    for options in ({}, {"replace": True}, {"weight_attr": "weight"}):
        data = Data(edge_index=hub, num_nodes=1001, weight=torch.rand(degree))
        out = sample(NeighborSampler(data, [10], seed=0, **options), [0])
        assert out.edge.numel() == 10
        assert out.edge.unique().numel() == 10 or options == {"replace": True}


def test_works_in_the_loader_of_pyg():
    loader = StockNeighborLoader(
        DATA, num_neighbors=[2, 2], batch_size=8, neighbor_sampler=NeighborSampler(DATA, [2, 2], seed=0)
    )
    for batch in loader:
        assert torch.equal(batch.n_id[batch.edge_index], EDGES[:, batch.e_id])
        assert torch.equal(batch.x, DATA.x[batch.n_id])
        assert torch.equal(batch.edge_attr, DATA.edge_attr[batch.e_id])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_neighbors": [2, -2]}, "Expected 'num_neighbors' as whole numbers of at least -1"),
        ({"num_neighbors": [1.5]}, "Expected 'num_neighbors' as whole numbers"),
        ({"num_neighbors": 3}, "Expected 'num_neighbors' as whole numbers"),
        ({"num_neighbors": {("a", "b", "c"): [1]}}, "Expected 'num_neighbors' as a list"),
        ({"subgraph_type": "induce"}, "did you mean 'induced'"),
        ({"temporal_strategy": "first"}, "Expected 'temporal_strategy'"),
        ({"time_attr": "when"}, "Expected 'time_attr' of either nodes or edges"),
        ({"weight_attr": "edge_atr"}, "did you mean 'edge_attr'"),
        ({"weight_attr": "edge_attr"}, "one finite number of at least 0 per edge"),
        ({"seed": -1}, r"Expected 'seed' in \[0, 2\^63\)"),
        ({"data": 3}, "Expected 'data' as a Data or HeteroData"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        NeighborSampler(**{"data": DATA, "num_neighbors": [2], **arguments})


def test_wrong_indices_are_named():
    with pytest.raises(IndexError, match=r"Expected seed nodes in \[0, 29\] for 30 nodes \(got 30\)"):
        sample(NeighborSampler(DATA, [2]), [3, 30])
    with pytest.raises(IndexError, match="Expected source indices"):
        NeighborSampler(Data(edge_index=torch.tensor([[9], [0]]), num_nodes=5), [2])
    with pytest.raises(ValueError, match="of the same length for all types"):
        NeighborSampler(hetero(), {("author", "rel0", "paper"): [1], ("paper", "rel1", "paper"): [1, 2]})
    with pytest.raises(ValueError, match="did you mean"):
        NeighborSampler(hetero(), {("author", "rel", "paper"): [1]})
    data = Data(edge_index=EDGES, num_nodes=30, t=torch.zeros(90, dtype=torch.long))
    with pytest.raises(ValueError, match="Expected times of the seeds"):
        sample(NeighborSampler(data, [2], time_attr="t"), [3])


@pytest.mark.parametrize("replace", [False, True])
@withPackage("pyg_lib|torch_sparse")
def test_law_is_that_of_the_compiled_samplers(replace):
    if not replace and not torch_geometric.typing.WITH_PYG_LIB:
        pytest.skip("torch-sparse draws one of four neighbours without ever drawing the last: see its Floyd")
    ours = NeighborSampler(DATA, [2, 2], replace=replace)
    theirs = StockNeighborSampler(DATA, [2, 2], replace=replace)
    rounds, counts = 4000, []
    for sampler in (ours, theirs):
        torch.manual_seed(0)
        drawn = torch.zeros(2, 90)
        for _ in range(rounds):
            out = sample_by(sampler, [5, 3])
            edge = out.edge if sampler.edge_permutation is None else sampler.edge_permutation[out.edge]
            drawn[0] += edge.bincount(minlength=90)
            drawn[1, out.edge.numel()] += 1
        counts.append(drawn)
    difference = (counts[0] - counts[1]).abs() / (counts[0] + counts[1]).clamp_min(1).sqrt()
    assert difference.max() < 4.5  # standard deviations, of 180 counts


def sample_by(sampler, seeds):
    return sampler.sample_from_nodes(NodeSamplerInput(None, torch.tensor(seeds)))


def test_what_is_as_late_as_the_seed_is_drawn():
    data = Data(edge_index=torch.tensor([[1, 2, 3], [0, 0, 0]]), num_nodes=4)
    data.edge_time = torch.tensor([7, 8, 9])
    sampler = NeighborSampler(data, [-1], time_attr="edge_time")
    for limit, expected in ((6, []), (7, [0]), (8, [0, 1]), (9, [0, 1, 2])):
        assert sample(sampler, [0], torch.tensor([limit])).edge.tolist() == expected


class Elsewhere:
    r"""A tensor on a device whose memory NumPy cannot read."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __getitem__(self, index):
        return Elsewhere(self.tensor[index])

    def cpu(self):
        return self.tensor


@pytest.mark.parametrize(
    ("target", "expected"),
    [([], True), ([3], True), ([0, 0, 2], True), ([0, 2, 1], False), ([2, 0, 2], False)],
)
def test_whether_edges_are_sorted_by_target(target, expected):
    edge_index = torch.tensor([[0] * len(target), target], dtype=torch.long)
    assert is_sorted(edge_index) is expected
    assert is_sorted(Elsewhere(edge_index)) is expected
