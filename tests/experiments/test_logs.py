import sys
from types import SimpleNamespace

import pytest
from made_tasks import make_task

from kgat.experiments.compare import compare

pytestmark = pytest.mark.quick


def run(out, epochs=3, **options):
    overrides = {"max_epochs": epochs, "hidden_channels": 8, "heads": 2}
    options = {"rounds": 0, "figures": False, "overrides": overrides, "checkpoint": "1", **options}
    return compare(make_task(), ("gat", "rbf*lp"), 1, out, **options)


def test_hooks_see_each_epoch_of_each_run(tmp_path):
    seen = []
    records = run(tmp_path, on_epoch=lambda config, *values: seen.append((config.model, *values)))
    assert [values[:2] for values in seen] == [(m, e) for m in ("gat", "rbf*lp") for e in (1, 2, 3)]
    for record in records:
        of_run = [values for values in seen if values[0] == record["model"]]
        assert record["curve"]["val_loss"] == pytest.approx([values[3] for values in of_run], rel=1e-4)
        assert record["val"] == of_run[record["best_epoch"] - 1][4]


def test_hooks_may_stop_a_run_and_see_trials(tmp_path):
    seeds = set()

    def on_epoch(config, epoch, *_):
        seeds.add(config.seed)
        return epoch == 2

    records = run(tmp_path, on_epoch=on_epoch, tune=2, tune_seeds=1)
    assert {record["epochs"] for record in records} == {2}
    assert seeds == {0, 1_000_000}


def test_hooks_of_other_processes_must_be_importable(tmp_path):
    with pytest.raises(ValueError, match=r"Expected an 'on_epoch' .*several jobs.*jobs=1"):
        run(tmp_path, on_epoch=lambda *_: None, jobs=2)


def scalars(folder):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    names = accumulator.Tags()["scalars"]
    return {name: {event.step: event.value for event in accumulator.Scalars(name)} for name in names}


def test_tensorboard_has_all_epochs_once_also_of_a_run_that_was_stopped(tmp_path):
    pytest.importorskip("tensorboard")

    def stop(config, epoch, *_):
        if epoch == 2 and config.model == "rbf*lp":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, log="tensorboard", on_epoch=stop)
    records = run(tmp_path, log="tensorboard")
    folders = sorted((tmp_path / "tensorboard").iterdir())
    assert [folder.name.rpartition("-")[0] for folder in folders] == ["gat-seed0", "rbf-lp-seed0"]
    for folder, record in zip(folders, records, strict=True):
        logged = scalars(folder)
        assert set(logged) == {"loss/train", "loss/val", "accuracy/val"}
        assert list(logged["loss/val"]) == [1, 2, 3]
        assert list(logged["loss/val"].values()) == pytest.approx(record["curve"]["val_loss"], rel=1e-4)


def test_wandb_gets_a_run_for_each(tmp_path, monkeypatch):
    calls = []

    def init(**options):
        calls.append(("init", options))
        return SimpleNamespace(
            log=lambda values, step: calls.append(("log", step, values)),
            finish=lambda: calls.append(("finish",)),
        )

    module = SimpleNamespace(init=init, __spec__=SimpleNamespace(name="wandb"))
    monkeypatch.setitem(sys.modules, "wandb", module)
    records = run(tmp_path, log="wandb")
    assert [call[0] for call in calls] == ["init", "log", "log", "log", "finish"] * 2
    begun = calls[0][1]
    assert (begun["project"], begun["id"], begun["resume"]) == ("kgat-made", records[0]["key"], "allow")
    assert begun["config"] == records[0]["config"]
    assert set(calls[1][2]) == {"loss/train", "loss/val", "accuracy/val"}


def test_logs_that_are_none(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"Expected a log \(got 'paper'\); choose from: tensorboard, wandb"):
        run(tmp_path, log="paper")
    monkeypatch.setattr("kgat.extras.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"'wandb' for --log wandb .*kgat\[log\]"):
        run(tmp_path, log="wandb")
    assert not list(tmp_path.iterdir())
