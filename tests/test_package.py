r"""How the package hangs together: one direction of imports, a light ``import kgat``, whole docstrings."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kgat
from kgat import datasets, diagnostics, functional, kernels, loader, models, nn, positions, testing

PACKAGE = Path(kgat.__file__).parent
# A module may import from its own room and from those above it. The core ends with 'diagnostics'. DESIGN.md
# says in a table what each is for.
SMALL = (
    "arguments",
    "atomic",
    "brief",
    "capture",
    "extras",
    "hidden",
    "indices",
    "measures",
    "moved",
    "names",
)
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


# What sorts and compares edges asks for compiled loops by name, when a graph is there: the rooms of devices,
# which have them, import 'graph', so that a line at the head of the module would close a circle.
BY_NAME = (
    ("kgat.ops.graph.device", "kgat.ops.cpu.graph"),
    ("kgat.ops.graph.fingerprint", "kgat.ops.gpu.launch"),
)


def imports_of(module, sources=SOURCES):
    r"""The modules of kgat that a module imports, wherever in it, and those it names to 'import_module'. A
    name of a package counts as the package's own unless there is a module of this name."""
    package = module if sources[module].stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(sources[module].read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*above, *[node.module] * (node.module is not None)])
            inside = [f"{source}.{alias.name}" for alias in node.names]
            names = [name if name in sources else source for name in inside]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            names = [node.args[0].value] * (called in ("import_module", "__import__"))
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


def circles(sources=SOURCES, but=BY_NAME):
    r"""Circles of modules, each once. A package and the modules in it are imported together, so that what a
    package's own file imports of itself is no circle unless these modules ask for the package."""
    arrows = {
        module: sorted(
            target for target in set(imports_of(module, sources)) - {module} if (module, target) not in but
        )
        for module in sources
    }
    # The package itself looks its names up when they are asked for.
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


@pytest.mark.parametrize(("module", "target"), BY_NAME)
def test_what_is_asked_for_by_name_would_be_a_circle(module, target):
    r"""No exception without need. A module comes with the file of its package."""
    assert target in imports_of(module)
    reached, ahead = set(), [target, target.rpartition(".")[0]]
    while ahead:
        if (found := ahead.pop()) not in reached:
            reached.add(found)
            ahead += imports_of(found)
    assert module in reached


@pytest.mark.quick
def test_the_table_of_rooms_is_that_of_the_imports():
    text = (PACKAGE.parent / "DESIGN.md").read_text(encoding="utf8")
    rows = re.findall(r"^\| (`[^|]+) \|", text.partition("\n## Rooms\n")[2].partition("\n## ")[0], re.M)
    assert tuple(name for row in rows for name in re.findall(r"`(\w+)/?`", row)) == ROOMS


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("kgat.score.gram", "from ..experiments.ledger import read", "misplaced"),
        ("kgat.score.gram", "from ..experiments import ledger", "misplaced"),
        ("kgat.nn.linear", "importlib.import_module('kgat.experiments.config').Config", "misplaced"),
        ("kgat.score.scalar", "def later():\n    return import_module('kgat.score.rules')", "circle"),
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
    yield from (item for name in nn.__all__ if isinstance(item := getattr(nn, name), type))
    yield from (item for name in models.__all__ if isinstance(item := getattr(models, name), type))


def public_functions():
    r"""Those of the rooms that list their names; 'functional' defines what it offers."""
    for room in (functional, positions, loader, testing, datasets, diagnostics):
        names = getattr(room, "__all__", [name for name in vars(room) if not name.startswith("_")])
        items = [getattr(room, name) for name in names]
        yield from (
            item for item in items if inspect.isfunction(item) and item.__module__.startswith(room.__name__)
        )


def unexplained(parameters, doc):
    r"""Which parameters, or defaults of them, have no entry under 'Args'. An entry may be of several."""
    for parameter in parameters:
        name = re.escape(parameter.name)
        starred = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        head = rf"\*{{1,2}}{name}(?: \(|:)" if starred else rf"(?:\w+, )*{name}(?:, \w+)* \("
        entry = re.search(rf"^    {head}.*?(?=^    \S|^\S|\Z)", doc, re.S | re.M)
        if entry is None:
            yield f"'{parameter.name}'"
        elif not starred and parameter.default is not parameter.empty and "(default:" not in entry[0]:
            yield f"the default of '{parameter.name}'"


def undocumented(cls):
    r"""What the docstring of a class does not say. Of a kernel or a position, its contract (and the class it
    changes) says what holds for all: common arguments and shapes."""
    doc = inspect.getdoc(cls)
    said_above = [base for base in cls.__mro__[1:] if issubclass(base, CONTRACTS)]
    inherited = {name for base in said_above for name in inspect.signature(base).parameters}
    own = [p for p in inspect.signature(cls).parameters.values() if p.name not in inherited]
    yield from unexplained(own, doc)
    sections = ["Example:", *["Args:"] * bool(own), *["Shapes:"] * (not said_above)]
    if said_above and issubclass(cls, kernels.Kernel):
        sections += [".. math::", "Use it when ", *["<https://"] * (cls.__name__ in kernels.names())]
    yield from (f"'{section}'" for section in sections if section not in doc)


def undocumented_function(function):
    r"""Which arguments the docstring of a function does not explain. What it passes on by '**options' may
    stand there by names."""
    doc, parameters = inspect.getdoc(function) or "", inspect.signature(function).parameters
    entries = re.findall(r"^    \*{0,2}(\w+)(?:, \*{0,2}\w+)* ?[(:]", doc.partition("Args:")[2], re.M)
    passed_on = set(entries) - set(parameters)
    own = [p for p in parameters.values() if not (p.kind is p.VAR_KEYWORD and passed_on)]
    yield from unexplained(own, doc)
    if own and "Args:" not in doc:
        yield "'Args:'"


@pytest.mark.parametrize("cls", list(public_classes()), ids=lambda cls: cls.__name__)
def test_docstrings_are_whole(cls):
    assert not list(undocumented(cls))


@pytest.mark.parametrize("function", list(public_functions()), ids=lambda function: function.__name__)
def test_docstrings_of_functions_explain_all_arguments(function):
    assert not list(undocumented_function(function))


def test_what_a_docstring_of_a_function_lacks_is_told():
    def bare(first, second, third=3, **options):
        r"""Nothing much.

        Args:
            first, second (int): Two numbers.
            third (int, optional): A third.

        Example:
            >>> bare(1, 2)
        """

    assert list(undocumented_function(bare)) == ["the default of 'third'", "'options'"]
    bare.__doc__ = "Nothing at all."
    assert list(undocumented_function(bare))[-1] == "'Args:'"


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


KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def faults(changelog, version):
    r"""Where a changelog is not of the form of Keep a Changelog, or of an older version than the package."""
    _, *parts = re.split(r"^## ", changelog, flags=re.M)
    heads = [part.split("\n", 1)[0] for part in parts]
    releases = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", head) for head in heads[1:]]
    if not heads or heads[0] != "[Unreleased]" or None in releases:
        yield f"headings {heads}"
        return
    numbers = [tuple(int(number) for number in release.groups()) for release in releases]
    if numbers != sorted(set(numbers), reverse=True):
        yield f"the order of {heads}"
    if numbers and tuple(int(number) for number in version.split(".")) < numbers[0]:
        yield f"version {version} of the package"
    for head, part in zip(heads, parts, strict=True):
        kinds = re.findall(r"^### (.*)", part, re.M)
        if kinds != [kind for kind in KINDS if kind in kinds]:
            yield f"{head}: {kinds}"


def test_the_changelog_keeps_its_form():
    assert not list(faults((PACKAGE.parent / "CHANGELOG.md").read_text(encoding="utf8"), kgat.__version__))


@pytest.mark.parametrize(
    "text",
    [
        "# Changelog\n",
        "## [0.1.0] - 2026-01-01\n",
        "## [Unreleased]\n## [0.1.0]\n",
        "## [Unreleased]\n## [0.1.0] - 2026-01-01\n## [0.2.0] - 2026-02-01\n",
        "## [Unreleased]\n## [0.3.0] - 2026-01-01\n",
        "## [Unreleased]\n### Fixed\n### Added\n",
        "## [Unreleased]\n### Added\n### News\n",
        "## [Unreleased]\n### Added\n### Added\n",
    ],
)
def test_a_changelog_of_another_form_is_noticed(text):
    assert len(list(faults(text, "0.2.0"))) == 1
    assert not list(faults("## [Unreleased]\n### Added\n## [0.2.0] - 2026-01-01\n### Fixed\n", "0.2.0"))
