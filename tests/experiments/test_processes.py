import os
import resource
import sys

import pytest
import torch

from kgat.experiments import allocator, processes
from kgat.experiments.engine import Engine, Job

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")


def of_process(name):
    return os.environ.get(name), torch.get_num_threads(), os.getpid(), os.getppid()


def test_a_process_knows_what_this_one_does_now(monkeypatch):
    # Also if what it is a fork of was started before.
    for value in ("first", "second"):
        monkeypatch.setenv("KGAT_TEST", value)
        known, threads, *_ = processes.alone(of_process, "KGAT_TEST", threads=1)
        assert (known, threads) == (value, 1)
    monkeypatch.delenv("KGAT_TEST")
    assert processes.alone(of_process, "KGAT_TEST", threads=1)[0] is None


@linux
def test_with_one_thread_they_are_forks_of_one_server():
    answers = [processes.alone(of_process, "PATH", threads=1) for _ in range(2)]
    (_, _, first, server), (_, _, second, same) = answers
    assert first != second
    assert os.getpid() not in (server, same)
    assert server == same


@linux
def test_with_several_threads_each_is_started_anew():
    assert processes.alone(of_process, "PATH", threads=2)[1::2] == (2, os.getpid())


def failing():
    raise ValueError("Expected another (got this)")


def test_what_is_raised_there_arrives():
    with pytest.raises(ValueError, match=r"Expected another \(got this\)"):
        processes.alone(failing, threads=1)


class OfTwo(Exception):
    def __init__(self, text, number):
        super().__init__(text)
        self.number = number


def failing_by_its_own(*_, note=None):
    raise OfTwo("this is why", 2)


def test_an_error_that_cannot_be_sent_arrives_in_words(tmp_path):
    # Python cannot make it anew here, for which it takes the process to be broken.
    with pytest.raises(RuntimeError, match=r"OfTwo: this is why"):
        processes.alone(failing_by_its_own, threads=1)
    jobs = [Job(number, "", failing_by_its_own) for number in (1, 2)]
    with (
        pytest.raises(RuntimeError, match=r"OfTwo: this is why"),
        Engine(tmp_path / "a.jsonl", 2, workers=2) as engine,
    ):
        engine.run(jobs)


def faults(kept):
    assert allocator.recycles() if kept else allocator.gives_back()
    before = 0
    for number in range(40):
        if number == 20:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(1024, 1024)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@linux
def test_freed_memory_stays_or_goes():
    assert processes.alone(faults, True, threads=1) < 20
    assert processes.alone(faults, False, threads=1) > 20 * 512
