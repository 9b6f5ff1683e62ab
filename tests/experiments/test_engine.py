import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import active_children, get_context
from pathlib import Path

import pytest

import kgat
from kgat.experiments import ledger
from kgat.experiments.engine import Engine, Job
from kgat.experiments.ledger import Interrupted

done = []


def square(number, note=None):
    done.append(number)
    note("half of it")
    yield {"key": number, "square": number**2}


def killed(number, note=None):
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def jobs(*numbers, work=square):
    return [Job(number, f"job {number}", work, (number,)) for number in numbers]


@pytest.fixture(autouse=True)
def path(tmp_path):
    done.clear()
    return tmp_path / "new" / "results.jsonl"


def test_what_is_there_is_not_done_again(path):
    for numbers, new in (((1, 2), [1, 2]), ((2, 3, 1), [3])):
        done.clear()
        with Engine(path, len(numbers)) as engine:
            engine.run(jobs(*numbers))
        assert done == new
        assert [record["key"] for record in engine.new] == new
    assert [record["square"] for record in ledger.read(path)] == [1, 4, 9]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_others_append_is_looked_at_before_the_next_job(path):
    seen = []

    def expect(records):
        seen.extend(record["key"] for record in records)
        if "stranger" in seen:
            raise ValueError("another comparison's")

    def square_beside_another(number, note=None):
        if number == 2:
            ledger.append(path, {"key": "stranger"})
        yield from square(number, note)

    with pytest.raises(ValueError, match="another"), Engine(path, 4, expect=expect) as engine:
        engine.run(jobs(1, 2, 3, 4, work=square_beside_another))
    assert done == [1, 2]


def test_fresh_does_all_again(path):
    for fresh, count in ((False, 1), (True, 2), (False, 2)):
        with Engine(path, 1, fresh=fresh) as engine:
            engine.run(jobs(7))
        assert len(engine.records) == count


def both(number, note):
    done.append(number)
    yield {"key": number}
    yield {"key": (number, "drawn")}


def key_of(record):
    return tuple(record["key"]) if isinstance(record["key"], list) else record["key"]


@pytest.mark.parametrize(("repeats", "count"), [(False, 2), (True, 3)])
def test_a_job_is_finished_when_all_that_it_gives_is_there(path, repeats, count):
    job = Job(1, "one", both, (1,), gives=(1, (1, "drawn")))
    path.parent.mkdir()
    ledger.append(path, {"key": 1})
    for _ in range(2):
        with Engine(path, 1, key_of=key_of, repeats=repeats) as engine:
            engine.run([job])
    assert done == [1]
    assert len(ledger.read(path)) == count  # a record that is there is not told twice, unless that is wanted


def stopped(number, note):
    if number == 3:
        raise KeyboardInterrupt
    return square(number, note)


def test_a_stop_says_what_is_kept(path):
    message = r"2 of 9 runs are kept in .*results.jsonl; run the same"
    with pytest.raises(Interrupted, match=message) as caught, Engine(path, 9) as engine:
        engine.run(jobs(1, 2, 3, 4, work=stopped))
    assert (caught.value.kept, caught.value.total, caught.value.path) == (2, 9, path)
    assert done == [1, 2]


def test_records_are_kept_one_by_one(path):
    def two(note):
        yield {"key": "a"}
        assert len(ledger.read(path)) == 1
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"), Engine(path, 1) as engine:
        engine.run([Job("ab", "ab", two, gives=("a", "b"))])
    assert ledger.read(path) == [{"key": "a"}]


def test_workers_give_records_in_the_order_of_jobs(path):
    with Engine(path, 4, workers=2) as engine:
        engine.run(jobs(4, 3, 2, 1))
    assert [record["key"] for record in engine.records] == [4, 3, 2, 1]
    assert done == []  # none in this process


def looking(path, number, note):
    yield {"key": number, "seen": len(ledger.read(path))}


def test_workers_that_go_on_have_left_their_records(path):
    with Engine(path, 4, workers=2, shared=(path,)) as engine:
        engine.run(jobs(1, 2, 3, 4, work=looking))
    seen = [record["seen"] for record in engine.records]
    assert seen[0] == 0
    assert 1 <= seen[2] <= seen[3]  # the third began after the first was kept


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_killed_worker_is_an_error_with_advice(path):
    message = r"Expected 2 processes that live .*fewer --jobs"
    with pytest.raises(OSError, match=message), Engine(path, 2, workers=2) as engine:
        engine.run(jobs(1, 2, work=killed))


def raising(number, note=None):
    raise ValueError("why it failed")


def held(path, number, note=None):
    yield {"key": number}
    while number > 1 and path.exists():
        time.sleep(0.01)


@pytest.mark.parametrize("stop", ["error of a job", "error of ours", "interrupt", "end of a process"])
def test_nothing_is_left_of_workers_behind_a_stop(path, stop):
    # A thread of theirs that lives on would meet queues that the interpreter has taken down. The processes of
    # whoever calls are none of ours.
    (sibling := get_context("spawn").Process(target=time.sleep, args=(100,))).start()
    threads, children = set(threading.enumerate()), set(active_children())
    error = {"error of a job": ValueError, "error of ours": KeyError, "interrupt": KeyboardInterrupt}
    work = {"error of a job": raising, "end of a process": killed}.get(stop)

    def on_finished(job):
        raise error[stop]

    try:
        with (
            pytest.raises(error.get(stop, OSError)),
            Engine(path, 3, workers=2, shared=() if work else (path,), on_finished=on_finished) as engine,
        ):
            engine.run(jobs(1, 2, 3, work=work or held))
        assert set(threading.enumerate()) == threads
        assert set(active_children()) == children == {sibling}
    finally:
        sibling.kill()
        sibling.join()


UNGUARDED = """
import sys
from kgat.experiments.engine import Engine, Job

def square(number, note):
    yield {"key": number, "square": number**2}

with Engine(sys.argv[1], 2, workers=2) as engine:
    engine.run([Job(number, "", square, (number,)) for number in (1, 2)])
"""


def test_a_script_that_is_not_guarded_is_told_so(tmp_path):
    # Its processes import it, and would wait there for jobs that their parent waits for.
    (script := tmp_path / "script.py").write_text(UNGUARDED)
    environment = {**os.environ, "PYTHONPATH": str(Path(kgat.__file__).parents[1])}
    ran = subprocess.run(
        [sys.executable, script, tmp_path / "results.jsonl"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 1
    assert "put what the script runs below if __name__ == '__main__':" in ran.stderr.splitlines()[-1]


STAYING = """
import os, sys, time
from pathlib import Path
from kgat.experiments.engine import Engine, Job

def stay(folder, number, note):
    (folder / f"{number}.pid").write_text(str(os.getpid()))
    while True:
        time.sleep(0.01)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with Engine(folder / "results.jsonl", 2, workers=2, shared=(folder,)) as engine:
        engine.run([Job(number, "", stay, (number,)) for number in (1, 2)])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_workers_of_a_killed_process_end_with_it(tmp_path):
    # Its claims are free from then on: they would write into the checkpoints of who takes the jobs over.
    (script := tmp_path / "script.py").write_text(STAYING)
    root = str(Path(kgat.__file__).resolve().parents[1])
    parent = subprocess.Popen([sys.executable, script, str(tmp_path)], env={**os.environ, "PYTHONPATH": root})
    notes = [tmp_path / f"{number}.pid" for number in (1, 2)]
    wait_until(lambda: all(note.exists() and note.read_text() for note in notes))
    workers = [int(note.read_text()) for note in notes]
    parent.kill()
    parent.wait()
    try:
        wait_until(lambda: not any(map(lives, workers)), seconds=20)
    finally:
        for worker in filter(lives, workers):
            os.kill(worker, signal.SIGKILL)


def wait_until(holds, seconds=120):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def lives(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{number}/stat")  # one that nobody waits for has ended, too
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match=r"Expected a folder that can be written .*--out"):
        Engine(tmp_path / "file" / "results.jsonl", 1).__enter__()


def test_the_bar_counts_all_jobs_and_says_what_came_out(path, capsys):
    def described(records):
        return [f"square {record['square']}" for record in records]

    for shown in (True, False):
        with Engine(path, 3, title="squares", shown=shown, describe=described) as engine:
            engine.run(jobs(1, 2))
            engine.run(jobs(3))
        err = capsys.readouterr().err
        assert ("2/3 job 2: square 4" in err, "3/3 job 3: square 9" in err) == (shown, shown)
    with Engine(path, 2, shown=True, describe=described, everywhere=True) as engine:
        engine.run(jobs(1, 4))
    assert capsys.readouterr().err.splitlines()[:2] == ["2/2 job 4", "square 16"]
