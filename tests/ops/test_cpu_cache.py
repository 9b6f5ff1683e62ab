"""Compiled code on disk: whatever happened to it, the next run computes the same."""

import logging
import os

import numba
import numpy as np
import pytest
import torch
import warm_process

from kgat import KernelGATConv
from kgat.ops.cpu import cache as cpu_cache
from kgat.ops.cpu import graph, launch, machine
from kgat.ops.cpu.cache import CodeFiles, code_folder
from kgat.ops.cpu.compiler import CompileError
from kgat.ops.cpu.kept import CodeCache, kept_on_disk
from kgat.ops.cpu.runtime import Loop, pointer
from kgat.ops.graph import device
from kgat.ops.notice import warn_once

_i64 = np.int64(0)


def _count(begin, end, ctx):
    pointer(ctx[0], _i64)[0] += end - begin


def _double(x):
    return 2 * x


ENGINES = []


def forget():
    """Lets the next loop be loaded as in a new process, where no code has a name yet."""
    ENGINES.append(machine._engine())  # whose code others hold addresses of
    Loop._loaded.clear()
    machine._engine.cache_clear()


def run():
    """Runs a loop and a function as a new process would, and returns how many were compiled."""
    before, total = Loop.compiled, torch.zeros(1, dtype=torch.int64)
    forget()
    loop = Loop(_count, "a loop that counts", "its key")
    loop.run([total], 3)
    assert total.item() == 3
    double = kept_on_disk()(_double)
    assert double(21) == 42
    return Loop.compiled - before + sum(double.stats.cache_misses.values())


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))
    warn_once.cache_clear()
    return tmp_path


def files(folder):
    return sorted(path for path in folder.rglob("*.code") if path.is_file())


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
    lines = [line for line in (record.getMessage() for record in caplog.records) if "cannot keep" in line]
    assert len(lines) == len(set(lines)) == 2  # of the folder of loops and of that of Numba
    assert run() == 2
    assert run() == 0


def test_no_folder_at_all(folder, monkeypatch):
    file = folder / "a file"
    file.touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(file))
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(file))
    locators = [
        locator for locator in numba.core.caching.CacheImpl._locator_classes if "User" in locator.__name__
    ]
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", locators)
    monkeypatch.setattr(numba.misc.appdirs, "user_cache_dir", lambda *_, **__: str(file))
    assert code_folder() is None
    assert run() == 2
    assert run() == 2


def test_a_user_without_a_home(folder, monkeypatch):
    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert code_folder() == folder
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setattr(os, "access", lambda *_: False)  # nor can it write beside the package
    assert code_folder() is None


@pytest.mark.parametrize("kernel", ["rbf", "spectral"])
def test_where_nothing_can_be_compiled_torch_computes(kernel, monkeypatch):
    def fail(*_):
        raise CompileError("Expected the source of 'loop'")

    conv, x, edge_index = KernelGATConv(4, 2, kernel=kernel), torch.randn(9, 4), torch.randint(9, (2, 30))
    expected = conv(x, edge_index)
    caches = (
        launch.available,
        launch._compiled,
        *(graph._sorting, graph.scanning, device._by_llvm),
    )
    monkeypatch.setattr("kgat.ops.cpu.runtime.modules_of", fail)
    monkeypatch.setenv("NUMBA_CACHE_DIR", os.devnull)
    forget()
    for cache in caches:
        cache.cache_clear()
    try:
        assert "the source of" in launch.available()
        conv(x, edge_index.clone()).sum().backward()
        torch.testing.assert_close(conv(x, edge_index.clone()), expected)
    finally:
        for cache in caches:
            cache.cache_clear()


def test_a_folder_that_vanishes(folder, monkeypatch, caplog):
    def gone(*_):
        raise PermissionError(13, "Permission denied")

    cache = CodeCache(_double)
    monkeypatch.setattr(type(cache._impl.locator), "ensure_cache_path", gone)
    double = numba.njit(_double)
    double._cache = cache
    assert double(21) == 42
    assert "Permission denied" in caplog.text


def test_other_versions_have_other_files(folder, monkeypatch):
    assert run() == 2
    with monkeypatch.context() as patch:
        patch.setattr(numba, "__version__", "0.0.0")
        patch.setattr(machine, "stamp", lambda: "another processor")
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
        "    for path in test.files(test.code_folder()):\n"
        "        if n % 3 == 0:\n"
        "            path.unlink(missing_ok=True)\n"
    )
    processes = [warm_process.Process(code, NUMBA_CACHE_DIR=str(folder)) for _ in range(3)]
    for process in processes:
        _, error = process.communicate()
        assert process.returncode == 0, error
        assert "damaged" not in error
    run()
    assert run() == 0
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".code", ".lock"}


def test_processes_that_start_at_once_compile_once(folder):
    code = (
        "import sys, torch\n"
        "from kgat.functional import edge_attention\n"
        "from kgat.kernels import Laplace\n"
        "x = torch.rand(2, 1, 3, requires_grad=True)\n"
        "gram, edges = Laplace(3)(x, x), torch.tensor([[0], [1]])\n"
        "from kgat.ops.cpu.runtime import Loop\n"
        "before = Loop.compiled\n"
        "print(flush=True); sys.stdin.readline()\n"
        "edge_attention(gram, x, edges, backend='cpu').sum().backward()\n"
        "print(Loop.compiled - before)\n"
    )
    processes = [warm_process.Process(code, NUMBA_CACHE_DIR=str(folder)) for _ in range(3)]
    for process in processes:
        process.stdout.readline()
    known = set(
        files(folder)
    )  # the process that these are forks of may have compiled some, here or elsewhere
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    counts = [int(process.communicate()[0]) for process in processes]
    assert sum(counts) == len(set(files(folder)) - known) > 0


def test_code_that_nobody_reads_is_removed(tmp_path):
    files = CodeFiles(tmp_path, "kgat.f", "one")
    for key in ("used", "left"):
        files.write(key, b"code")
        os.utime(files.path(key), (0, 0))
    of_others = tmp_path / "other.code"
    of_others.write_bytes(b"")
    os.utime(of_others, (0, 0))
    assert files.read("used") == b"code"
    cpu_cache._swept.discard(tmp_path)  # as a later process finds it
    CodeFiles(tmp_path, "kgat.g", "two").write("new", b"code")
    names = {path.name for path in tmp_path.glob("*.code")}
    assert names == {
        files.path("used").name,
        CodeFiles(tmp_path, "kgat.g", "two").path("new").name,
        "other.code",
    }
