r"""Import paths of earlier versions: what was there is found where it is now, and a warning says where.

One table serves ``import``, ``from ... import``, ``python -m`` and pickles. Whoever moves something public
adds a line to it.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType
from typing import Any

__all__ = ["MODULES", "NAMES", "REPLACED", "OldPaths", "old_names"]

_EXPERIMENTS = (
    *("bench", "circumstances", "compare", "config", "costs", "pages", "plots", "records", "registry"),
    *("regression", "report", "sequences", "starts", "statistics", "tables", "training", "tuning"),
)
# Modules; those inside of a package move with it.
MODULES = {
    **{f"kgat.{name}": f"kgat.score.{name}" for name in ("gram", "rules", "scalar")},
    **{f"kgat.{name}": f"kgat.experiments.{name}" for name in _EXPERIMENTS},
    **{
        f"kgat.plots.{name}": "kgat.experiments.plots"
        for name in ("draw", "learned", "results", "series", "weights")
    },
    "kgat.shared": "kgat.experiments.ledger",
    "kgat.cli.stop": "kgat.cli.start",
    "kgat.datasets.listops": "kgat.datasets.sequences.listops",
    "kgat.installation": "kgat.testing.installation",
    "kgat.ops.cpu_cache": "kgat.ops.cpu.cache",
    "kgat.ops.cpu_fingerprint": "kgat.ops.cpu.graph",
    "kgat.ops.cpu_kernels": "kgat.ops.cpu.loops",
    "kgat.ops.cpu_math": "kgat.ops.cpu.math",
    "kgat.ops.cpu_runtime": "kgat.ops.cpu.runtime",
    "kgat.ops.cpu_sort": "kgat.ops.cpu.graph",
    "kgat.ops.gpu_kernels": "kgat.ops.gpu.loops",
    "kgat.ops.adjacency": "kgat.ops.graph.adjacency",
    "kgat.ops.fingerprint": "kgat.ops.graph.fingerprint",
    "kgat.ops.memory": "kgat.ops.graph.memory",
    "kgat.ops.structure": "kgat.ops.graph.structure",
    "kgat.ops.trial": "kgat.ops.gpu.trial",
}
_LEDGER = ("Interrupted", "append", "numbered", "read", "read_from", "read_results", "repair")
# Names that have left the module they were in, which asks 'old_names' for what it does not know.
NAMES = {
    **{f"kgat.records.{name}": f"kgat.experiments.ledger.{name}" for name in _LEDGER},
    "kgat.records.write_atomically": "kgat.atomic.write_atomically",
    "kgat.records.writing": "kgat.atomic.writing",
    "kgat.registry.converted": "kgat.names.converted",
    "kgat.bench.layers.paired": "kgat.experiments.bench.measure.paired",
    "kgat.sequences.fitting.DivergedError": "kgat.experiments.loop.Diverged",
    "kgat.shared.SharedResults": "kgat.experiments.ledger.Ledger",
    "kgat.models.StockGAT": "kgat.experiments.stock.StockGAT",
    "kgat.models.StockGATv2": "kgat.experiments.stock.StockGATv2",
    "kgat.models.kernel_gat.StockGAT": "kgat.experiments.stock.StockGAT",
    "kgat.models.kernel_gat.StockGATv2": "kgat.experiments.stock.StockGATv2",
}
# Names without a successor that is called in the same way, and what serves instead.
REPLACED = {
    "kgat.cli.stop.Stopped": "kgat.cli.start.main, which answers KeyboardInterrupt",
    "kgat.cli.stop.stoppable": "kgat.cli.start.main, which answers KeyboardInterrupt",
    "kgat.cli.terminal.progress_bar": "kgat.experiments.progress.progress",
    "kgat.tables.markdown": "kgat.experiments.table.render of kgat.experiments.tables.laid_out",
    "kgat.tables.rich_table": "kgat.experiments.table.terminal of kgat.experiments.tables.laid_out",
    "kgat.pages.markdown_table": "kgat.experiments.table.markdown",
}


def _warn(old: str, new: str, stacklevel: int) -> None:
    warnings.warn(
        f"'{old}' has moved to '{new}'; use the new path, as the old one will be removed",
        FutureWarning,
        stacklevel=stacklevel + 1,
    )


def old_names(module: str, instead: ModuleType | None = None) -> Callable[[str], Any]:
    r"""Returns a ``__getattr__`` for a module that has lost names.

    Args:
        module (str): The module's name.
        instead (module, optional): The module that is asked for all other names. (default: :obj:`None`)
    """

    def look_up(name: str) -> Any:
        old = f"{module}.{name}"
        if old in REPLACED:
            raise ImportError(f"'{old}' is no more; use {REPLACED[old]}")
        if old not in NAMES:
            if instead is not None:
                return getattr(instead, name)
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        _warn(old, NAMES[old], stacklevel=2)
        path, _, attribute = NAMES[old].rpartition(".")
        return getattr(import_module(path), attribute)

    return look_up


class OldPaths:
    r"""Finds modules at their old paths. It stands last in ``sys.meta_path``, where it is asked for modules
    alone that are nowhere."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        r"""Returns what loads a module that has moved, and :obj:`None` for any other."""
        old, inside = name, ""
        while old not in MODULES and old:
            old, dot, last = old.rpartition(".")
            inside = dot + last + inside
        new = MODULES.get(old, "") + inside
        try:
            spec = find_spec(new) if old else None
        except ModuleNotFoundError:  # of a package on the way
            spec = None
        if spec is None:
            return None
        loader: Any = _Elsewhere(new)
        return ModuleSpec(name, loader, is_package=spec.submodule_search_locations is not None)


class _Elsewhere:
    r"""Loads a stand-in, whose names are those of a module elsewhere. The module itself would do, if modules
    inside of a package were not loaded a second time from its path."""

    def __init__(self, new: str) -> None:
        self.new = new

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        _warn(module.__name__, self.new, stacklevel=2)
        new = import_module(self.new)
        public = [name for name in vars(new) if not name.startswith("_")]
        vars(module).update(
            __doc__=new.__doc__,
            __all__=getattr(new, "__all__", public),
            __getattr__=old_names(module.__name__, new),
            __dir__=partial(dir, new),
        )

    def get_code(self, name: str) -> CodeType | None:
        r"""Returns the code that ``python -m`` runs."""
        _warn(name, self.new, stacklevel=2)
        spec = find_spec(self.new)
        return spec.loader.get_code(self.new) if spec else None  # type: ignore[union-attr]
