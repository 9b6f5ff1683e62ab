import hashlib
import multiprocessing
import os
import random
import signal

import numpy as np
import pytest
import torch
from made_tasks import make_config, make_task

from kgat.atomic import replacing
from kgat.experiments import checkpoint as checkpoints
from kgat.experiments import compare as comparing
from kgat.experiments import training
from kgat.experiments.checkpoint import MAGIC, Checkpoint, Interval, fingerprint
from kgat.experiments.compare import compare


def train(folder, stop=None, task=None, at_epoch=None, **settings):
    def on_epoch(epoch, *_):
        if epoch == stop:
            raise KeyboardInterrupt
        if at_epoch is not None:
            at_epoch(epoch)

    config = make_config("rbf*lp", **{"max_epochs": 12, **settings})
    checkpoint = Checkpoint(folder, Interval(epochs=1))
    record, model = training.train(task or make_task(), config, on_epoch=on_epoch, checkpoint=checkpoint)
    for name in ("seconds", "epoch_seconds", "date"):
        del record[name]
    return record, model.state_dict()


def same(one, other):
    return one[0] == other[0] and all(torch.equal(one[1][name], other[1][name]) for name in other[1])


def train_in_process(folder, out, killed_at, while_it_writes, parent):
    def wait():
        parent.send("here")
        parent.recv()  # which never comes

    def write_half(path, content):
        with replacing(path) as file:
            file.write(content[: len(content) // 2])
            file.flush()
            wait()

    def at_epoch(epoch):
        if epoch == killed_at and while_it_writes:
            checkpoints.write_atomically = write_half
        elif epoch == killed_at:
            wait()

    torch.set_num_threads(1)
    torch.save(train(folder, at_epoch=at_epoch, norm="batch_norm"), out)


def test_killed_ten_times_it_ends_with_the_same_bits(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kgat.experiments.training"])

    def start(name, killed_at=None, while_it_writes=False):
        here, there = context.Pipe()
        files = tmp_path / name, tmp_path / f"{name}.pt"
        process = context.Process(target=train_in_process, args=(*files, killed_at, while_it_writes, there))
        process.start()
        there.close()  # so that the end of the process is the end of what it has to say
        return process, here

    start("whole")[0].join()
    state = tmp_path / "killed" / "state.pt"
    for epoch in (1, 2, 5, 9, 12):
        for while_it_writes in (True, False):
            process, said = start("killed", epoch, while_it_writes)
            assert said.recv() == "here"
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            assert state.exists() is (epoch > 1)
            assert len(list(state.parent.glob(".*"))) == while_it_writes  # what is half written
    start("killed")[0].join()
    whole, killed = (torch.load(tmp_path / f"{name}.pt", weights_only=False) for name in ("whole", "killed"))
    assert same(whole, killed)
    assert [path.name for path in state.parent.iterdir()] == ["state.pt"]  # nothing half written stays


@pytest.mark.quick
def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    whole = train(tmp_path / "whole")
    seen = []
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", stop=7)
    config = make_config("rbf*lp", max_epochs=12)
    checkpoint = Checkpoint(tmp_path / "stopped", Interval(epochs=1))
    training.train(make_task(), config, on_epoch=lambda epoch, *_: seen.append(epoch), checkpoint=checkpoint)
    assert seen == [7, 8, 9, 10, 11, 12]
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "again", stop=9)
    assert same(whole, train(tmp_path / "again"))


def test_no_resume_begins_anew(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop=7)
    seen = []
    checkpoint = Checkpoint(tmp_path, resume=False)
    config = make_config("rbf*lp", max_epochs=12)
    training.train(make_task(), config, on_epoch=lambda epoch, *_: seen.append(epoch), checkpoint=checkpoint)
    assert seen[0] == 1


def other_versions(monkeypatch):
    there = training.circumstances
    monkeypatch.setattr(
        training,
        "circumstances",
        lambda device: {**there(device), "versions": {**there(device)["versions"], "torch": "1.0"}},
    )
    return {}


def other_data(_):
    task = make_task()
    task.data.x[3, 1] += 1
    return {"task": task}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: {"lr": 0.1}, r"lr=0\.1 .*got lr=0\.0"),
        (other_data, "with data="),
        (other_versions, r"with torch=1\.0 .*got torch=2"),
    ],
)
def test_a_checkpoint_of_another_run_is_set_aside(tmp_path, monkeypatch, change, said):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", stop=7)
    before = (tmp_path / "run" / "state.pt").read_bytes()
    others = change(monkeypatch)
    with pytest.warns(UserWarning, match=f"{said}.*set aside as .*aside.pt.*starts anew"):
        found = train(tmp_path / "run", **others)
    assert same(found, train(tmp_path / "new", **others))
    assert (tmp_path / "run" / "aside.pt").read_bytes() == before


@pytest.mark.parametrize("place", [0, 40, 2000, -1])
def test_a_damaged_checkpoint_is_set_aside(tmp_path, place):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", stop=7)
    path = tmp_path / "run" / "state.pt"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"whole checkpoint .*got a damaged one.*starts anew"):
        found = train(tmp_path / "run")
    assert same(found, train(tmp_path / "new"))


def test_a_checkpoint_that_this_torch_cannot_read_is_set_aside(tmp_path):
    path = tmp_path / "run" / "state.pt"
    path.parent.mkdir()
    payload = b"of a later torch"
    path.write_bytes(MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
    with pytest.warns(UserWarning, match=r"that this torch can read .*set aside as .*starts anew"):
        found = train(tmp_path / "run")
    assert same(found, train(tmp_path / "new"))


@pytest.mark.quick
def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", stop=4)
    before = (tmp_path / "run" / "state.pt").read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("kgat.atomic.os.fsync", full)
        with pytest.warns(UserWarning, match=r"no checkpoint could be written .*No space left") as caught:
            found = train(tmp_path / "run")
    assert len(caught) == 1
    assert (tmp_path / "run" / "state.pt").read_bytes() == before
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["state.pt"]
    whole = train(tmp_path / "whole")
    assert same(found, whole)
    assert same(train(tmp_path / "run"), whole)


def test_other_parts_are_refused(tmp_path):
    model, other = torch.nn.Linear(2, 1), torch.nn.Linear(3, 1)
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"model": model})
    for parts in ({"model": other}, {"model": model, "optimizer": other}):
        with pytest.raises(ValueError, match=r"of this very program .*--no-resume"):
            checkpoint.load(parts)


@pytest.mark.quick
def test_generators_of_loaders_go_on(tmp_path):
    parts = {"torch": torch.Generator().manual_seed(3), "numpy": np.random.default_rng(3)}
    Checkpoint(tmp_path).save(parts)
    drawn = [
        torch.rand(3, generator=parts["torch"]).tolist(),
        parts["numpy"].random(3).tolist(),
        torch.rand(3).tolist(),
        np.random.random(3).tolist(),  # noqa: NPY002
        random.random(),
    ]
    assert Checkpoint(tmp_path).load(parts)
    assert drawn == [
        torch.rand(3, generator=parts["torch"]).tolist(),
        parts["numpy"].random(3).tolist(),
        torch.rand(3).tolist(),
        np.random.random(3).tolist(),  # noqa: NPY002
        random.random(),
    ]


def test_compare_goes_on_inside_a_run_and_leaves_no_checkpoint(tmp_path, monkeypatch):
    fast = {"max_epochs": 6, "hidden_channels": 8, "heads": 2}
    options = {"rounds": 0, "figures": False, "overrides": fast, "checkpoint": "1"}
    whole = compare("karate", ("rbf",), 1, tmp_path / "whole", **options)
    seen = []

    def noting(note, task):
        def on_epoch(epoch, *_):
            seen.append(epoch)
            if len(seen) == 4:
                raise KeyboardInterrupt

        return on_epoch

    monkeypatch.setattr(comparing, "_noting", noting)
    with pytest.raises(KeyboardInterrupt):
        compare("karate", ("rbf",), 1, tmp_path / "run", **options)
    assert len(list((tmp_path / "run" / checkpoints.FOLDER).iterdir())) == 1
    found = compare("karate", ("rbf",), 1, tmp_path / "run", **options)
    assert seen == [1, 2, 3, 4, 4, 5, 6]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["results.jsonl"]
    for name in ("curve", "best_epoch", "val", "test"):
        assert found[0][name] == whole[0][name]


@pytest.mark.quick
@pytest.mark.parametrize("wrong", ["often", "-1", "3h", ""])
def test_intervals_that_are_none(wrong):
    with pytest.raises(ValueError, match=r"Expected seconds, minutes or epochs .*--checkpoint 30s"):
        Interval.read(wrong)


def test_fingerprints_of_large_tensors_are_of_pieces(monkeypatch):
    monkeypatch.setattr(checkpoints, "WHOLE", 100)
    monkeypatch.setattr(checkpoints, "PIECES", 3)
    monkeypatch.setattr(checkpoints, "PIECE", 2)
    one = torch.zeros(1000)
    ends, between = one.clone(), one.clone()
    ends[-1], between[5] = 1, 1
    assert fingerprint(one) != fingerprint(ends)
    assert fingerprint(one) == fingerprint(between)
    assert fingerprint(one) != fingerprint(torch.zeros(1001))


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo])
def test_fingerprints_of_sparse_tensors(layout):
    one = torch.eye(4).to_sparse(layout=layout)
    assert fingerprint(one) == fingerprint(torch.eye(4).to_sparse(layout=layout))
    assert fingerprint(one) != fingerprint((2 * torch.eye(4)).to_sparse(layout=layout))
