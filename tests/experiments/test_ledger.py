import errno
import json
import math
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from warm_process import Process

from kgat.atomic import write_atomically
from kgat.experiments import ledger
from kgat.experiments.ledger import Ledger

# Lines


def test_records_come_back(tmp_path):
    path = tmp_path / "results.jsonl"
    written = [{"kind": "run", "model": "rbf*lp", "std": None}, {"kind": "cost", "name": "König"}]
    for record in written:
        ledger.append(path, record)
    assert ledger.read(path) == written
    assert path.read_bytes().count(b"\n") == 2


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        ledger.read(tmp_path / "results.jsonl")


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_unfinished_last_line_is_dropped_and_cut_off(tmp_path, cut):
    path = tmp_path / "results.jsonl"
    for seed in range(3):
        ledger.append(path, {"kind": "run", "seed": seed})
    path.write_bytes(path.read_bytes()[: -1 - cut])
    with pytest.warns(UserWarning, match=r"unfinished last line 3 of .*its run is repeated"):
        kept = ledger.read(path)
    assert [record["seed"] for record in kept] == [0, 1]
    ledger.append(path, {"kind": "run", "seed": 7})
    assert [record["seed"] for record in ledger.read(path)] == [0, 1, 7]


def test_unfinished_only_line(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"kind": "ru')
    with pytest.warns(UserWarning, match=r"unfinished"):
        assert ledger.read(path) == []
    ledger.append(path, {"seed": 0})
    assert ledger.read(path) == [{"seed": 0}]


def test_whole_last_line_without_line_end_is_kept(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"seed": 0}\n{"seed": 1}')
    assert len(ledger.read(path)) == 2
    ledger.append(path, {"seed": 2})
    assert [record["seed"] for record in ledger.read(path)] == [0, 1, 2]


@pytest.mark.parametrize("line", [b"{", b"[1, 2]", b"3", b"\xff\xfe"])
def test_broken_line_within_is_an_error(tmp_path, line):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"seed": 0}\n' + line + b'\n{"seed": 1}\n')
    with pytest.raises(ValueError, match=r"Expected a JSON object in line 2 of .*delete that line"):
        ledger.read(path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_json_does_not_know_are_refused(tmp_path, value):
    path = tmp_path / "results.jsonl"
    with pytest.raises(ValueError, match=r"JSON compliant"):
        ledger.append(path, {"test": value})
    assert not path.exists()


def test_lines_are_json(tmp_path):
    path = tmp_path / "results.jsonl"
    ledger.append(path, {"text": "two\nlines"})
    (line,) = path.read_text().splitlines()
    assert json.loads(line) == {"text": "two\nlines"}


def test_atomic_write_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "README.md"
    write_atomically(path, b"first")
    path.chmod(0o640)
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o640

    def full(handle):
        raise OSError("no space left")

    monkeypatch.setattr(ledger.os, "fsync", full)
    with pytest.raises(OSError, match=r"no space"):
        write_atomically(path, b"third")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


# Jobs of several processes

# A process that says what it begins, and takes its time.
WORKER = """
import sys, time
from kgat.experiments.ledger import Ledger

path, count, seconds, stuck = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
with Ledger(path) as results:
    def there(job):
        return any(record["job"] == job for record in results.records)
    for job in results.claim(range(count), str, there):
        print(job, flush=True)
        time.sleep(600 if job == stuck else seconds)
        results.append({"job": job, "long": "x" * 5000})
    assert sorted(record["job"] for record in results.records) == list(range(count))
print("all", flush=True)
"""

# The same with real runs.
COMPARISON = """
import sys
from kgat.experiments.compare import compare
found = compare("karate", ["gat", "rbf"], 4, sys.argv[1], rounds=0, figures=False,
                overrides={"max_epochs": 3, "hidden_channels": 8, "heads": 2})
print(sorted(record["key"] for record in found if record["kind"] == "run"))
"""


def end(process):
    out, err = process.communicate()
    return process.returncode, out.split("\n")[:-1], err


def test_processes_share_the_jobs(tmp_path):
    path = tmp_path / "results.jsonl"
    processes = [Process(WORKER, path, 30, 0.02, -1) for _ in range(3)]
    begun = []
    for process in processes:
        code, out, err = end(process)
        assert (code, out[-1], err) == (0, "all", "")
        begun.append([int(job) for job in out[:-1]])
    assert sorted(job for jobs in begun for job in jobs) == list(range(30))
    assert Counter(record["job"] for record in ledger.read(path)) == Counter(range(30))
    assert [file.name for file in tmp_path.iterdir()] == ["results.jsonl"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_the_job_of_a_process_that_was_killed_is_done_by_another(tmp_path):
    path = tmp_path / "results.jsonl"
    first = Process(WORKER, path, 6, 0.02, 3)
    try:
        for _ in range(4):
            last = first.stdout.readline()
        assert last == "3\n"  # it has claimed this one and will not come back from it
        second = Process(WORKER, path, 6, 0.02, -1)
        while path.read_bytes().count(b"\n") < 5:  # all but that one
            assert second.returncode is None
            time.sleep(0.02)
        time.sleep(0.2)
        assert second.returncode is None  # it waits for the result
    finally:
        first.kill()
        first.communicate()
    code, out, err = end(second)
    assert (code, out, err) == (0, ["4", "5", "3", "all"], "")
    assert sorted(record["job"] for record in ledger.read(path)) == list(range(6))


def test_comparisons_of_two_processes_share_the_runs(tmp_path):
    processes = [Process(COMPARISON, tmp_path) for _ in range(2)]
    answers = [end(process) for process in processes]
    assert [code for code, _, _ in answers] == [0, 0], answers
    assert answers[0][1] == answers[1][1]
    keys = [record["key"] for record in ledger.read(tmp_path / "results.jsonl")]
    assert len(keys) == len(set(keys)) == 8
    assert answers[0][1] == [str(sorted(keys))]


def test_claims_hold_within_a_process_too(tmp_path):
    path = tmp_path / "results.jsonl"

    def claim(results, *jobs):
        return results.claim(jobs, str, lambda job: False, idle=lambda: pytest.fail("nothing to claim"))

    with Ledger(path) as one, Ledger(path) as other:
        claimed = claim(one, 1, 2)
        assert [next(claimed), next(claimed)] == [1, 2]
        with pytest.raises(pytest.fail.Exception, match="nothing to claim"):
            next(claim(other, 2, 1))
        one.release("2")
        assert next(claim(other, 2, 1)) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_lines_of_others_arrive(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"job": 0}\n{"job": 1}')  # whole, without its line end
    with Ledger(path) as results:
        assert [record["job"] for record in results.records] == [0, 1]
        ledger.append(path, {"job": 2})
        results.append({"job": 3})
        assert [record["job"] for record in results.records] == [0, 1, 2, 3]
    assert [json.loads(line)["job"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]


def test_a_full_disk_is_no_question_of_the_folder(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(
        OSError, match=r"^Expected room on the disk .*make room and run the same command again"
    ):
        Ledger(tmp_path / "runs" / "results.jsonl").__enter__()


def test_a_folder_that_is_gone_is_an_error(tmp_path):
    # Who waits for others would ask without end.
    path = tmp_path / "out" / "results.jsonl"
    with Ledger(path) as results:
        shutil.rmtree(path.parent)
        with pytest.raises(FileNotFoundError, match=r"Expected a file that can be written .*results.jsonl"):
            next(results.claim([0], str, lambda job: False))
        with pytest.raises(FileNotFoundError, match=r"Expected a file that can be written .*results.jsonl"):
            results.append({"seed": 0})


def test_a_file_that_is_a_folder_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=r"Expected a file that can be written .*results.jsonl"):
        Ledger(path).__enter__()
