import os
import signal
from pathlib import Path

import pytest

from kgat import datasets
from kgat.experiments import costs
from kgat.experiments.config import Config
from kgat.experiments.costs import measure_cost

FAST = {"max_epochs": 3, "hidden_channels": 8, "heads": 2}


def test_cost_is_a_ratio_to_the_baseline(warm_workers):
    task = datasets.load("karate")
    config = Config.of("karate", "rbf", overrides=FAST)
    record = measure_cost(task, config, ["rbf", "dot"], rounds=4)
    assert list(record["models"]) == ["gat", "rbf", "dot"]
    assert (record["kind"], record["baseline"], record["rounds"]) == ("cost", "gat", 4)
    assert record["models"]["gat"]["seconds_ratio"] == [1.0, 1.0, 1.0]
    for entry in record["models"].values():
        median, low, high = entry["seconds_ratio"]
        assert 0 < low <= median <= high
        assert entry["epoch_seconds"] > 0
        assert entry["contended"] == (high / low > 1.6)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_memory_grows_with_the_width(warm_workers):
    task = datasets.load("digits")
    visible = task.visible(task.split(0))
    configs = {
        name: Config.of("digits", "gat", overrides={"hidden_channels": width})
        for name, width in (("gat", 64), ("wide", 256), ("again", 64))
    }
    peaks = costs._peaks(visible, configs)
    edges = task.data.edge_index.size(1)
    assert peaks["gat"] > edges * 64 * 4  # one tensor of a row per edge
    assert 2 < peaks["wide"] / peaks["gat"] < 8
    assert peaks["again"] / peaks["gat"] == pytest.approx(1.0, abs=0.1)


def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_killed_process_of_measurement_is_an_error_with_advice(monkeypatch):
    # Not a traceback: all runs are there, and the same command measures once more.
    monkeypatch.setattr(costs, "_seconds_alone", killed)
    task = datasets.load("digits")
    with pytest.raises(OSError, match=r"Expected a process that lives .*it goes on where it stopped"):
        measure_cost(task, Config.of("digits", "gat"), ["gat"], 1, alone=True)
