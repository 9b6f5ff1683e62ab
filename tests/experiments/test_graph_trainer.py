import pytest
import torch
from made_tasks import make_config, make_graph_task

from kgat.datasets import VISIBLE
from kgat.experiments import compare, training
from kgat.experiments.costs import measure_cost
from kgat.experiments.training import evaluate, restore, run, save, train

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("model", ["gat", "rbf*lp", "implicit"])
@pytest.mark.parametrize("metric", ["accuracy", "rmse", "roc_auc"])
def test_graphs_train(model, metric):
    record = run(make_graph_task(metric, edge_dim=2), make_config(model, max_epochs=2, batch_size=7))
    assert (record["kind"], record["level"], record["metric"]) == ("run", "graph", metric)
    assert record["test"] >= 0


def test_training_learns_sizes_of_graphs_in_their_unit():
    task = make_graph_task("rmse", graphs=60)
    config = make_config(
        "gat", max_epochs=100, lr=0.02, pooling="sum", dropout=0, input_dropout=0, batch_size=12
    )
    record, model = train(task, config)
    deviation = float(task.y.std())
    assert record["test"] < 0.85 * deviation
    assert record["val"] == pytest.approx(min(record["curve"]["val"]), rel=1e-4)
    assert float(model.mean) == pytest.approx(float(task.y[task.split(0).train].mean()))


def test_steps_take_each_graph_once_in_a_seeded_order():
    task, config = make_graph_task(), make_config(batch_size=4, dropout=0)
    trainer = training.trainer_of(training.build(task, config), task.visible(task.split(0)), config)

    def sizes_and_labels():
        torch.manual_seed(1)
        return [y for _, y, _ in trainer.train_batches()]

    once, again = sizes_and_labels(), sizes_and_labels()
    assert [len(y) for y in once] == [4, 4, 4, 4, 2]
    assert torch.equal(torch.cat(once), torch.cat(again))
    assert torch.equal(torch.cat(once).sort()[0], trainer.train_y.sort()[0])
    assert not torch.equal(torch.cat(once), trainer.train_y)


def test_answers_do_not_depend_on_the_batch():
    task, config = make_graph_task(), make_config(batch_size=4, norm="batch_norm")
    model = training.build(task, config).eval()
    graphs = task.graphs
    together = graphs.batch_of(torch.arange(30))
    output = model(together.x, together.edge_index, batch=together.batch)
    alone = [graphs.batch_of(torch.tensor([k])) for k in range(30)]
    torch.testing.assert_close(output, torch.cat([model(one.x, one.edge_index) for one in alone]))


def test_same_seed_same_record():
    records = [run(make_graph_task(), make_config("rbf", seed=3, batch_size=5)) for _ in range(2)]
    for record in records:
        for name in ("seconds", "epoch_seconds", "date"):
            record.pop(name)
    assert records[0] == records[1]


@pytest.mark.parametrize("metric", ["accuracy", "rmse"])
def test_a_saved_model_answers_alike(metric, tmp_path):
    task = make_graph_task(metric)
    record, model = train(task, make_config("rbf", max_epochs=3, pooling="mean+max"))
    save(tmp_path, model, task, record)
    split = task.split(0)
    assert evaluate(restore(tmp_path), task, split) == evaluate(model, task, split)


def test_comparison_goes_to_a_report(warm_workers, tmp_path):
    overrides = {"max_epochs": 2, "hidden_channels": 8, "heads": 2}
    records = compare.compare(make_graph_task("rmse"), ["rbf"], 2, tmp_path, overrides=overrides, rounds=2)
    assert {record["kind"] for record in records} == {"run", "cost", "attention"}
    page = (tmp_path / "report.html").read_text(encoding="utf8")
    assert "test RMSE (less is better)" in page
    assert (tmp_path / "made-accuracy.png").exists()


def test_cost_of_graphs_is_measured():
    record = measure_cost(make_graph_task(), make_config("rbf", batch_size=8), ["rbf"], rounds=2)
    assert record["models"]["rbf"]["seconds_ratio"][0] > 0


def test_what_is_visible_is_known_by_level():
    task = make_graph_task()
    visible = task.visible(task.split(0))
    assert type(visible) is VISIBLE["graph"]
