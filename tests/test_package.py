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
# A module may import from its own room and from those above it. The core ends with 'diagnostics'.
ROOMS = (
    "atomic",
    "moved",
    "extras",
    "names",
    "score",
    "ops",
    "kernels",
    "functional",
    "positions",
    "nn",
    "models",
    "testing",
    "datasets",
    "diagnostics",
    "experiments",
    "cli",
    "__main__",
)


def module_of(path):
    parts = ("kgat", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module, sources=SOURCES):
    r"""The modules of kgat that a module imports, wherever in it; a name of a package counts as the package's
    own unless there is a module of this name."""
    for node in ast.walk(ast.parse(sources[module].read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in sources else node.module for name in inside]
        else:
            continue
        yield from (name for name in names if name in sources)


def room_of(module):
    return module.split(".")[1] if "." in module else ""


def misplaced(module, sources=SOURCES):
    room = room_of(module)
    for target in imports_of(module, sources):
        if (other := room_of(target)) and ROOMS.index(other) > ROOMS.index(room):
            yield target


def circles(sources=SOURCES):
    r"""Circles of modules, each once. A package and the modules in it are imported together, so that what a
    package's own file imports of itself is no circle unless these modules ask for the package."""
    # The package itself looks its names up when they are asked for.
    arrows = {module: sorted(set(imports_of(module, sources)) - {module}) for module in sources}
    arrows["kgat"] = []
    state, path, circles_of = {}, [], []

    def visit(module):
        state[module] = "open"
        path.append(module)
        for target in arrows[module]:
            if state.get(target) == "open":
                circles_of.append([*path[path.index(target) :], target])
            elif target not in state:
                visit(target)
        path.pop()
        state[module] = "done"

    for module in sources:
        if module not in state:
            visit(module)
    return circles_of


@pytest.mark.parametrize("module", [name for name in SOURCES if name != "kgat"])
def test_imports_point_one_way(module):
    assert room_of(module) in ROOMS, f"{module} has no room: add it to ROOMS"
    assert not list(misplaced(module)), f"{module} imports what stands below it"


def test_no_modules_import_each_other():
    assert not [" -> ".join(circle) for circle in circles()]


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("kgat.score.gram", "from kgat.experiments.ledger import read", "misplaced"),
        ("kgat.nn.linear", "def later():\n    import kgat.experiments.config", "misplaced"),
        ("kgat.score.scalar", "from kgat.score.rules import Pair", "circle"),
        ("kgat.experiments.records", "from kgat.experiments import ledger", "circle"),
    ],
)
def test_planted_imports_are_noticed(module, line, fault, tmp_path):
    planted = tmp_path / "planted.py"
    planted.write_text(f"{SOURCES[module].read_text(encoding='utf8')}\n{line}\n", encoding="utf8")
    sources = {**SOURCES, module: planted}
    if fault == "misplaced":
        assert list(misplaced(module, sources))
    else:
        assert any(module in circle for circle in circles(sources))


LONGEST_FUNCTION, LONGEST_CLASS = 80, 350  # lines; of a function without its docstring
LOOPS = {
    "kgat.ops.cpu.loops",
    "kgat.ops.gpu.loops",
}  # sources of other compilers, which have no calls to make


def too_long(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            lines, longest = node.end_lineno - node.lineno + 1, LONGEST_CLASS
            if not isinstance(node, ast.ClassDef):
                longest = LONGEST_FUNCTION
                lines -= len((ast.get_docstring(node, clean=False) or "").splitlines())
            if lines > longest:
                yield f"{node.name}: {lines} lines"


@pytest.mark.parametrize("module", [name for name in SOURCES if name not in LOOPS])
def test_functions_and_classes_fit_in_a_head(module):
    assert not list(too_long(ast.parse(SOURCES[module].read_text(encoding="utf8"))))


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
        "kgat.experiments.plots",
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
    modules = "kgat.experiments.ledger, kgat.experiments.pages, kgat.experiments.plots"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_public_names_are_found():
    for name in kgat.__all__:
        assert getattr(kgat, name) is not None
    assert set(kgat.__all__) <= set(dir(kgat))
    with pytest.raises(AttributeError, match="no attribute 'KernelGCN'"):
        kgat.KernelGCN


def test_rooms_are_attributes():
    rooms = [room for room in ROOMS if room not in ("atomic", "extras", "moved", "cli", "__main__")]
    code = f"import kgat; print(*(getattr(kgat, name).__name__ for name in {rooms}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"kgat.{room}" for room in rooms]


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
