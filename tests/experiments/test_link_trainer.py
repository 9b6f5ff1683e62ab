import pytest
import torch
from made_tasks import make_config, make_task

from kgat.datasets import VisibleLinks, link_task
from kgat.datasets.link_task import negatives
from kgat.experiments import compare, training
from kgat.experiments.config import protocol
from kgat.experiments.training import evaluate, restore, run, save, train

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("decoder", ["dot", "mlp"])
@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "mrr", "hits@10"])
def test_links_train(metric, decoder):
    task = link_task(make_task(edge_dim=2), metric)
    record = run(task, make_config("rbf*lp", max_epochs=2, decoder=decoder, batch_size=20))
    assert (record["level"], record["metric"], record["split"]) == ("link", metric, "random-0")
    assert all(0.0 <= record[part] <= 1.0 for part in ("train", "val", "test"))


def test_steps_take_each_edge_once_against_pairs_that_are_drawn_anew():
    task, config = link_task(make_task()), make_config(batch_size=50)
    visible = task.visible(task.split(0))
    model = training.build(task, config)
    trainer = training.trainer_of(model, visible, config)
    asked = []
    model.forward = lambda x, edge_index, pairs, **_: asked.append(pairs) or pairs.float().sum(0)

    def epoch():
        asked.clear()
        y = torch.cat([y for _, y, _ in trainer.train_batches()])
        pairs = torch.cat(asked, dim=1)
        return pairs[:, y == 1], pairs[:, y == 0]

    def keys(pairs):
        return (pairs.min(0)[0] * 60 + pairs.max(0)[0]).sort()[0]

    torch.manual_seed(0)
    (edges, drawn), (again, other) = epoch(), epoch()
    assert torch.equal(keys(edges), keys(visible.train))
    assert torch.equal(keys(again), keys(visible.train))
    assert not torch.equal(edges, again)
    assert drawn.shape == edges.shape
    assert not torch.equal(keys(drawn), keys(other))
    assert not torch.isin(keys(drawn), keys(visible.train)).any()
    torch.manual_seed(0)
    assert torch.equal(epoch()[1], drawn)


def visible_of(edge_index, train):
    return VisibleLinks(torch.eye(4), edge_index, None, train, train, torch.ones(1), "roc_auc", True)


def test_messages_are_not_drawn_as_pairs_without_an_edge():
    # As where some edges are for messages and others are trained on.
    task = make_task()
    messages = torch.combinations(torch.arange(4)).T[:, :5]
    visible = visible_of(messages, messages[:, :1])
    trainer = training.trainer_of(training.build(link_task(task), make_config()), visible, make_config())
    for _ in range(20):
        drawn = negatives(5, 4, trainer.known)
        assert {tuple(sorted(pair)) for pair in drawn.T.tolist()} == {(2, 3)}


def test_a_graph_with_all_edges_is_refused():
    everything = torch.combinations(torch.arange(4)).T
    model = training.build(link_task(make_task()), make_config())
    with pytest.raises(ValueError, match=r"pairs without an edge to train against .*got 4 nodes, all"):
        training.trainer_of(model, visible_of(everything, everything[:, :1]), make_config())


def test_training_learns_links():
    # Two groups with edges within: nodes of one group are linked, and their features say which it is.
    index = torch.arange(60)
    generator = torch.Generator().manual_seed(0)
    within = (torch.rand(60, 60, generator=generator) < 0.3) & (index[:, None] % 2 == index % 2)
    task = make_task()
    task.data.edge_index = (within.triu(1) | within.triu(1).T).nonzero().T.contiguous()
    task.data.x[:, 0] += 4.0 * (index % 2) - 2.0
    config = make_config("rbf", dropout=0, input_dropout=0, max_epochs=60, lr=0.02)
    assert run(link_task(task), config)["test"] > 0.7


def test_a_saved_model_answers_alike(tmp_path):
    task = link_task(make_task())
    record, model = train(task, make_config("rbf", max_epochs=3, decoder="mlp"))
    save(tmp_path, model, task, record)
    assert evaluate(restore(tmp_path), task, task.split(0)) == evaluate(model, task, task.split(0))


def test_comparison_goes_to_a_report(warm_workers, tmp_path):
    overrides = {"max_epochs": 2, "hidden_channels": 8, "heads": 2}
    task = link_task(make_task(), "mrr")
    records = compare.compare(task, ["rbf"], 2, tmp_path, overrides=overrides, rounds=2)
    assert {record["kind"] for record in records} == {"run", "cost", "attention"}
    page = (tmp_path / "report.html").read_text(encoding="utf8")
    assert "test MRR %" in page
    assert "no label of a test link" in page


def test_links_have_a_protocol_of_their_own():
    assert protocol("Cora-links")["dropout"] == protocol("my graph-links")["dropout"] == 0.0
