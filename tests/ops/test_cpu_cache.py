"""Compiled code on disk: whatever happened to it, the next run computes the same."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from kgat.ops.cpu import cache as cpu_cache
from kgat.ops.cpu.cache import CodeFiles, cache_of
from kgat.ops.cpu.math import kept_on_disk
from kgat.ops.cpu.runtime import Loop, pointer

_i64 = np.int64(0)


def _count(begin, end, ctx):
    pointer(ctx[0], _i64)[0] += end - begin


def _double(x):
    return 2 * x


def run():
    """Runs a loop and a function as a new process would, and returns how many were compiled."""
    before, total = Loop.compiled, torch.zeros(1, dtype=torch.int64)
    loop = Loop(_count, "a loop that counts", "its key")
    loop.run([total], 3)
    assert total.item() == 3
    double = kept_on_disk()(_double)
    assert double(21) == 42
    return Loop.compiled - before + sum(double.stats.cache_misses.values())


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cpu_cache, "_said", set())
    return tmp_path


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


DAMAGES = {
    "emptied": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "a byte short": lambda content: content[:-1],
    "a bit flipped": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "another file": lambda content: b"\x80\x04N." * 30,
    "head alone": lambda content: content[:20],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_damaged_is_compiled_again_with_one_line_each(damage, folder, caplog):
    assert run() == 2
    assert run() == 0
    before = {path: path.read_bytes() for path in files(folder)}
    assert len(before) == 2
    for path, content in before.items():
        path.write_bytes(DAMAGES[damage](content))
    with caplog.at_level(logging.WARNING, "kgat"):
        assert run() == 2
    lines = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert len(lines) == 2
    for path in before:
        assert sum(str(path) in line for line in lines) == 1
    assert run() == 0
    assert files(folder) == sorted(before)


def test_a_folder_in_place_of_a_file(folder, caplog):
    assert run() == 2
    for path in files(folder):
        path.unlink()
        path.mkdir()
    assert run() == 2
    assert "cannot" in caplog.text


def test_a_write_that_fails_leaves_nothing_behind(folder, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert run() == 2
    assert not files(folder)
    assert "No space left" in caplog.text
    assert sum("cannot keep" in record.getMessage() for record in caplog.records) == 1
    assert run() == 2
    assert run() == 0


def test_no_folder_at_all(folder, monkeypatch):
    file = folder / "a file"
    file.touch()
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(file))
    locators = [
        locator for locator in numba.core.caching.CacheImpl._locator_classes if "User" in locator.__name__
    ]
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", locators)
    monkeypatch.setattr(numba.misc.appdirs, "user_cache_dir", lambda *_, **__: str(file))
    assert cache_of(_double) is None
    assert run() == 2
    assert run() == 2


def test_a_folder_that_vanishes(folder, monkeypatch, caplog):
    def gone(*_):
        raise PermissionError(13, "Permission denied")

    cache = cache_of(_double)
    monkeypatch.setattr(type(cache._impl.locator), "ensure_cache_path", gone)
    double = numba.njit(_double)
    double._cache = cache
    assert double(21) == 42
    assert "Permission denied" in caplog.text


def test_another_version_of_numba_has_other_files(folder, monkeypatch):
    assert run() == 2
    with monkeypatch.context() as patch:
        patch.setattr(numba, "__version__", "0.0.0")
        assert run() == 2
        assert run() == 0
    assert run() == 0
    assert len(files(folder)) == 4


def test_keys_and_sources_have_other_files(folder):
    paths = {CodeFiles(str(folder), "f", stamp).path(key) for stamp in ("one", "two") for key in (1, 2)}
    assert len(paths) == 4


def test_several_processes_write_at_once(folder):
    code = (
        "import test_cpu_cache as test\n"
        "for n in range(20):\n"
        "    test.run()\n"
        "    for path in test.files(test.Path(test.numba.core.config.CACHE_DIR)):\n"
        "        if n % 3 == 0:\n"
        "            path.unlink(missing_ok=True)\n"
    )
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH"), os.getcwd()])]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join(paths)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code], env=environment, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    for process in processes:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error.decode()
        assert b"damaged" not in error
    run()
    assert run() == 0
    assert all(path.suffix == ".code" for path in files(folder))
