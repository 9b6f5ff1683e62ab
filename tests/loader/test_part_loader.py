r"""Batches of parts: a partition, whole inside, drawn by seed and epoch."""

import pytest
import torch
from torch_geometric.data import Data

from kgat.loader import PartLoader, RandomNodeLoader, breadth_first_parts

torch.manual_seed(0)
EDGES = torch.randint(0, 30, (2, 90))
DATA = Data(x=torch.randn(30, 4), edge_index=EDGES)


def check_batches(batches):
    assert torch.cat([batch.n_id for batch in batches]).sort().values.tolist() == list(range(30))
    for batch in batches:
        inside = torch.isin(EDGES[0], batch.n_id) & torch.isin(EDGES[1], batch.n_id)
        assert batch.e_id.sort().values.tolist() == inside.nonzero().view(-1).tolist()
        assert torch.equal(batch.n_id[batch.edge_index], EDGES[:, batch.e_id])
        assert torch.equal(batch.x, DATA.x[batch.n_id])


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: PartLoader(DATA, 7, batch_size=2, shuffle=True, seed=seed),
        lambda seed: PartLoader(DATA, torch.arange(30) % 4, shuffle=True, seed=seed),
        lambda seed: RandomNodeLoader(DATA, 4, seed=seed),
    ],
)
def test_batches_are_whole_and_seeded(make):
    loader = make(3)
    epochs = [list(loader) for _ in range(2)]
    assert len(loader) == len(epochs[0]) == 4
    for batches in epochs:
        check_batches(batches)
    ids = [[batch.n_id.tolist() for batch in batches] for batches in epochs]
    assert ids[0] != ids[1]
    assert [batch.n_id.tolist() for batch in make(3)] == ids[0]


def test_parts_are_equal_and_follow_edges():
    # Two grids that nothing joins: no part has nodes of both unless it must.
    side = 10
    place = torch.arange(side * side).view(side, side)
    pairs = [torch.stack([place[:, :-1].flatten(), place[:, 1:].flatten()])]
    pairs.append(torch.stack([place[:-1].flatten(), place[1:].flatten()]))
    grid = torch.cat(pairs, dim=1)
    edges = torch.cat([grid, grid + side * side], dim=1)
    part = breadth_first_parts(edges, 2 * side * side, 4)
    assert part.bincount().tolist() == [50] * 4
    of_first, of_second = set(part[:100].tolist()), set(part[100:].tolist())
    assert not of_first & of_second
    cut = (part[edges[0]] != part[edges[1]]).sum()
    by_chance = (part[torch.randperm(200)][edges] != part[torch.randperm(200)][edges]).any(dim=0).sum()
    assert cut < by_chance / 4
    assert breadth_first_parts(edges[:, :0], 5, 5).sort().values.tolist() == [0, 1, 2, 3, 4]


def test_wrong_parts_are_named():
    for make in (PartLoader, RandomNodeLoader):
        with pytest.raises(
            ValueError, match=r"Expected 'num_parts' in \[1, 30\], the number of nodes \(got 31\)"
        ):
            make(DATA, 31)
    with pytest.raises(ValueError, match="a part of at least 0 for each of 30 nodes"):
        PartLoader(DATA, torch.zeros(4, dtype=torch.long))
