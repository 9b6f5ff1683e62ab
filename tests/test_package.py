r"""How the package hangs together: one direction of imports, a light ``import kgat``, whole docstrings."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import kgat
from kgat import kernels, models, nn, positions

PACKAGE = Path(kgat.__file__).parent
# A module may import what stands above it, and its own room.
ROOMS = [
    ["scalar", "records", "shared", "circumstances", "statistics", "pages"],
    ["rules"],
    ["gram"],
    ["ops"],
    ["kernels"],
    ["functional"],
    ["positions"],
    ["nn"],
    ["models"],
    ["testing", "installation"],
    ["datasets"],
    ["registry", "config"],
    ["training"],
    ["tuning"],
    ["diagnostics"],
    ["costs"],
    ["tables"],
    ["compare", "plots", "report", "regression", "bench", "sequences", "starts"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, room in enumerate(ROOMS) for name in room}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            yield path, parts[0]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "kgat":
            yield from (f"kgat.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module


@pytest.mark.parametrize(("path", "room"), list(modules()), ids=lambda x: getattr(x, "name", x))
def test_imports_point_one_way(path, room):
    assert room in RANK, f"{path.name} has no room: add it to ROOMS"
    for name in imported(path):
        if name.startswith("kgat.") and (target := name.split(".")[1]) in RANK:
            assert RANK[target] <= RANK[room], f"{path.name} imports kgat.{target}"


def test_import_brings_no_heavy_extras():
    heavy = [
        "matplotlib",
        "sklearn",
        "pandas",
        "networkx",
        "ogb",
        "typer",
        "rich",
        "kgat.datasets",
        "kgat.plots",
    ]
    code = (
        "import sys, torch_geometric; before = set(sys.modules); "
        "import kgat; kgat.KernelGATConv, kgat.KernelGAT; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    new = done.stdout.split()
    assert "kgat" in new
    assert not [name for name in heavy if name in new]


def test_what_reads_and_draws_results_needs_no_torch():
    code = "import sys, kgat.records, kgat.pages, kgat.plots; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_public_names_are_found():
    for name in kgat.__all__:
        assert getattr(kgat, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'KernelGCN'"):
        kgat.KernelGCN


def test_help_does_not_wait_for_torch():
    code = "import sys; from kgat.cli import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def public_classes():
    yield from (getattr(kernels, name) for name in kernels.__all__)
    yield from (getattr(nn, name) for name in nn.__all__)
    yield from (getattr(positions, name) for name in positions.names() if name != "none")
    yield from (positions.Position, models.KernelGAT, models.KernelTransformer)
    yield from (models.SequenceClassifier, models.LanguageModel, models.Translator)


@pytest.mark.parametrize("cls", list(public_classes()), ids=lambda cls: cls.__name__)
def test_docstrings_are_whole(cls):
    doc = inspect.getdoc(cls)
    for section in ("Args:", "Shapes:", "Example:"):
        assert section in doc, f"{cls.__name__} has no section {section}"
    signature = inspect.signature(cls.__init__)
    for name, parameter in list(signature.parameters.items())[1:]:
        kinds = (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        shown = f"*{name}" if parameter.kind in kinds else f"{name} ("
        assert shown in doc, f"{cls.__name__} does not document '{name}'"


def test_version_is_in_the_changelog_or_unreleased():
    text = (PACKAGE.parent / "CHANGELOG.md").read_text(encoding="utf8")
    assert "## [Unreleased]" in text or f"## [{kgat.__version__}]" in text
