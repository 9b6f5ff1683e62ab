import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("distributed_run.py")
SETTINGS = {"max_epochs": 4, "batch_size": 3, "neighbors": "-1,-1", "heads": 2, "hidden_channels": 8}
CERTAIN = {"dropout": 0.0, "input_dropout": 0.0}


def environment(**more):
    root = Path(__file__).parents[2]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), **more}


def run(folder, processes, *death, **settings):
    r"""Runs so many processes; returns how they ended and what they said."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [
        sys.executable,
        str(SCRIPT),
        str(folder),
        json.dumps({**SETTINGS, **settings}),
        *map(str, death),
    ]
    started = []
    for rank in range(processes):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes}
        names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        own = environment(**{name: str(value) for name, value in names.items()})
        started.append(subprocess.Popen(arguments, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    said = [process.communicate(timeout=120)[1].decode() for process in started]
    return [process.returncode for process in started], said


def model(folder, rank=0):
    return torch.load(folder / f"model-{rank}.pt", weights_only=True)


def test_two_processes_train_as_one_does(tmp_path):
    r"""The same batches, whose last has two nodes for two processes, and gradients of the same means."""
    for processes in (1, 2):
        codes, said = run(tmp_path / str(processes), processes, **CERTAIN)
        assert codes == [0] * processes, said
    one, two, other = model(tmp_path / "1"), model(tmp_path / "2"), model(tmp_path / "2", rank=1)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-9, atol=1e-11)
        assert torch.equal(two[name], other[name])
    records = [json.loads((tmp_path / n / "record.json").read_text()) for n in ("1", "2")]
    assert [record.get("processes") for record in records] == [None, 2]
    for name in ("curve", "train", "val", "test"):
        pairs = [record[name] for record in records]
        assert pairs[0] == pairs[1] or name == "curve"
    for name, values in records[0]["curve"].items():
        assert records[1]["curve"][name] == pytest.approx(values, rel=1e-4)


def test_a_process_that_dies_ends_all_and_a_new_start_goes_on_to_the_same_bits(tmp_path):
    codes, said = run(tmp_path / "died", 2, 3)
    assert codes == [1, -9]
    assert said[0].startswith("said: Expected all 2 processes until the end")
    assert said[0].count("\n") == 1
    for folder in ("died", "whole"):
        codes, said = run(tmp_path / folder, 2)
        assert codes == [0, 0], said
    for rank in (0, 1):
        died, whole = (model(tmp_path / folder, rank) for folder in ("died", "whole"))
        assert all(torch.equal(died[name], value) for name, value in whole.items())


def test_processes_without_nodes_and_settings_that_none_shares(tmp_path):
    for settings, what in (
        ({"batch_size": 1}, "nodes in a batch for each of 2 processes (got 1)"),
        ({"batch_size": None, "neighbors": None}, "Expected a task on nodes in mini-batches"),
        ({"accumulate": 2}, "Expected accumulate=1 with 2 processes"),
    ):
        codes, said = run(tmp_path, 2, **settings)
        assert codes == [1, 1]
        assert all(f"said: {what}" in text or what in text for text in said), said
        assert all(text.count("\n") == 1 for text in said)


def test_torchrun_trains_and_one_process_writes(tmp_path):
    arguments = (
        "--standalone --nproc-per-node 2 -m kgat train --dataset karate --batch-size 4 --neighbors 3,3"
    )
    arguments = [*arguments.split(), "--set", "max_epochs=2", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("karate, rbf, seed 0") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.pt"]
