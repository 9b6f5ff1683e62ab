r"""Sets of links in the layout of OGB's raw files, drawn here, against OGB's own loader and Evaluator."""

import functools
import gzip
import io
import os

import numpy as np
import pytest
import torch
from made_tasks import make_graph_task, make_task
from torch_geometric.utils import coalesce, remove_self_loops, to_undirected

from kgat.datasets import evaluator, links, load, names, save_submission
from kgat.experiments import training
from kgat.experiments.config import Config

pytestmark = pytest.mark.quick
N, VAL, FEW = 40, 12, 15

SPLITS = {"ppa": "throughput", "collab": "time", "ddi": "target", "citation2": "time", "vessel": "spatial"}
METRICS = {"ppa": "hits@100", "collab": "hits@50", "ddi": "hits@20", "citation2": "mrr", "vessel": "roc_auc"}


def csv(values):
    text = io.StringIO()
    np.savetxt(text, np.atleast_2d(values), delimiter=",", fmt="%.6g")
    return gzip.compress(text.getvalue().encode())


def parts_of(name, random):
    r"""What OGB's files of a split hold: no pair twice, half of them edges."""
    row, col = np.triu_indices(N, 1)
    pairs = np.stack([row, col], axis=1)[random.permutation(len(row))]
    edges = dict(
        zip(("valid", "test", "train"), np.split(pairs[: len(pairs) // 2], [VAL, 2 * VAL]), strict=True)
    )
    others = dict(
        zip(("valid", "test", "train"), np.split(pairs[len(pairs) // 2 :], [150, 300]), strict=True)
    )
    parts = {}
    for part, of_part in edges.items():
        if name == "citation2":
            source, target = of_part.T
            parts[part] = {"source_node": source, "target_node": target}
            if part != "train":
                parts[part]["target_node_neg"] = random.integers(0, N, (len(source), FEW))
            continue
        parts[part] = {"edge": of_part}
        if part != "train" or name == "vessel":
            parts[part]["edge_neg"] = others[part]
        if name == "collab":
            parts[part] |= {"weight": np.ones(len(of_part), np.float32), "year": np.full(len(of_part), 2017)}
    if name == "vessel":  # which was saved from tensors
        parts = {part: {k: torch.from_numpy(v) for k, v in values.items()} for part, values in parts.items()}
    return parts


def folder_of(name, root):
    random = np.random.default_rng(0)
    folder = root / f"ogbl_{name}"
    (folder / "raw").mkdir(parents=True)
    (folder / "split" / SPLITS[name]).mkdir(parents=True)
    (folder / "RELEASE_v1.txt").touch()
    x = random.normal(size=(N, 5)).round(3).astype(np.float32)
    if name == "vessel":
        np.savez(folder / "raw" / "data.npz", node_feat=x, num_nodes_list=[N])
    elif name != "ddi":
        (folder / "raw" / "node-feat.csv.gz").write_bytes(csv(x))
    (folder / "raw" / "num-node-list.csv.gz").write_bytes(csv([[N]]))
    for number, (part, content) in enumerate(parts_of(name, random).items()):
        # OGB's files are of several years: both formats of torch are among them.
        path = folder / "split" / SPLITS[name] / f"{part}.pt"
        torch.save(content, path, _use_new_zipfile_serialization=number % 2 == 0)
    return x


def ogb_split(name, root, monkeypatch):
    ogb = pytest.importorskip("ogb.linkproppred", reason="compares with the package 'ogb'")
    monkeypatch.setattr(torch, "load", functools.partial(torch.load, weights_only=False))
    (root / f"ogbl_{name}" / "processed").mkdir()
    torch.save({}, root / f"ogbl_{name}" / "processed" / "data_processed")
    monkeypatch.setattr(ogb.LinkPropPredDataset, "pre_process", lambda self: None)
    return ogb.LinkPropPredDataset(f"ogbl-{name}", str(root)).get_edge_split()


def answers(task, split, part):
    y = getattr(split, part).y
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(0)) + y


@pytest.mark.parametrize("name", SPLITS)
def test_pairs_are_those_of_ogb(name, tmp_path, monkeypatch):
    x = folder_of(name, tmp_path)
    task = load(f"OGBL_{name}", tmp_path)
    split = task.split(0)
    assert (task.name, task.metric, task.level) == (f"ogbl-{name}", METRICS[name], "link")
    if name == "ddi":
        assert torch.equal(task.data.x.to_dense(), torch.eye(N))
    elif name == "vessel":
        torch.testing.assert_close(task.data.x.std(0, correction=0), torch.ones(5))
    else:
        assert torch.equal(task.data.x, torch.from_numpy(x))
    theirs = ogb_split(name, tmp_path, monkeypatch)
    for part, their in (("train", "train"), ("val", "valid"), ("test", "test")):
        index, y = getattr(split, part).index, getattr(split, part).y
        content = {key: torch.as_tensor(values) for key, values in theirs[their].items()}
        if name == "citation2":
            expected = torch.stack([content["source_node"], content["target_node"]])
        else:
            expected = content["edge"].T
        assert torch.equal(index[:, y == 1], expected)
        if name == "citation2" and part != "train":
            assert torch.equal(index[1, :, 1:], content["target_node_neg"])
            assert (index[0, :, 1:] == index[0, :, :1]).all()
        elif "edge_neg" in content:
            assert torch.equal(index[:, y == 0], content["edge_neg"].T)
    edges = split.train.index[:, split.train.y == 1]
    expected = coalesce(to_undirected(remove_self_loops(edges)[0], num_nodes=N), sort_by_row=False)
    assert torch.equal(split.edge_index, expected)


@pytest.mark.parametrize("name", SPLITS)
def test_scores_and_submissions_are_those_of_ogb(name, tmp_path, monkeypatch):
    ogb = pytest.importorskip("ogb.linkproppred", reason="compares with the package 'ogb'")
    folder_of(name, tmp_path)
    task = load(f"ogbl-{name}", tmp_path)
    split = task.split(0)
    output = answers(task, split, "test")
    save_submission(tmp_path / "test.npz", task, split, output)
    with np.load(tmp_path / "test.npz") as file:
        said = ogb.Evaluator(task.name).eval({key: torch.from_numpy(file[key]) for key in file})
    expected = said["mrr_list"].mean() if name == "citation2" else next(iter(said.values()))
    assert task.score(output, split, "test") == float(expected)
    monkeypatch.setattr(evaluator, "evaluator_of", lambda name: None)
    assert task.score(output, split, "test") == pytest.approx(float(expected), rel=1e-6)
    assert 0 < expected < 1 or name in ("ppa", "collab", "ddi")
    assert 0 <= task.score(answers(task, split, "train"), split, "train") <= 1


@pytest.mark.parametrize(
    ("task", "name"),
    [
        (make_task(classes=40), "ogbn-arxiv"),
        (make_task((torch.rand(60, 112) > 0.5).float(), classes=112, metric="roc_auc"), "ogbn-proteins"),
        (make_graph_task("rmse"), "ogbg-molesol"),
        (make_graph_task("roc_auc"), "ogbg-molbace"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_ogb_scores_where_it_is_installed(task, name, monkeypatch):
    pytest.importorskip("ogb", reason="compares with the package 'ogb'")
    split, calls = task.split(0), []
    rows = task.data.num_nodes if task.level == "node" else len(task.graphs)
    output = torch.randn(rows, task.out_channels, generator=torch.Generator().manual_seed(0))
    ours = {part: task.score(output, split, part) for part in ("train", "val", "test")}
    object.__setattr__(task, "name", name)
    object.__setattr__(task, "digest", None)  # as of what 'load' returns
    theirs = evaluator.evaluator_of(name)
    eval_of = theirs.eval
    monkeypatch.setattr(theirs, "eval", lambda answer: calls.append(1) or eval_of(answer))
    assert {part: task.score(output, split, part) for part in ours} == pytest.approx(ours, rel=1e-6)
    assert len(calls) == 2  # validation and test
    object.__setattr__(task, "digest", "mine")
    task.score(output, split, "test")
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["ogbn-arxiv-structure", "ogbn-arxiv-5-labels", "ogbn-arxiv-10-edges"])
def test_sets_that_are_made_of_ones_of_ogb_are_scored_by_us(name):
    pytest.importorskip("ogb", reason="compares with the package 'ogb'")
    task = make_task(classes=40)
    split = task.split(0)
    output = torch.randn(task.data.num_nodes, 40, generator=torch.Generator().manual_seed(0))
    ours = task.score(output, split, "test")
    for attribute, value in {"name": name, "digest": None}.items():
        object.__setattr__(task, attribute, value)
    assert task.score(output, split, "test") == ours


@pytest.mark.parametrize("name", ["citation2", "ddi"])
def test_models_are_trained_on_them(name, tmp_path):
    folder_of(name, tmp_path)
    task = load(f"ogbl-{name}", tmp_path)
    record = training.run(task, Config.of(task.name, "gat", overrides={"max_epochs": 2}))
    assert record["metric"] == METRICS[name]
    assert all(0 <= record[part] <= 1 for part in ("train", "val", "test"))


def test_names_are_among_all():
    assert set(links.names()) <= set(names())
    with pytest.raises(ValueError, match="did you mean 'ogbl-collab'"):
        load("ogbl-colab")


class Evil:
    def __reduce__(self):
        return os.system, ("echo never",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"edge": np.array([[0, N]])}, r"node \[40\] where 0 to 39 are possible"),
        ({"edge": np.array([0, 1])}, r"pairs of shape \[2\]"),
        ({"edge": np.array([[0, 1]], dtype=object)}, "train.pt"),
        ([1, 2], "a list where arrays by name belong"),
        ({}, "KeyError"),
        ({"edge": Evil()}, r"train.pt.*truncated or corrupt"),
        (b"PK\x03\x04 cut short", "train.pt"),
    ],
)
def test_broken_files_are_named(content, message, tmp_path, capfd):
    folder_of("ppa", tmp_path)
    path = tmp_path / "ogbl_ppa" / "split" / "throughput" / "train.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        load("ogbl-ppa", tmp_path)
    assert "never" not in capfd.readouterr().out


def test_edges_that_come_again_are_messages_and_asked_for(tmp_path):
    folder_of("collab", tmp_path)
    folder = tmp_path / "ogbl_collab" / "split" / "time"
    torch.save({"edge": np.array([[0, 1], [1, 2]])}, folder / "train.pt")
    torch.save({"edge": np.array([[1, 0]]), "edge_neg": np.array([[3, 4]])}, folder / "valid.pt")
    split = load("ogbl-collab", tmp_path).split(0)
    assert split.edge_index.T.tolist() == [[1, 0], [0, 1], [2, 1], [1, 2]]
