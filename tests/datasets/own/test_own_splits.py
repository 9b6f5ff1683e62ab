import warnings

import made_graphs
import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from kgat.datasets import Encoding, from_data, from_networkx, from_pandas
from kgat.datasets.splits import class_shares, whole_groups


@pytest.fixture
def nodes():
    return made_graphs.tables()[0]


@pytest.fixture
def edges():
    return made_graphs.tables()[1]


def sizes(split):
    return tuple(int(mask.sum()) for mask in (split.train, split.val, split.test))


def part_of(split):
    return (split.train * 1 + split.val * 2 + split.test * 3).numpy()


def test_seeded_splits_have_the_shares_of_each_class(nodes, edges):
    nodes.loc[:9, "label"] = None
    task = from_pandas(nodes, edges, shares=(0.5, 0.25))
    assert len({tuple(part_of(split)) for split in task.splits}) == 20
    for split in task.splits:
        assert not (split.train | split.val | split.test)[:10].any()
        for label in range(3):
            count = int((task.data.y == label).sum())
            of_class = tuple(int((mask & (task.data.y == label)).sum()) for mask in (split.train, split.val))
            assert of_class == (round(0.5 * count), round(0.25 * count))
    # They do not depend on features, nor on what the graph is called.
    again = from_pandas(nodes.drop(columns="age"), edges, shares=(0.5, 0.25), name="other")
    assert all(torch.equal(a.test, b.test) for a, b in zip(task.splits, again.splits, strict=True))


@pytest.mark.parametrize(
    ("count", "expected"), [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1)), (4, (2, 1, 1))]
)
def test_small_classes(count, expected):
    part = class_shares(np.arange(count), np.zeros(count, dtype=int), train=0.6, val=0.2)
    assert tuple(int((part == number).sum()) for number in (1, 2, 3)) == expected


def test_random_and_regression_splits(nodes, edges):
    for task in (
        from_pandas(nodes, edges, split="random"),
        from_pandas(nodes.rename(columns={"label": "color"}), edges, label="age"),
    ):
        assert [sizes(split) for split in task.splits] == [(36, 12, 12)] * 20
    with pytest.raises(
        ValueError, match=r"classes for split='stratified' .got regression.; use split='random'"
    ):
        from_pandas(nodes.rename(columns={"label": "color"}), edges, label="age", split="stratified")


def test_split_by_time_keeps_equal_times_together(nodes, edges):
    nodes["year"] = [2000 + i // 7 for i in range(60)]
    (split,) = from_pandas(nodes, edges, time="year").splits
    year = nodes["year"].to_numpy()
    part = part_of(split)
    assert year[part == 1].max() < year[part == 2].min() <= year[part == 2].max() < year[part == 3].min()
    assert sizes(split) == (35, 14, 11)
    dates = nodes.assign(year=[f"{y}-05-01" for y in year])
    assert (part_of(from_pandas(dates, edges, time="year").splits[0]) == part).all()
    assert "year" not in from_pandas(nodes, edges, time="year").preprocessing.split("split by")[0]
    nodes.loc[3, "year"] = np.nan
    with pytest.raises(ValueError, match=r"a value of 'year' for every labelled node .got none in row 3 of"):
        from_pandas(nodes, edges, time="year")
    with pytest.raises(
        ValueError, match=r"at least three different times in 'year', one for each part .got 2"
    ):
        from_pandas(nodes.assign(year=[1, 2] * 30), edges, time="year")
    with pytest.raises(ValueError, match=r"Expected times in 'year'.*got 'soon' in row 0"):
        from_pandas(nodes.assign(year="soon"), edges, time="year")


def test_split_by_group_parts_none(nodes, edges):
    nodes["town"] = [f"t{i % 9}" for i in range(60)]
    task = from_pandas(nodes, edges, group="town")
    assert len({tuple(part_of(split)) for split in task.splits}) > 5
    for split in task.splits:
        part = part_of(split)
        assert all(len(set(part[nodes["town"] == town])) == 1 for town in set(nodes["town"]))
        assert min(sizes(split)) >= 6
        assert sizes(split)[0] in range(25, 47)
    assert not any(column["name"] == "town" for column in task.data.columns)
    with pytest.raises(ValueError, match=r"at least three groups in 'town', one for each part .got 2"):
        from_pandas(nodes.assign(town=["a", "b"] * 30), edges, group="town")


@pytest.mark.parametrize("counts", [(1, 1, 1), (9, 1, 1), (1, 1, 9), (5, 4, 3, 2)])
def test_every_part_has_a_group(counts):
    groups = np.repeat(np.arange(len(counts)), counts)
    part = whole_groups(np.arange(len(groups)), np.zeros(len(groups)), groups=groups, train=0.6, val=0.2)
    assert set(part) == {1, 2, 3}


def test_a_column_says_the_split(nodes, edges):
    said = np.array(["train", "Valid ", "test", ""])[np.arange(60) % 4]
    for task in (
        from_pandas(nodes.assign(part=said), edges, split="column:part"),
        from_pandas(nodes.assign(split=said), edges),
    ):
        (split,) = task.splits
        assert part_of(split).tolist() == [1, 2, 3, 0] * 15
        assert task.data.x.size(1) == 5
    with pytest.warns(UserWarning, match=r"column 'split' tells the parts of a split.*--split column:split"):
        task = from_pandas(nodes.assign(split=said), edges, split="stratified")
    assert (len(task.splits), task.data.x.size(1)) == (20, 5)
    said = said.astype(object)
    said[5] = "traim"
    with pytest.raises(
        ValueError, match=r"train, val, test or nothing in column 'split' .got 'traim' in row 5"
    ):
        from_pandas(nodes.assign(split=said), edges)
    with pytest.raises(ValueError, match=r"a column 'fold' in the given tables .got id, age"):
        from_pandas(nodes, edges, split="column:fold")


def test_files_say_the_split(tmp_path, nodes, edges):
    (tmp_path / "train.txt").write_text("p0\np1\n\n")
    (tmp_path / "val.csv").write_text("id\np2\n")
    with pytest.raises(FileNotFoundError, match=r"a list of ids in one of .*test.txt, .*test.npy .got none"):
        from_pandas(nodes, edges, split=f"files:{tmp_path}")
    np.save(tmp_path / "test.npy", np.array(["p3", "p4"]))
    (split,) = from_pandas(nodes, edges, split=f"files:{tmp_path}").splits
    assert part_of(split).tolist() == [1, 1, 2, 3, 3] + [0] * 55
    (tmp_path / "val.csv").write_text("id\np2\np1\n")
    with pytest.raises(ValueError, match=r"each node in one part .*got 'p1' in 'train' and 'val'"):
        from_pandas(nodes, edges, split=f"files:{tmp_path}")
    (tmp_path / "val.csv").write_text("id\np2\np99\n")
    with pytest.raises(ValueError, match=r"ids of nodes in '.*val.csv' .got 'p99' in line 3"):
        from_pandas(nodes, edges, split=f"files:{tmp_path}")


@pytest.mark.parametrize("dtype", [torch.long, torch.float64])
@pytest.mark.parametrize("suffix", ["txt", "csv", "npy"])
def test_files_name_nodes_by_numbers(tmp_path, suffix, dtype):
    ids = np.arange(1000, 1030)
    edge_index, y = torch.tensor([[0, 1], [1, 2]]), torch.arange(30) % 2
    data = Data(x=torch.rand(30, 2), edge_index=edge_index, y=y, node_id=torch.from_numpy(ids).to(dtype))
    for number, part in enumerate(("train", "val", "test")):
        if suffix == "npy":
            np.save(tmp_path / f"{part}.npy", ids[number::3])
        else:
            (tmp_path / f"{part}.{suffix}").write_text("\n".join(map(str, ids[number::3])))
    (split,) = from_data(data, split=f"files:{tmp_path}").splits
    assert part_of(split).tolist() == [1, 2, 3] * 10
    data.node_id[3] = 1000
    with pytest.raises(
        ValueError, match=r"ids of one node each in '.*train.*' .got '1000' in line 1, which sev"
    ):
        from_data(data, split=f"files:{tmp_path}")


def test_given_splits_may_not_leak(nodes, edges):
    nodes["split"] = ["train"] * 30 + ["val"] * 15 + ["test"] * 15
    nodes["year"] = range(60)
    nodes["town"] = [f"t{i // 5}" for i in range(60)]
    task = from_pandas(nodes, edges, time="year", group="town")
    assert sizes(task.splits[0]) == (30, 15, 15)
    with pytest.raises(
        ValueError, match=r"'train' before 'val' in split 'split' by 'year' .got row 7 .* after row 30 .*leak"
    ):
        from_pandas(nodes.assign(year=[100 if i == 7 else i for i in range(60)]), edges, time="year")
    town = [f"t{i}" for i in range(60)]
    town[50] = town[7]
    with pytest.raises(
        ValueError, match=r"each 'town' in one part .*got row 7 of 'nodes' in 'train' and row 50 .*leak"
    ):
        from_pandas(nodes.assign(town=town), edges, group="town")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "sorted"}, r"'split' as stratified, random, column:NAME or files:FOLDER .got 'sorted'"),
        ({"split": "column"}, r"'split' as stratified"),
        ({"split": "random:3"}, r"'split' as stratified"),
        ({"shares": (0.9, 0.2)}, r"a sum below 1, for training and validation .got .0.9, 0.2."),
        ({"shares": (0.9,)}, r"'shares' as two numbers"),
        ({"shares": ("a", "b")}, r"'shares' as two numbers"),
        ({"time": "age", "group": "job"}, r"by time or by group .got time='age' and group='job'"),
        ({"time": "age", "split": "random"}, r"either split='random' or a column of times"),
        ({"time": "when"}, r"a column 'when'"),
    ],
)
def test_wrong_options(nodes, edges, options, message):
    with pytest.raises(ValueError, match=message):
        from_pandas(nodes, edges, **options)


def test_few_groups_have_few_splits_and_none_twice(nodes, edges):
    for number, most in ((3, 6), (4, 20)):
        sites = [f"s{i % number}" for i in range(len(nodes))]
        task = from_pandas(nodes.assign(site=sites), edges, group="site")
        distinct = {(*split.train.tolist(), *split.val.tolist()) for split in task.splits}
        assert len(distinct) == len(task.splits) <= most
        assert [split.name for split in task.splits] == [f"random-{i}" for i in range(len(distinct))]


def names_of(task):
    return [column["name"] for column in task.data.columns]


SAID = np.array(["train", "Valid ", "test", ""])[np.arange(60) % 4]


@pytest.mark.parametrize("name", ["split", "Split", "SPLIT"])
def test_a_column_of_parts_is_the_split_in_any_letters(nodes, edges, name):
    (split,) = from_pandas(nodes.assign(**{name: SAID}), edges).splits
    assert part_of(split).tolist() == [1, 2, 3, 0] * 15
    with pytest.raises(ValueError, match=rf"train, val, test or nothing in column '{name}' .got '4'"):
        from_pandas(nodes.assign(**{name: 4}), edges)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dropped = from_pandas(nodes.assign(**{name: SAID}), edges, split="random", drop=[name])
    assert names_of(dropped) == ["age", "job", "member"]


@pytest.mark.parametrize("name", ["split", "SPLIT", "fold"])
def test_parts_are_no_features(nodes, edges, name):
    nodes = nodes.assign(**{name: SAID}, year=range(60), part=SAID)
    for options in ({"split": "random"}, {"split": "column:part"}, {"split": "column:part", "group": "id"}):
        with pytest.warns(
            UserWarning, match=f"column '{name}' tells the parts of a split, so it is no feature"
        ):
            task = from_pandas(nodes, edges, **options, drop=["part", "year"])
        assert names_of(task) == ["age", "job", "member"]
        encoding = Encoding.of(task.data.encoding)
        for table in (nodes, nodes.drop(columns=[name])):  # a model that answers has no use for it
            assert from_pandas(table, edges, like=encoding).data.x.shape == task.data.x.shape
    with pytest.warns(UserWarning, match="column 'way' tells the parts of a split"):
        task = from_pandas(
            nodes[["id", "age", "label"]], edges.assign(way=np.resize(SAID, len(edges)), w=1.0)
        )
    assert task.data.edge_attr.size(1) == 1
    # What holds other words, too, may be a feature.
    ways = nodes[["id", "label"]].assign(way=np.array(["train", "bus"])[np.arange(60) % 2])
    assert names_of(from_pandas(ways, edges)) == ["way"]


FORMS = {
    "truth values": lambda mask: mask,
    "zeros and ones": lambda mask: mask.astype(int),
    "floats": lambda mask: mask.astype(float),
    "texts": lambda mask: np.where(mask, "TRUE", "false "),
    "lists": lambda mask: [[value] for value in mask],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["{}_mask", "{}_MASK"])
def test_masks_are_the_split_of_a_table(nodes, edges, form, name):
    masks = {
        name.format(part): FORMS[form](np.arange(60) % 4 == number)
        for number, part in enumerate(("train", "val", "test"))
    }
    table = nodes.assign(**masks)
    task = from_pandas(table, edges)
    assert [part_of(split).tolist() for split in task.splits] == [[1, 2, 3, 0] * 15]
    assert names_of(task) == ["age", "job", "member"]
    encoding = Encoding.of(task.data.encoding)
    assert from_pandas(table, edges, like=encoding).data.x.shape == task.data.x.shape
    with pytest.warns(
        UserWarning, match=r"column '.*' tells the parts of a split, so it is no feature; drop"
    ):
        drawn = from_pandas(table, edges, split="random")
    assert (len(drawn.splits), names_of(drawn)) == (20, ["age", "job", "member"])
    graph = nx.Graph(zip(edges["source"], edges["target"], strict=True))
    assert from_networkx(graph, table).splits[0].name == "given"
    with pytest.raises(ValueError, match=r"one split in .* .got masks and 'split'"):
        from_pandas(table.assign(split=SAID), edges)
    last = name.format("test")
    with pytest.raises(ValueError, match=r"got no 'test_mask'.; add it, or let splits be drawn"):
        from_pandas(table.drop(columns=last), edges)


def test_several_masks_and_wrong_ones(nodes, edges):
    masks = {
        f"{part}_mask": [[i % 4 == number, (i + 1) % 4 == number] for i in range(60)]
        for number, part in enumerate(("train", "val", "test"))
    }
    task = from_pandas(nodes.assign(**masks), edges)
    assert [part_of(split).tolist() for split in task.splits] == [[1, 2, 3, 0] * 15, [2, 3, 0, 1] * 15]
    assert names_of(task) == ["age", "job", "member"]
    wrong = nodes.assign(**dict.fromkeys(masks, 0))
    wrong.loc[7, "val_mask"] = 3
    with pytest.raises(ValueError, match=r"true or false in row 7 of 'nodes', column 'val_mask' .got '3'"):
        from_pandas(wrong, edges)
    with pytest.warns(UserWarning, match="column 'dev_mask' tells the parts"):
        assert names_of(from_pandas(nodes.assign(dev_mask=True), edges)) == ["age", "job", "member"]
