r"""How the package hangs together: one direction of imports, a light ``import kgat``, whole docstrings."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kgat
from kgat import kernels, models, nn, positions

PACKAGE = Path(kgat.__file__).parent
# A module may import from its own room and from those above it. The core ends with 'diagnostics'.
SMALL = ("arguments", "atomic", "indices", "hidden", "moved", "extras", "names", "measures")
ROOMS = (
    *SMALL,
    "score",
    "ops",
    "kernels",
    "functional",
    "positions",
    "nn",
    "loader",
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


@pytest.mark.quick
@pytest.mark.parametrize("module", [name for name in SOURCES if name != "kgat"])
def test_imports_point_one_way(module):
    assert room_of(module) in ROOMS, f"{module} has no room: add it to ROOMS"
    assert not list(misplaced(module)), f"{module} imports what stands below it"


@pytest.mark.quick
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


@pytest.mark.quick
@pytest.mark.parametrize("room", [room for room in ROOMS if room != "__main__"])
def test_each_room_is_among_the_quick_tests(room):
    tests = PACKAGE.parent / "tests"
    files = [*(tests / room).glob("test_*.py"), *tests.glob(f"test_{room}.py")]
    assert any("pytest.mark.quick" in file.read_text(encoding="utf8") for file in files)


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
        "kgat.experiments",
        "kgat.ops.gpu.launch",
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


@pytest.mark.quick
def test_public_names_are_found():
    for name in kgat.__all__:
        assert getattr(kgat, name) is not None
    assert set(kgat.__all__) <= set(dir(kgat))
    with pytest.raises(AttributeError, match="no attribute 'KernelGCN'"):
        kgat.KernelGCN


def test_rooms_are_attributes():
    rooms = [room for room in ROOMS if room not in (*SMALL, "cli", "__main__")]
    code = f"import kgat; print(*(getattr(kgat, name).__name__ for name in {rooms}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"kgat.{room}" for room in rooms]


def test_help_does_not_wait_for_torch():
    code = "import sys; from kgat.cli import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


KERNELS = [getattr(kernels, name) for name in kernels.__all__]
POSITIONS = [getattr(positions, name) for name in positions.names() if name != "none"]
CONTRACTS = (kernels.Kernel, positions.Position)


def public_classes():
    yield from (*KERNELS, *POSITIONS, positions.Position)
    yield from (getattr(nn, name) for name in nn.__all__)
    yield from (models.KernelGAT, models.KernelTransformer)
    yield from (models.SequenceClassifier, models.LanguageModel, models.Translator)


def undocumented(cls):
    r"""What the docstring of a class does not say. Of a kernel or a position, its contract (and the class it
    changes) says what holds for all: common arguments and shapes."""
    doc = inspect.getdoc(cls)
    said_above = [base for base in cls.__mro__[1:] if issubclass(base, CONTRACTS)]
    inherited = {name for base in said_above for name in inspect.signature(base).parameters}
    own = [p for p in inspect.signature(cls).parameters.values() if p.name not in inherited]
    for parameter in own:
        starred = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        shown = f"*{parameter.name}" if starred else f"{parameter.name} ("
        entry = re.search(rf"^    \*{{0,2}}{parameter.name} \(.*?(?=^    \S|^\S|\Z)", doc, re.S | re.M)
        if shown not in doc or entry is None:
            yield f"'{parameter.name}'"
        elif not starred and parameter.default is not parameter.empty and "(default:" not in entry[0]:
            yield f"the default of '{parameter.name}'"
    sections = ["Example:", *["Args:"] * bool(own), *["Shapes:"] * (not said_above)]
    if said_above and issubclass(cls, kernels.Kernel):
        sections += [".. math::", "Use it when ", *["<https://"] * (cls.__name__ in kernels.names())]
    yield from (f"'{section}'" for section in sections if section not in doc)


@pytest.mark.parametrize("cls", list(public_classes()), ids=lambda cls: cls.__name__)
def test_docstrings_are_whole(cls):
    assert not list(undocumented(cls))


def test_what_a_docstring_lacks_is_told():
    class Bare(kernels.RBF):
        r"""No formula.

        Args:
            first (int): Without a default.
        """

        def __init__(self, channels, heads=1, lengthscale=None, first=1, second=2):
            super().__init__(channels, heads, lengthscale)

    lacks = ["the default of 'first'", "'second'", "'Example:'", "'.. math::'", "'Use it when '"]
    assert list(undocumented(Bare)) == lacks


def test_version_is_in_the_changelog_or_unreleased():
    text = (PACKAGE.parent / "CHANGELOG.md").read_text(encoding="utf8")
    assert "## [Unreleased]" in text or f"## [{kgat.__version__}]" in text
