import numpy as np
import pytest
import torch
from made_tasks import make_config, make_task

from kgat.experiments import ledger, starts, training, tuning
from kgat.experiments.config import Config


def test_layers_by_hand():
    task = make_task()
    model = training.build(task, make_config("rbf", start="unit", dropout=0, input_dropout=0))
    model.eval()
    with torch.no_grad():
        model(task.data.x, task.data.edge_index)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = starts.layers(model, task, training=False)
    assert [layer["deviation"] for layer in found] == pytest.approx([1.0, 1.0], abs=0.05)
    assert all(0.3 < layer["entropy"] < 1.0 for layer in found)
    assert not model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(conv._forward_pre_hooks for conv in model.convs)


@pytest.mark.parametrize("start", [None, "unit"])
def test_a_measurement_trains_as_any_run_does(start):
    task = make_task()
    config = make_config("rbf", start=start, norm="batch_norm", max_epochs=12)
    record, run = starts.measure(task, config), training.run(task, config)
    assert (record["best_epoch"], record["epochs"]) == (run["best_epoch"], run["epochs"])
    assert record["config"] == run["config"]
    assert "test" not in record
    deviations = [layer["deviation"] for layer in record["training"]]
    assert (np.abs(np.array(deviations) - 1.0) < 0.1).all() == (start == "unit")
    assert len(record["start"]) == len(record["end"]) == 2


def made(dataset, model, seed, start, val):
    config = Config.of(dataset, model, seed, {"start": start})
    own = {"dataset": dataset, "model": model, "seed": seed, "val": val}
    return {"kind": "tune", "key": tuning.key(config), **own, "config": config.as_dict()}


def test_what_is_worse_is_named(tmp_path):
    for seed in range(6):
        for model, shift in (("rbf", 0.1), ("dot", -0.1), ("spectral", 0.001 * (-1) ** seed)):
            ledger.append(tmp_path / starts.VALIDATION, made("karate", model, seed, None, 0.5 + 0.01 * seed))
            unit = made("karate", model, seed, "unit", 0.5 + 0.01 * seed + shift + 0.002 * (seed % 2))
            ledger.append(tmp_path / starts.VALIDATION, unit)
    ledger.append(tmp_path / starts.VALIDATION, made("karate", "rbf", 6, None, 0.9))  # has no partner yet
    found = ledger.read(tmp_path / starts.VALIDATION)
    assert starts.worse(found) == [("karate", "dot")]
    assert [scores.shape for scores in starts.pairs(found).values()] == [(6, 2)] * 3
    text = starts.page(tmp_path)
    assert "| karate | `rbf` | 6 | 52.5 | 62.6 | +10.1 [+10.0, +10.2] | 6 : 0 |" in text
    assert "| karate | `dot` | 6 | 52.5 | 42.6 | −9.9 [−10.0, −9.8] | 0 : 6 |" in text
    assert "Worse beyond noise with a start of 1: karate `dot`." in text


def test_commands_go_on_where_they_were(tmp_path):
    (tmp_path / starts.PAGE).write_text("# Title\n\n<!-- results:begin -->\n<!-- results:end -->\n")
    settings = ["--datasets", "karate", "--models", "rbf,dot", "--seeds", "1", "--set", "max_epochs=2"]
    for _ in range(2):
        starts.main(["scores", str(tmp_path), *settings])
        starts.main(["validate", str(tmp_path), *settings])
    for name in (starts.SCORES, starts.VALIDATION):
        found = ledger.read(tmp_path / name)
        assert len({record["key"] for record in found}) == len(found) == 4
        assert not any("test" in record for record in found)
    starts.main(["page", str(tmp_path)])
    page = (tmp_path / starts.PAGE).read_text()
    assert page.count("| karate | `rbf` |") == 3
    assert "Standard deviation of scores over edges" in page
