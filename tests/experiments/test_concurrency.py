import dataclasses

import pytest
import torch
from made_tasks import make_config, make_graph_task, make_task

from kgat.experiments import compare as comparing
from kgat.experiments import concurrency
from kgat.experiments.concurrency import free_memory, memory_of_run, runs_at_once


@pytest.fixture(autouse=True)
def six_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("runs", "count"), [(100, 6), (3.2, 2), (0.1, 1)])
def test_as_many_as_threads_and_memory_allow(monkeypatch, runs, count):
    task, config = make_task(), make_config()
    monkeypatch.setattr(concurrency, "free_memory", lambda: int(runs * memory_of_run(task, config)))
    assert runs_at_once(task, config) == count
    assert runs_at_once(task, config, "cuda:0") == 1


def test_few_where_nobody_knows_the_memory(monkeypatch):
    monkeypatch.setattr(concurrency, "free_memory", lambda: None)
    assert runs_at_once(make_task(), make_config()) == 4


@pytest.mark.parametrize("task", [make_task(), make_task(sparse=True), make_graph_task()])
def test_a_wider_model_needs_more(task):
    narrow, wide = make_config(), make_config(hidden_channels=4096)
    assert concurrency.PROCESS < memory_of_run(task, narrow) < memory_of_run(task, wide)
    if task.level == "graph":  # of which a step takes a part
        assert memory_of_run(task, dataclasses.replace(wide, batch_size=2)) < memory_of_run(task, wide)


def test_free_memory_is_that_of_the_container(tmp_path):
    assert free_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert free_memory(tmp_path) == 4000 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("1000\n")
    for limit, free in (("max", 4000 * 1024), ("5000", 4000), ("500", 0)):
        (group / "memory.max").write_text(f"{limit}\n")
        assert free_memory(tmp_path) == free


@pytest.mark.parametrize(("seeds", "jobs", "threads"), [(2, 2, 3), (1, 1, 6), (9, 6, 1)])
def test_threads_are_divided_among_jobs(tmp_path, monkeypatch, seeds, jobs, threads):
    class Begun(Exception):
        pass

    def begin(engine, *_):
        raise Begun(engine.workers, torch.get_num_threads())

    monkeypatch.setattr(comparing, "_run_all", begin)
    with pytest.raises(Begun) as begun:
        comparing.compare(make_task(), ("gat",), seeds, tmp_path, jobs=None)
    assert begun.value.args == (jobs, threads)
    assert torch.get_num_threads() == 6  # the caller's
