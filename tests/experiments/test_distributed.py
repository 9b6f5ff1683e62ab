import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import distributed_run
import pytest
import torch
import warm_process

from kgat import cli

SCRIPT = Path(__file__).with_name("distributed_run.py")
SETTINGS = {"max_epochs": 4, "batch_size": 3, "neighbors": "-1,-1", "heads": 2, "hidden_channels": 8}
CERTAIN = {"dropout": 0.0, "input_dropout": 0.0}


def run(folder, jobs):
    r"""Runs jobs one after another in two processes; returns how they ended and their lines."""
    sockets = [socket.socket() for _ in jobs]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    numbered = []
    for (name, settings, *death), one in zip(jobs, sockets, strict=True):
        numbered.append([name, one.getsockname()[1], {**SETTINGS, **settings}, *death])
        one.close()
    started = []
    for rank in range(2):
        names = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        code = SCRIPT.read_text(encoding="utf8")
        started.append(warm_process.Process(code, folder, json.dumps(numbered), **names))
    try:
        said = [process.communicate()[0].splitlines() for process in started]
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], said


def model(folder, rank=0):
    return torch.load(folder / f"model-{rank}.pt", weights_only=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    r"""A folder with what two processes left of some runs, and what they said."""
    folder = tmp_path_factory.mktemp("runs")
    refused = {
        "no nodes": {"batch_size": 1},
        "one batch": {"batch_size": None, "neighbors": None},
        "accumulated": {"accumulate": 2, "batch_size": 2},
    }
    jobs = [
        ("rbf", CERTAIN),
        ("implicit", {**CERTAIN, "model": "implicit"}),
        *refused.items(),
        ("whole", {}),
        ("died", {}, 3),
    ]
    return folder, *run(folder, jobs)


@pytest.mark.parametrize("name", ["rbf", "implicit"])
def test_two_processes_train_as_one_does(runs, name):
    r"""The same batches, whose last has two nodes for two processes, and gradients of the same means; also of
    a kernel with a penalty, on labels of which some are missing."""
    folder = runs[0]
    (folder / f"one-{name}").mkdir()
    before = torch.get_default_dtype()
    try:
        distributed_run.main(folder / f"one-{name}", {**SETTINGS, **CERTAIN, "model": name})
    finally:
        torch.set_default_dtype(before)
    one = model(folder / f"one-{name}")
    two, other = (model(folder / name, rank) for rank in (0, 1))
    for part, value in one.items():
        torch.testing.assert_close(two[part], value, rtol=1e-9, atol=1e-11)
        assert torch.equal(two[part], other[part])
    records = [json.loads((folder / name / "record.json").read_text()) for name in (f"one-{name}", name)]
    assert [record.get("processes") for record in records] == [None, 2]
    for part in ("train", "val", "test"):
        assert records[0][part] == records[1][part]
    if name == "implicit":  # a share's mean counts by its nodes in what is said of training
        return
    for part, values in records[0]["curve"].items():
        assert records[1]["curve"][part] == pytest.approx(values, rel=1e-4)


def test_what_processes_cannot_share_is_one_sentence(runs):
    for name, what in (
        ("no nodes", "Expected nodes in a batch for each of 2 processes (got 1)"),
        ("one batch", "Expected a task on nodes in mini-batches"),
        ("accumulated", "Expected accumulate=1 with 2 processes"),
    ):
        for lines in runs[2]:
            (sentence,) = [line for line in lines if line.startswith(f"{name}: ")]
            assert sentence.startswith(f"{name}: {what}")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads have no names here")
def test_no_thread_of_gloo_outlives_its_group(runs):
    r"""One that does may wait for Python's lock while torch, which has it, waits for the thread."""
    assert not [line for lines in runs[2] for line in lines if "threads left" in line]
    assert "whole: done" in runs[2][0]


def test_a_process_that_dies_ends_all_and_a_new_start_goes_on_to_the_same_bits(runs):
    folder, codes, said = runs
    assert codes == [0, -9]
    assert said[0][-1].startswith("died: Expected all 2 processes until the end (one has ended")
    assert (folder / "died" / "checkpoint").exists()
    codes, _ = run(folder, [("died", {})])
    assert codes == [0, 0]
    for rank in (0, 1):
        died, whole = (model(folder / name, rank) for name in ("died", "whole"))
        assert all(torch.equal(died[name], value) for name, value in whole.items())


def test_torchrun_trains_and_one_process_writes(tmp_path):
    arguments = (
        "--standalone --nproc-per-node 2 -m kgat train --dataset karate --batch-size 4 --neighbors 3,3"
    )
    arguments = [*arguments.split(), "--set", "max_epochs=2", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("karate, rbf, seed 0") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.pt"]


def test_torchrun_starts_nothing_but_training(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["info"]) == 2
    assert re.search(r"Expected 'train' where torchrun .* \(got 'info'", capsys.readouterr().err)
