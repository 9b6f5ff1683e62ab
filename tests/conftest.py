import gc
import os
import random
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

# Inductor would start compilers of its own beside the test processes, each of which imports torch.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def pytest_collection_finish():
    r"""Has the collector leave out torch and the tests: a look through them takes half a second."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def own_root(tmp_path_factory):
    r"""Keeps what tests write by default out of the user's own data folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KGAT_DATA", str(tmp_path_factory.mktemp("kgat_data")))
        yield


@pytest.fixture(autouse=True)
def same_draws():
    r"""Has each test draw the same numbers, whichever ran before it in its process."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # what PyG draws with
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    r"""A folder like that of the real raw data, with a link to each of its files.

    Links, because loading may write splits and downloads, and must not do so among the originals.
    """
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    origin = Path(os.environ.get("KGAT_TEST_DATA", default))
    if not origin.is_dir():
        pytest.skip(f"needs the raw data sets: no folder {origin}; set KGAT_TEST_DATA")
    root = tmp_path_factory.mktemp("data")
    for folder, _, files in os.walk(origin):
        target = root / Path(folder).relative_to(origin)
        target.mkdir(exist_ok=True)
        for file in files:
            (target / file).symlink_to(Path(folder) / file)
    return root


@pytest.fixture
def warm_workers(monkeypatch):
    r"""Has benchmarks ask processes that need not import torch, which takes seconds."""
    import warm_process

    from kgat.experiments.bench import worker

    # In a process that is there, functions of the allocator say what the variables of a regime would have.
    said = {"R2": "recycles", "memory": "gives_back"}

    class Popen(warm_process.Process):
        def __init__(self, command, *, env, stderr, **_):
            regime = {n: v for n, v in env.items() if n.startswith("MALLOC_")}
            word = said.get(next(name for name, its in worker.REGIMES.items() if its == regime), "")
            super().__init__(WORKER, word, *command[3:], **env)
            self._errors = stderr

        def wait(self):
            self._process.join()
            self._errors.write(self.stderr.read())
            return self.returncode

        def poll(self):
            return self.returncode

    monkeypatch.setattr(worker, "subprocess", SimpleNamespace(Popen=Popen, PIPE=subprocess.PIPE))


WORKER = """
import os, sys
from kgat.experiments import allocator
from kgat.experiments.bench.worker import main

os.setsid()  # a group of its own
if word := sys.argv.pop(1):
    getattr(allocator, word)()
main()
"""
