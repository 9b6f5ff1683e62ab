r"""What the README and the site say holds: their code runs, and what they name exists."""

import ast
import importlib
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import made_graphs
import pytest
import torch_geometric
import typer

import kgat
from kgat import kernels, positions
from kgat.cli.program import app
from kgat.experiments.settings import SETTINGS

ROOT = Path(__file__).parents[1]
WRITTEN = sorted(
    path
    for path in (ROOT / "docs").rglob("*.md")
    if "_build" not in path.parts and "<!-- copied:" not in path.read_text(encoding="utf8")[:200]
)
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "DESIGN.md")]
PAGES += [*WRITTEN, *sorted(ROOT.glob("results/**/README.md")), *sorted(ROOT.glob("ablation/**/README.md"))]
PAGES += [ROOT / "evidence" / "README.md", *sorted(ROOT.glob("benchmarks/**/README.md"))]
README = (ROOT / "README.md").read_text(encoding="utf8")


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(page, language):
    text = page.read_text(encoding="utf8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def cells(page):
    return re.findall(r"^```\{code-cell\}[^\n]*\n(.*?)^```", page.read_text(encoding="utf8"), re.S | re.M)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name_of)
def test_code_runs(page, tmp_path, monkeypatch):
    r"""The blocks of a page, one after the other, as a reader runs them, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", [p for p in WRITTEN if cells(p)], ids=name_of)
def test_notebooks_import_what_exists(page):
    r"""They run when the site is built, which takes minutes; a name that has gone is seen here."""
    for cell in cells(page):
        lines = [line for line in cell.split("\n") if not line.startswith((":tags", "%"))]
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "kgat":
                module = importlib.import_module(node.module)
                assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


def commands(page):
    r"""The calls of kgat in shell blocks and in code spans that hold a whole one."""
    text = page.read_text(encoding="utf8")
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").split("\n")]
    lines += [span for span in re.findall(r"`([^`\n]+)`", text) if re.match(r"(\.venv/bin/)?kgat( |$)", span)]
    for line in lines:
        call = re.sub(r"^(\.venv/bin/|PYTHONPATH=\S+ )", "", line.strip())
        if call.startswith("kgat "):
            yield call.split("#")[0].strip()


def missing_from(call, program):
    r"""Parts of a call that the program does not know."""
    words = [word for word in shlex.split(call.replace("$", ""))[1:] if word != "..."]
    command = program
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        word = words.pop(0)
        if word == "COMMAND":
            return
        if word not in command.commands:
            yield word
            return
        command = command.commands[word]
    known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    for word, value in zip(words, [*words[1:], ""], strict=False):
        option = word.split("=")[0]
        if option.startswith("--") and option not in known | {"--help"}:
            yield word
        elif (
            option == "--set" and command.name in ("compare", "train") and value.split("=")[0] not in SETTINGS
        ):
            yield value


@pytest.fixture(scope="module")
def program():
    from kgat.cli.program import app

    return typer.main.get_command(app)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page, program):
    wrong = {call: found for call in commands(page) if (found := list(missing_from(call, program)))}
    assert not wrong
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf8"), re.M))
    named = re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(encoding="utf8"), re.M)
    assert set(named) <= targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_kgat_is_installed_from_the_clone(page):
    r"""No index has it: who copies a line with its name alone gets nothing, or another package."""
    assert not re.findall(r"pip install '?kgat\b.*", page.read_text(encoding="utf8"))


def test_commands_that_do_not_exist_are_noticed(program):
    calls = {
        "kgat compar --seeds 3": ["compar"],
        "kgat compare --sedes 3": ["--sedes"],
        "kgat compare --set learning_rate=1": ["learning_rate=1"],
        "kgat bench table x --figures y": ["--figures"],
        "kgat bench ops --out x": [],
    }
    assert {call: list(missing_from(call, program)) for call in calls} == calls


def exists(target):
    parts = target.split(".")
    for count in range(len(parts), 0, -1):
        try:
            item = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for part in parts[count:]:
            if not hasattr(item, part):
                return False
            item = getattr(item, part)
        return True
    return False


def classes():
    r"""Names of classes that a page may use without saying where they are."""
    rooms = (
        "nn",
        "models",
        "kernels",
        "positions",
        "datasets",
        "score.rules",
        "score.gram",
        "functional",
        "loader",
    )
    modules = [kgat, *(importlib.import_module(f"kgat.{room}") for room in rooms)]
    modules += [
        torch_geometric,
        importlib.import_module("torch_geometric.data"),
        torch_geometric.nn,
        torch_geometric.nn.models,
        torch_geometric.nn.models.basic_gnn,
    ]
    modules += [
        torch_geometric.explain,
        torch_geometric.explain.algorithm,
        importlib.import_module("torch.nn"),
    ]
    modules += [importlib.import_module(f"torch_geometric.{room}") for room in ("typing", "transforms")]
    return {name for module in modules for name in dir(module)}


# Words of code that are no class of ours, of PyG's or torch's.
OTHER = {"None", "True", "False", "Args", "Raises", "Shapes", "VmHWM"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_exist(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf8"), flags=re.S | re.M)
    targets = re.findall(r"\{(?:class|func|meth|mod|data|attr)\}`~?([\w.]+)`", text)
    targets += re.findall(r"(?<!\})`(kgat\.[\w.]+)`", text)
    assert not [target for target in targets if not exists(target)]
    named = set(re.findall(r"(?<!\})`([A-Z]\w*[a-z]\w*)(?:\([^`]*\))?`", text))
    assert not named - classes() - OTHER


def test_names_that_do_not_exist_are_noticed():
    assert exists("kgat.nn.KernelGATConv.forward")
    assert not exists("kgat.nn.KernelGCNConv")
    assert not exists("kgat.nn.KernelGATConv.backwards")
    assert "KernelGATConv" in classes()
    assert "KernelGCNConv" not in classes()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    made = {"kernels.rst", "positions.rst", "changelog.md", "contributing.md", "design.md"}
    generator = (ROOT / "docs" / "_generate" / "pages.py").read_text(encoding="utf8")
    made |= {f"{name}.md" for name in re.findall(r'"results/(\w+)\.md"', generator)}
    for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf8")):
        path = (page.parent / target).resolve()
        assert path.exists() or path.name in made, f"{target} leads nowhere"


def test_every_kernel_is_in_one_family():
    families = tomllib.loads((ROOT / "docs" / "kernels.toml").read_text(encoding="utf8"))["family"]
    sorted_in = [name for family in families for name in family["kernels"]]
    assert len(sorted_in) == len(set(sorted_in))
    assert set(sorted_in) <= set(kernels.names())


def test_pages_are_made_for_all_public_names(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    api, catalogue = (importlib.import_module(f"_generate.{name}") for name in ("api", "catalogue"))
    api.write(tmp_path)
    for room in ("kernels", "nn", "models", "positions", "diagnostics"):
        for name in api.documented(importlib.import_module(f"kgat.{room}")):
            assert (tmp_path / f"kgat.{room}.{name}.rst").exists()
    text = catalogue._kernel("RBF", tmp_path)
    for part in ("log k", "squared_difference", "translation invariant", "log_lengthscale"):
        assert part.replace("log k", r"\log k") in text
    assert (tmp_path / "pictures" / "RBF.png").read_bytes()[:4] == b"\x89PNG"
    assert {name for family in catalogue.families() for name in family["kernels"]} == set(kernels.names())
    assert set(positions.names()) - {"none"} <= set(dir(positions))


def test_each_example_is_listed_and_run():
    page = (ROOT / "docs" / "how-to" / "examples.md").read_text(encoding="utf8")
    run = (ROOT / ".ci" / "run").read_text(encoding="utf8")
    examples = list((ROOT / "examples").glob("*.py"))
    started = "".join(
        example.read_text(encoding="utf8").partition('"""')[2].partition('"""')[2] for example in examples
    )
    for example in examples:
        assert f"`{example.name}`" in page, "the page 'Start from an example' lists them all"
        assert f"examples/{example.name} -" in run or f'"{example.name}"' in started, "with few steps"
        assert importlib.util.find_spec(example.stem) is None, "a script hides a package of its name"


def test_the_commands_on_ones_own_graph_run(monkeypatch, tmp_path):
    r"""Those of the README, with few epochs and without the measurement of cost."""
    from kgat import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg" / "nets.py").write_text("from torch_geometric.nn import GraphSAGE as MyNet\n")
    made_graphs.write(tmp_path / "people", *made_graphs.tables())
    made_graphs.write(tmp_path / "newcomers", *made_graphs.tables(seed=1))
    lines = [line for line in "".join(blocks(ROOT / "README.md", "bash")).split("\n") if "--data " in line]
    quick = {"compare": "--rounds 0 --jobs 1 --seeds 2", "train": "", "predict": "--output answers.csv"}
    for line in lines:
        _, command, *words = shlex.split(line, comments=True)
        few = [] if command == "predict" else ["--set", "max_epochs=2"]
        assert cli.main([command, *words, *shlex.split(quick[command]), *few]) == 0
    assert (tmp_path / "runs" / "people" / "report.html").is_file()
    assert len((tmp_path / "answers.csv").read_text().split()) == 1 + made_graphs.NODES


def test_the_readme_is_short():
    text = README[: README.index("<!-- overview:begin -->")]
    assert len(README.split("\n")) < 100, "the README is one screen and a half; the site has room"
    assert "never run on a GPU" in text


def test_tables_are_generated():
    for page, marker in (("README.md", "overview"), ("results/README.md", "results")):
        text = (ROOT / page).read_text(encoding="utf8")
        assert text.count(f"<!-- {marker}:begin -->") == text.count(f"<!-- {marker}:end -->") == 1


def test_the_list_of_commands_has_all():
    table = (ROOT / "docs" / "how-to" / "command-line.md").read_text(encoding="utf8").partition("\n## ")[0]
    named = set(re.findall(r"`(kgat [a-z ]+)`", table))
    command = typer.main.get_command(app)
    every = {f"kgat {name}" for name in command.commands if name != "bench"}
    every |= {f"kgat bench {name}" for name in command.commands["bench"].commands}
    assert every <= named, every - named


def included():
    r"""What the pages of papers take from others: the other page, and the marks between which it stands."""
    for page in sorted((ROOT / "docs" / "papers").glob("*.md")):
        for path, options in re.findall(
            r"^```\{include\} (\S+)\n(.*?)^```", page.read_text(encoding="utf8"), re.S | re.M
        ):
            (start,) = re.findall(r'^:start-after: "(.*)"$', options, re.M)
            (end,) = re.findall(r'^:end-before: "(.*)"$', options, re.M)
            yield (page.parent / path).resolve(), start, end


def test_pages_of_papers_have_all_claims_and_comparisons():
    marks = [(path.parent.name, end) for path, _, end in included()]
    assert len(marks) == len({*marks})
    for folder in ("claims", "sequences"):
        text = (ROOT / "benchmarks" / folder / "README.md").read_text(encoding="utf8")
        of_page = set(re.findall(r"<!-- \w+:end -->", text))
        assert {end for name, end in marks if name == folder} == of_page
    for path, start, end in included():
        text = path.read_text(encoding="utf8")
        assert text.count(start) == text.count(end) == 1
        assert text.index(start) < text.index(end)
        # Of one section alone.
        assert "\n## " not in text[text.index(start) : text.index(end)]
