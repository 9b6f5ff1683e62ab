r"""What version 0.1.0 had at other paths is still found there, with a warning that names the new one."""

import pickle
import runpy
import sys
from importlib import import_module

import pytest

import kgat
from kgat import moved

# Written down: a path that leaves the table is a broken program of a user.
OLD_MODULES = (
    *("circumstances", "compare", "config", "costs", "gram", "installation", "pages", "records", "registry"),
    *("regression", "report", "rules", "scalar", "shared", "starts", "statistics", "tables", "training"),
    *("tuning", "bench", "plots", "sequences", "datasets.listops", "cli.stop"),
    *(f"bench.{name}" for name in ("epoch", "layers", "measure", "ops", "report", "rivals", "scenarios")),
    *(f"bench.{name}" for name in ("sequences", "worker")),
    *(f"ops.cpu_{name}" for name in ("cache", "fingerprint", "kernels", "math", "runtime", "sort")),
    *(f"ops.{name}" for name in ("adjacency", "fingerprint", "gpu_kernels", "memory", "structure", "trial")),
    *(f"plots.{name}" for name in ("draw", "learned", "look", "results", "selection", "series", "weights")),
    *(f"sequences.{name}" for name in ("fitting", "papers", "runs", "tables")),
)
NEEDS = {"ops.gpu_kernels": "triton"}


@pytest.fixture
def forgotten():
    r"""Lets old paths be imported as if for the first time."""

    def forget():
        for name in sorted(name for name in sys.modules if name.startswith("kgat.")):
            loader = getattr(sys.modules[name].__spec__, "loader", None)
            if isinstance(loader, moved._Elsewhere):
                parent, _, child = name.rpartition(".")
                del sys.modules[name]
                vars(sys.modules.get(parent, kgat)).pop(child, None)

    forget()
    yield
    forget()


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("name", OLD_MODULES)
def test_old_modules_are_found(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    with pytest.warns(FutureWarning, match=rf"'kgat.{name}' has moved to 'kgat\.\w+\.[\w.]+'") as warned:
        old = import_module(f"kgat.{name}")
    (message,) = (str(w.message) for w in warned if str(w.message).startswith(f"'kgat.{name}' has moved"))
    new = import_module(message.split("'")[3])
    public = [key for key in vars(new) if not key.startswith("_")]
    assert old.__doc__ == new.__doc__
    assert all(getattr(old, key) is getattr(new, key) for key in public)
    assert set(public) <= set(dir(old))


@pytest.mark.usefixtures("forgotten")
@pytest.mark.filterwarnings("ignore:'kgat.\\w+' has moved:FutureWarning")
@pytest.mark.parametrize("old", moved.NAMES)
def test_old_names_are_found(old):
    name, new_name = (path.rpartition(".")[2] for path in (old, moved.NAMES[old]))
    module = import_module(old.rpartition(".")[0])
    with pytest.warns(FutureWarning, match=f"'{old}' has moved to '{moved.NAMES[old]}'") as warned:
        thing = getattr(module, name)
    assert thing.__name__ == new_name
    assert [warning.filename for warning in warned] == [__file__]
    assert name not in dir(module)


@pytest.mark.usefixtures("forgotten")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("old", moved.REPLACED)
def test_names_without_a_successor_say_what_serves(old):
    module, _, name = old.rpartition(".")
    with pytest.raises(ImportError, match=f"'{old}' is no more; use kgat"):
        exec(f"from {module} import {name}")
    for path in moved.REPLACED[old].partition(",")[0].split(" of "):
        new_module, _, new_name = path.rpartition(".")
        assert callable(getattr(import_module(new_module), new_name))


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("line", ["import kgat.gram", "from kgat import gram", "from kgat.plots import draw"])
def test_warnings_point_at_the_import(line):
    with pytest.warns(FutureWarning) as warned:
        exec(compile(line, "program of a user", "exec"), {})
    assert {warning.filename for warning in warned} == {"program of a user"}


@pytest.mark.usefixtures("forgotten")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_all_names_of_an_old_module_at_once():
    names = {}
    exec("from kgat.gram import *", names)
    assert names["LazyGram"] is kgat.score.gram.LazyGram


@pytest.mark.usefixtures("forgotten")
def test_old_pickles_are_read():
    content = pickle.dumps(kgat.experiments.config.Config.of("digits", "gat", 0), protocol=0)
    with pytest.warns(FutureWarning, match="kgat.experiments.config"):
        config = pickle.loads(content.replace(b"kgat.experiments.config", b"kgat.config"))
    assert config == kgat.experiments.config.Config.of("digits", "gat", 0)


@pytest.mark.usefixtures("forgotten")
def test_old_programs_run():
    with pytest.warns(FutureWarning, match=r"'kgat.starts' has moved to 'kgat.experiments.starts'"):
        names = runpy.run_module("kgat.starts", run_name="program")
    assert names["__doc__"] == import_module("kgat.experiments.starts").__doc__


@pytest.mark.quick
@pytest.mark.parametrize("name", ["kgat.grams", "kgat.plots.no_such_module", "kgat.rules.inside"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_was_nowhere_is_not_found(name):
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{name}'"):
        import_module(name)
