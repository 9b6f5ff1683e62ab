import ast
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import made_graphs
import made_runs
import pytest
import typer
from warm_process import Process

import kgat
from kgat import cli, extras
from kgat.cli import options as cli_options
from kgat.cli import program, start
from kgat.experiments import compare, ledger, pages, processes, training

pytestmark = pytest.mark.versions

FAST = ["--set", "max_epochs=3", "--set", "heads=2", "--set", "hidden_channels=8"]
KARATE = ["compare", "--dataset", "karate", "--models", "gat,rbf", *FAST, "--rounds", "0"]


def run(capsys, *arguments):
    code = cli.main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--dataset", "Corra"], "Expected the name of a data set .*Cora"),
        (["compare", "--models", "gat,gta"], "Expected the name of a model .got 'gta'.*gatv2"),
        (["compare", "--models", ","], "Expected names separated by commas .got ','.; name some"),
        (["bench", "ops", "--regimes", " ,"], "Expected names separated by commas .got ' ,'.; name some"),
        (["compare", "--set", "lr"], "Expected KEY=VALUE after --set .got 'lr'"),
        (["compare", "--set", "lrr=1"], "Expected settings that exist.*got 'lrr'.*lr, weight.*mean 'lr'"),
        (["compare", "--set", "lr=fast"], "Expected 'lr' as a number .got 'fast'"),
        (["compare", "--device", "gpu"], "Expected a device that is here .got 'gpu'"),
        (
            ["compare", "--models", "rbf@start=medain"],
            "got medain.; change it in the name 'rbf@start=medain'",
        ),
        (["compare", "--seeds", "0"], "--seeds"),
        (["compare", "--tune", "1"], "Expected at least 2 settings .*got 1.; pass --tune 8"),
        (["compare", "--models", "gat@separate"], "Expected the name of a kernel .*stock layer"),
        (["compare", "--models", "rbf,spectral[num_features=4,x=2]"], "got 'x=2'"),
        (
            ["train", "--model", "rbf@shared", "--set", "projections=shared"],
            "Expected a kernel model that leaves",
        ),
        (["compare", "--sedes", "3"], "Expected an option .*'--sedes'.; did you mean '--seeds'"),
        (["compare", "--format", "svg,gif"], "Expected a format of figures .got 'gif'.*png, svg, pdf"),
        (["compere"], "Expected a command of 'kgat' .got 'compere'.; did you mean 'compare'"),
        (["bench", "opps"], "Expected a command of 'kgat bench' .got 'opps'.; did you mean 'ops'"),
        (["train", "--model", "gat", "--set", "projections=shared"], "Expected a kernel model"),
        (["train", "--dataset", "karate", "--set", "act=rellu", *FAST], "rellu"),
        (["train", "--dataset", "karate", "--set", "projections=x", *FAST], "'projections'"),
        (
            ["plot", "no-such-folder"],
            "Expected a folder with .*no results.jsonl in 'no-such-folder'.*compare",
        ),
        (
            ["compare", "--xyzzy"],
            "Expected an option of 'kgat compare' .got '--xyzzy'.; All are in: kgat comp",
        ),
        (["table", "no-such-folder"], "Expected results in 'no-such-folder'.*kgat compare"),
        (["table"], "(?i:folders)"),
        (["train", "--model", "kgat.measures:MEASURES"], "a torch.nn.Module or a factory .*name a class"),
    ],
)
def test_errors_are_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert re.fullmatch(rf"kgat: error: .*{message}.*\n", err)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folders(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    for command in (KARATE, ["train", "--dataset", "karate"]):
        code, _, err = run(capsys, *command, "--out", tmp_path / "file")
        assert code == 2
        assert re.fullmatch("kgat: error: Expected a folder that can be written .*--out\n", err)


def test_debug_shows_the_traceback(capsys):
    with pytest.raises(ValueError, match=r"Expected the name of a data set"):
        cli.main(["compare", "--dataset", "Corra", "--debug"])


def test_errors_that_nobody_expects_are_not_hidden(monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(compare, "compare", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(KARATE)


@pytest.mark.quick
@pytest.mark.parametrize("arguments", [[], ["--help"], ["compare", "--help"], ["table", "--help"]])
def test_help(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    assert "Usage: kgat" in out
    if arguments in ([], ["--help"]):
        commands = ("compare", "train", "predict", "info", "plot", "regress", "paper", "table", "bench")
        places = [out.index(f"  {command}  ") for command in commands]
        assert places == sorted(places)


@pytest.mark.quick
@pytest.mark.parametrize("start", ["from kgat.cli import main; sys.exit(main())", "runpy.run_module('kgat')"])
@pytest.mark.parametrize("arguments", [["--help"], ["compare"]])
def test_who_has_no_packages_for_it_is_told_what_to_install(start, arguments):
    code = f"import runpy, sys; sys.modules['typer'] = sys.modules['rich'] = None; {start}"
    root = Path(kgat.__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "kgat: error: Expected the packages of the command line (got no rich, typer); install them: "
        "pip install 'kgat[experiments]'\n"
    )


@pytest.mark.quick
def test_places_that_name_the_packages_of_extras_agree():
    root = Path(__file__).resolve().parents[1]
    declared = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8"))["project"]
    of_extras = {
        extra: {re.match(r"[\w.-]+", line)[0] for line in lines}
        for extra, lines in declared["optional-dependencies"].items()
    }
    for package, (distribution, extra) in extras._PACKAGES.items():
        assert distribution in of_extras[extra], package
    named = {name for name, (_, extra) in extras._PACKAGES.items() if extra == "experiments"}
    assert {extras._PACKAGES[name][0] for name in named} == of_extras["experiments"]
    assert set(start.NEEDED) == named
    tried = (root / ".ci" / "try_wheel").read_text(encoding="utf8")
    assert ast.literal_eval(re.search(r"^extras = (.*)$", tried, re.M)[1]) == named


@pytest.mark.quick
def test_a_command_is_one_file(capsys, tmp_path, monkeypatch):
    (tmp_path / "greet.py").write_text(
        "import typer\n"
        "ORDER = 15\n"
        "def greet(name: str) -> None:\n"
        "    'Say hello.'\n"
        "    typer.echo(f'hello {name}')\n"
    )
    monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(tmp_path)])
    monkeypatch.setattr(cli.app, "registered_commands", list(cli.app.registered_commands))
    try:
        program.add_commands([str(tmp_path)])
        assert run(capsys, "greet", "reader") == (0, "hello reader\n", "")
        assert "Say hello." in run(capsys, "--help")[1]
    finally:
        sys.modules.pop("kgat.cli.greet", None)


def test_plot_says_what_it_wants(capsys, tmp_path):
    path = tmp_path / "ops.jsonl"
    path.write_text("")
    code, out, err = run(capsys, "plot", path)
    assert (code, out) == (2, "")
    assert err == (
        f"kgat: error: Expected a folder with the results.jsonl of a comparison (got the file '{path}'); "
        f"run: kgat compare --out {tmp_path}\n"
    )


@pytest.mark.quick
def test_every_option_has_a_help_text():
    group = typer.main.get_command(cli.app)
    for command in group.commands.values():
        assert command.help
        for parameter in command.params:
            if parameter.name != "help":
                assert getattr(parameter, "help", None), (command.name, parameter.name)


def test_compare_prints_a_table_and_draws(capsys, tmp_path):
    code, out, err = run(capsys, *KARATE, "--seeds", "2", "--out", tmp_path)
    assert code == 0
    assert "4/4 rbf, seed 1" in err
    assert re.search(r"gat +2 .* rbf +2 ", out, re.DOTALL)
    assert str(tmp_path / "report.html") in out
    found = ledger.read(tmp_path / "results.jsonl")
    assert [record["kind"] for record in found].count("run") == 4
    assert all(record["config"]["max_epochs"] == 3 for record in found if record["kind"] == "run")

    (tmp_path / "report.html").unlink()
    code, out, err = run(capsys, "plot", tmp_path)
    assert (code, err) == (0, "")
    assert str(tmp_path / "report.html") in out.split()
    assert (tmp_path / "report.html").exists()


def test_compare_tunes(capsys, tmp_path):
    arguments = ["--tune", "2", "--tune-seeds", "1", "--seeds", "1", "--out", tmp_path / "tuned"]
    models = ["--models", "gat,rbf[lengthscale=2]*l2"]
    code, out, err = run(capsys, *KARATE, *models, *arguments)
    assert code == 0
    assert "karate, tuned 2 × 1" in out
    assert "rbf[lengthscale=2]*l2" in out.split("Tuned on validation nodes alone")[0]
    assert re.search(r"best\s+mean\s+validation\s+score\s+chose:\s+`gat`\s+lr\s+0.0", out)
    assert "4/6 trial of rbf[lengthscale=2]*l2, seed 1000000: 3 epochs" in err
    assert "6/6 rbf[lengthscale=2]*l2, seed 0: 3 epochs" in err
    run(capsys, *KARATE, "--seeds", "1", "--out", tmp_path / "plain")
    _, out, _ = run(capsys, "table", tmp_path)
    assert re.search(r"^karate *$.*^karate, tuned 2 × 1 *$.*Tuned", out, re.DOTALL | re.MULTILINE)


def test_compare_tunes_by_trials(capsys, tmp_path):
    pytest.importorskip("optuna", reason="trials are drawn by optuna")
    arguments = ["--trials", "2", "--tune-seeds", "1", "--seeds", "1", "--rounds", "0", "--out", tmp_path]
    models = ["--models", "gat,kernel{rbf,dot}", "--search", "num_layers=1,2", "--search", "dot.p=1"]
    code, _, err = run(capsys, *KARATE, *models, *arguments)
    assert code != 0
    assert "Expected arguments of DotProduct (got 'dot.p'); choose from: none" in err
    code, out, err = run(capsys, *KARATE, *models[:-2], *arguments)
    assert code == 0
    assert "karate, 2 trials × 1" in out
    assert re.search(r"^ *kernel: (rbf|dot)", out, re.MULTILINE)
    assert "4/6 trial 1 of kernel, seed 1000000: 3 epochs" in err
    assert "6/6 kernel, seed 0: 3 epochs" in err
    assert "kernel: " in (tmp_path / "report.html").read_text(encoding="utf8")


def test_table_writes_the_readme(capsys, tmp_path):
    run(capsys, *KARATE, "--seeds", "2", "--out", tmp_path / "runs/karate")
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n{}\n{}\nEnd.\n".format(*pages.markers("results")))
    code, out, _ = run(capsys, "table", tmp_path / "runs", "--readme", readme)
    assert (code, out) == (0, f"{readme}: results replaced\n")
    text = readme.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("End.\n")
    assert "| `rbf` | 2 |" in text
    code, out, _ = run(capsys, "table", tmp_path / "runs", "--readme", readme)
    assert out == f"{readme}: results are up to date\n"
    code, out, _ = run(capsys, "table", tmp_path / "runs", "--markdown")
    assert f"\n{out.strip()}\n" in text
    code, out, _ = run(capsys, "table", tmp_path / "runs")
    assert re.search(r"karate *\n.* rbf +2 ", out, re.DOTALL)

    readme.write_text("{}\nold\n{}\n".format(*pages.markers("overview")))
    run(capsys, "table", tmp_path / "runs", "--readme", readme)
    text = readme.read_text()
    assert "| model | karate |" in text
    assert "old" not in text
    assert "**karate.**" not in text

    readme.write_text("# Title\n")
    code, _, err = run(capsys, "table", tmp_path / "runs", "--readme", readme)
    assert code == 2
    assert re.fullmatch("kgat: error: Expected the lines .*\n", err)


def test_tables_in_other_formats(capsys, tmp_path):
    lines = [json.dumps(made_runs.make_run("gat", seed, 0.5 + 0.01 * seed)) for seed in range(2)]
    (tmp_path / "results.jsonl").write_text("\n".join(lines) + "\n")
    starts = {"markdown": "Test metric", "csv": "table,model,seeds,", "latex": "% ", "html": "<p>Test metric"}
    said = {form: run(capsys, "table", tmp_path, "--format", form) for form in starts}
    for form, begin in starts.items():
        code, out, err = said[form]
        assert (code, err) == (0, "")
        assert out.startswith(begin)
    assert run(capsys, "table", tmp_path, "--markdown") == said["markdown"]
    code, out, err = run(capsys, "table", tmp_path, "--format", "word")
    assert (code, out) == (2, "")
    assert "got 'word'); choose from: markdown, csv, latex, html" in err


@pytest.mark.quick
def test_train_saves_a_model(capsys, tmp_path):
    arguments = ["train", "--dataset", "karate", "--model", "rbf*l2", "--seed", "1", *FAST]
    code, out, err = run(capsys, *arguments, "--out", tmp_path / "model")
    assert (code, err) == (0, "")
    assert "karate, rbf*l2, seed 1, split random-1: accuracy train" in out
    config = json.loads((tmp_path / "model/config.json").read_text())["config"]
    assert (config["model"], config["seed"], config["heads"]) == ("rbf*l2", 1, 2)
    assert training.restore(tmp_path / "model").convs[0].kernel.kernels[1].p == 2.0
    # The same once more replaces it, another does not.
    assert run(capsys, *arguments, "--set", "lr=0.02", "--out", tmp_path / "model")[0] == 0
    arguments[arguments.index("rbf*l2")] = "rbf"
    code, out, err = run(capsys, *arguments, "--out", tmp_path / "model")
    assert (code, out) == (2, "")
    assert "Expected no other model in" in err
    assert "(got 'rbf*l2' of 'karate', which 'rbf' of 'karate' would replace); choose another --out" in err
    assert training.restore(tmp_path / "model").convs[0].kernel.kernels[1].p == 2.0


@pytest.mark.quick
def test_predict_writes_what_the_model_says(capsys, tmp_path):
    nodes, edges = made_graphs.tables()
    made_graphs.write(tmp_path / "people", nodes, edges)
    made_graphs.write(tmp_path / "new", nodes.drop(columns="label"), edges)
    made_graphs.write(tmp_path / "taller", nodes.assign(height=1.0), edges)
    model = ("--model", tmp_path / "model")
    code, *_ = run(capsys, "train", "--data", tmp_path / "people", *FAST, "--out", model[1])
    assert code == 0
    out = tmp_path / "answers" / "new.csv"
    code, said, err = run(capsys, "predict", *model, "--data", tmp_path / "new", "--output", out)
    assert (code, err, said) == (0, "", f"{out}: 60 rows of id, prediction\n")
    rows = [line.split(",") for line in out.read_text().splitlines()]
    assert [row[0] for row in rows] == ["id", *nodes["id"]]
    assert {row[1] for row in rows[1:]} <= {"red", "green", "blue"}
    shares = ("--probabilities", "--drop", "height", "--output", out)
    assert run(capsys, "predict", *model, "--data", tmp_path / "taller", *shares)[0] == 0
    assert out.read_text().startswith("id,prediction,probability blue,probability green,probability red\n")
    for arguments, message in (
        (["--data", tmp_path / "taller"], r"Expected no columns but age, job, member \(got height\)"),
        (["--data", tmp_path / "none"], r"Expected a graph at '.*none' \(got no file or folder\)"),
        ([], r"graph to predict on \(got none, and 'people' is data of one's own\)"),
        (["--drop", "height"], r"Expected --data beside --drop"),
        (["--data", "x", "--dataset", "karate"], r"either --data or --dataset \(got 'x' and 'karate'\)"),
        (["--data", tmp_path / "new", "--pairs", "p.csv"], r"a model of links because of --pairs"),
    ):
        before = out.read_bytes()
        code, said, err = run(capsys, "predict", *model, *arguments, "--output", out)
        assert (code, said, out.read_bytes()) == (2, "", before)
        assert re.search(message, err)
        assert len(err.splitlines()) == 1


def test_train_keeps_a_log(capsys, tmp_path):
    pytest.importorskip("tensorboard", reason="the log is tensorboard's")
    arguments = ["train", "--dataset", "karate", "--log", "tensorboard", *FAST]
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert "Expected a folder for the log (got none beside --log tensorboard); pass --out FOLDER" in err
    pytest.importorskip("tensorboard")
    assert run(capsys, *arguments, "--out", tmp_path)[0] == 0
    assert [path.name[:13] for path in (tmp_path / "tensorboard").rglob("events*")] == ["events.out.tf"]


def test_threads_are_set(capsys, monkeypatch):
    import torch

    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    run(capsys, "train", "--dataset", "karate", "--threads", "3", *FAST)
    assert asked == [3]


@pytest.mark.quick
def test_info(capsys, tmp_path):
    code, out, err = run(capsys, "info", "--root", tmp_path)
    assert (code, err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["kgat"] == kgat.__version__
    assert "eager: ok" in lines["backends"]
    assert lines["data"].endswith(str(tmp_path))


def test_a_truncated_line_is_a_warning_of_one_line(capsys, tmp_path):
    run(capsys, *KARATE, "--seeds", "1", "--out", tmp_path)
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    code, _, err = run(capsys, *KARATE, "--seeds", "1", "--out", tmp_path)
    assert code == 0
    assert re.search("^kgat: warning: dropped the unfinished last line .* repeated\n", err, re.M)
    assert "Warning" not in err


def test_records_of_others_are_passed_over(capsys, tmp_path):
    code, expected, _ = run(capsys, *KARATE, "--seeds", "1", "--out", tmp_path)
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"note": "by hand"}\n')
    for arguments in ([*KARATE, "--seeds", "1", "--out"], ["table"]):
        code, out, _ = run(capsys, *arguments, tmp_path)
        assert code == 0
        assert out in (expected, expected.rsplit("\n", 2)[0] + "\n")  # without the line of files
    assert run(capsys, "table", "--markdown", tmp_path)[0] == 0


@pytest.mark.parametrize("content", ["", '{"kind": "regression", "dataset": "co2", "model": "dot"}\n'])
@pytest.mark.parametrize("arguments", [["table"], ["table", "--markdown"], ["plot"]])
def test_nothing_to_show_is_an_error(capsys, tmp_path, arguments, content):
    (tmp_path / "results.jsonl").write_text(content)
    code, out, err = run(capsys, *arguments, tmp_path)
    assert code == 2
    assert out == ""
    assert re.fullmatch(r"kgat: error: Expected runs in .* .got none.; run: kgat compare.*\n", err)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("told", "options", "servers"),
    [
        ("", [], 1),
        ("1", [], 0),
        ("2,1", [], 1),
        ("1", ["--threads", "2"], 1),
        ("2", ["--threads", "1"], 0),
        ("1", ["--jobs", "2"], 1),
        ("2", ["--jobs", "1"], 0),
        ("", ["--jobs", "2", "--threads", "2"], 0),  # no forks: each has several threads
        ("2", ["--device", "cuda"], 0),
    ],
)
def test_processes_of_several_jobs_import_while_this_one_does(capsys, monkeypatch, told, options, servers):
    asked, seeds = [], []
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(processes, "start_server", lambda: asked.append(1))
    monkeypatch.setattr(cli_options, "check_device", lambda device: None)
    monkeypatch.setattr(cli_options, "set_threads", lambda threads: None)

    def ended(*arguments, **_):
        seeds.append(arguments[2])
        raise ValueError("Expected no more")

    monkeypatch.setattr(compare, "compare", ended)
    assert run(capsys, "compare", *options)[::2] == (2, "kgat: error: Expected no more\n")
    assert len(asked) == servers
    assert seeds == [10]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_comparison_goes_on(capsys, tmp_path, number, jobs):
    path = tmp_path / "out/results.jsonl"
    code = "import runpy; runpy.run_module('kgat', run_name='__main__', alter_sys=True)"
    arguments = [*KARATE, "--seeds", 2000, "--out", path.parent, "--jobs", jobs]
    process = Process(code, *arguments, OMP_NUM_THREADS="1")
    try:
        deadline = time.monotonic() + 120
        while not path.exists() or path.read_bytes().count(b'"kind":"run"') < 3:
            assert process.returncode is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    kept = [record for record in ledger.read(path) if record["kind"] == "run"]
    last = err.strip().splitlines()[-1]
    assert last == (
        f"kgat: interrupted: {len(kept)} of 4000 runs are kept in {path}; run the same command again to go on"
    )
    assert out == ""

    seeds = max(record["seed"] for record in kept) + 1
    code, _, _ = run(capsys, *KARATE, "--seeds", seeds, "--out", path.parent)
    assert code == 0
    after = [record for record in ledger.read(path) if record["kind"] == "run"]
    assert after[: len(kept)] == kept
    assert len(after) == len({record["key"] for record in after}) == 2 * seeds


def test_an_interrupt_that_a_finaliser_swallows_comes_again(monkeypatch, capsys):
    class Finalised:
        def __del__(self):
            raise KeyboardInterrupt

    def work(context):
        Finalised()
        for _ in range(200):
            time.sleep(0.05)

    monkeypatch.setattr(
        typer.main.get_command(cli.app).__class__, "invoke", lambda self, context: work(context)
    )
    hook = sys.unraisablehook
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == "kgat: interrupted; run the same command again\n"
    assert sys.unraisablehook is hook


# A command is stopped from outside wherever it is: a hook runs at the place and sends the signal to itself.
STOPPED = """
import os, signal, sys
place, number = sys.argv[1], int(sys.argv[2])
sys.argv[1:] = sys.argv[3:]
from kgat.cli import main

class Finder:
    def find_spec(self, name, *rest):
        if name == place:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), number)

sys.meta_path.insert(0, Finder())
sys.exit(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("place", "command", "said"),
    [
        ("typer", ["info"], ""),
        ("kgat.cli.compare", ["compare"], ": it goes on where it stopped"),
        ("torch", ["compare", "--dataset", "karate"], ": it goes on where it stopped"),
        ("kgat.experiments.tables", ["table", "."], ""),
        ("torch", ["bench", "memory"], ": it goes on where it stopped"),
        ("torch", ["bench", "layers"], ""),
    ],
)
def test_a_stop_has_one_answer_wherever_it_comes(tmp_path, number, place, command, said):
    root = Path(kgat.__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, place, str(int(number)), *command],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    answer = f"kgat: interrupted; run the same command again{said}\n"
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", answer)


def test_a_full_disk_says_where_and_what_to_do(capsys, tmp_path, monkeypatch):
    run(capsys, *KARATE, "--seeds", "1", "--out", tmp_path)
    path = tmp_path / "results.jsonl"
    before = path.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ledger.os, "fsync", full)
    code, _, err = run(capsys, *KARATE, "--seeds", "2", "--out", tmp_path)
    assert code == 2
    assert err.splitlines()[-1] == (
        f"kgat: error: Expected room on the disk to write '{path}' (got: No space left on device); make room "
        "and run the same command again: it goes on where it stopped"
    )
    assert path.read_bytes() == before
    monkeypatch.setattr(ledger, "read_results", full)
    code, _, err = run(capsys, "table", tmp_path)
    assert (code, "Expected room on the disk" in err) == (2, True)


HUGE = 10**400


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "'dataset' as a text in line 2 .*got null"),
        ({"test": None}, "'test' as a finite number in line 2 .*got null"),
        ({"test": HUGE}, "'test' as a finite number in line 2 .*got 1000"),
        ({"val": "0.5"}, "'val' as a finite number in line 2"),
        ({"test": [0.5]}, "'test' as a finite number in line 2"),
        ({"test": True}, "'test' as a finite number in line 2"),
        ({"test": 83.2}, r"'test' as accuracy from 0 to 1 in line 2 .*got 83.2"),
        ({"val": -0.5}, r"'val' as accuracy from 0 to 1 in line 2"),
        ({"metric": "rmse", "train": -1.0}, r"'train' as RMSE from 0 to inf in line 2"),
        ({"metric": "r2", "test": 1.5}, r"'test' as R² from -inf to 1 in line 2"),
        ({"seed": HUGE}, "'seed' as a whole number in line 2"),
        ({"seed": [1]}, "'seed' as a whole number in line 2"),
        ({"model": {}}, "'model' as a text in line 2"),
        ({"metric": "f1"}, "'metric' as one of accuracy, roc_auc, .* in line 2"),
        ({"config": [1]}, "'config' as an object in line 2"),
        ({"config": {}}, "'config.num_layers'|'config.heads'"),
        ({"versions": {}}, "'versions.torch' as a text in line 2"),
        ({"tuned": {"settings": 3}}, "'tuned.seeds' as a whole number in line 2"),
        ({"kind": "cost", "baseline": "gat", "models": {"gat": 1}}, "'models.gat' as an object in line 2"),
        ({"curve": {"epoch": ["a"], "val": ["b"]}}, "a record as kgat writes it in line 2"),
    ],
)
def test_records_of_the_wrong_form_are_named_by_line(capsys, tmp_path, change, message):
    good = made_runs.make_run("gat", 0, 0.5)
    wrong = {"kind": "run"} if change is None else {**made_runs.make_run("rbf", 0, 0.5), **change}
    if "cost" in str(wrong["kind"]):
        wrong = change | {"dataset": "made"}
    (tmp_path / "results.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(wrong)}\n")
    commands = [["plot"]] if "curve" in (change or {}) else [["table"], ["table", "--markdown"], ["plot"]]
    for command in commands:
        code, out, err = run(capsys, *command, tmp_path)
        assert (code, out) == (2, ""), command
        assert re.fullmatch(rf"kgat: error: Expected (?:{message}).*delete that line.*\n", err), err


@pytest.mark.parametrize("name", ["[/bold]x", "a|b", "[red]", "c\nd", r"e\|f", "$x$", "<b>"])
def test_any_name_keeps_its_place_in_a_table(capsys, tmp_path, name):
    lines = [
        json.dumps({**made_runs.make_run("gat", seed, 0.5, dataset=name), "model": model})
        for model in ("gat", name)
        for seed in range(2)
    ]
    (tmp_path / "results.jsonl").write_text("\n".join(lines) + "\n")
    code, out, err = run(capsys, "table", tmp_path)
    assert (code, err) == (0, "")
    assert name.split("\n")[0] in out
    code, out, err = run(capsys, "table", "--markdown", tmp_path)
    assert (code, err) == (0, "")
    rows = [line for line in out.splitlines() if line.startswith("| ")]
    assert [len(re.split(r"(?<!\\)\|", row)) for row in rows] == [4] * 4 + [11] * 4
    code, out, err = run(capsys, "plot", tmp_path)
    assert (code, err) == (0, "")


@pytest.mark.quick
def test_version(capsys):
    assert run(capsys, "--version") == (0, f"kgat {kgat.__version__}\n", "")


@pytest.mark.parametrize("dataset", ["MUTAG", "karate-links"])
def test_graphs_and_links_go_to_a_report(dataset, capsys, tmp_path, data_root):
    fast = [*FAST, "--models", "rbf", "--seeds", 1, "--rounds", 0, "--jobs", 1]
    arguments = [
        "--dataset",
        dataset,
        "--metric",
        "average_precision",
        "--root",
        data_root,
        "--out",
        tmp_path,
    ]
    code, out, _ = run(capsys, "compare", *arguments, *fast)
    assert code == 0
    assert "test average precision %" in out
    assert (tmp_path / "report.html").is_file()
    arguments[3] = "roc_auc"
    code, _, err = run(capsys, "compare", *arguments, *fast)
    assert code == 2
    assert "Expected runs that are scored by roc_auc" in err
    assert "scored by average_precision); choose another --out" in err


def test_answers_to_the_test_part_are_written(capsys, tmp_path, data_root):
    import numpy as np

    path = tmp_path / "answers.npz"
    arguments = ["--dataset", "ogbg-molfreesolv", "--root", data_root, "--submission", path]
    code, out, _ = run(capsys, "train", "--model", "gat", *arguments, *FAST)
    assert code == 0
    assert "RMSE train" in out
    assert np.load(path)["y_pred"].shape == (65, 1)


OWN = ["--models", "gat,rbf", *FAST, "--rounds", "0", "--seeds", "1", "--jobs", "1"]


def test_a_table_of_ones_own_goes_to_a_report_in_one_command(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made_graphs.write(tmp_path / "people", *made_graphs.tables())
    code, _, err = run(capsys, "compare", "--data", "people", *OWN)
    assert code == 0
    assert re.match(
        r"people: 60 nodes, \d+ undirected edges, .* predicts label: 3 classes .* by accuracy", err
    )
    assert (tmp_path / "runs" / "people" / "report.html").exists()
    runs = [record for record in ledger.read("runs/people/results.jsonl") if record["kind"] == "run"]
    assert len({record["config"]["data"] for record in runs}) == 1
    # The same content goes on where it stopped, wherever it lies and in whatever form.
    made_graphs.write(tmp_path / "moved", *made_graphs.tables(), suffix="tsv")
    code, _, err = run(capsys, "compare", "--data", "moved", "--name", "people", *OWN)
    assert (code, err.count("epochs")) == (0, 0)


@pytest.mark.parametrize(
    "change", [["--models", "dot"], ["--tune", "2", "--tune-seeds", "1"], ["--split", "random"]]
)
def test_a_folder_of_results_is_not_continued_with_other_data(capsys, tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    nodes, edges = made_graphs.tables()
    made_graphs.write(tmp_path / "people", nodes, edges)
    assert run(capsys, "compare", "--data", "people", *OWN)[0] == 0
    before = (tmp_path / "runs" / "people" / "results.jsonl").read_bytes()
    if "--split" not in change:
        nodes.loc[3, "age"] += 1
        made_graphs.write(tmp_path / "people", nodes, edges)
    code, out, err = run(capsys, "compare", "--data", "people", *OWN, *change)
    assert (code, out) == (2, "")
    assert re.search(
        r"error: Expected runs on the same data in 'runs/people/results.jsonl' .got one of '", err
    )
    assert (tmp_path / "runs" / "people" / "results.jsonl").read_bytes() == before


def test_train_takes_ones_own_data(capsys, tmp_path):
    nodes, edges = made_graphs.tables()
    folder = made_graphs.write(tmp_path / "people", nodes, edges)
    for target, said in (("label", "accuracy train"), ("age", "RMSE train")):
        drop = ["--drop", "label" if target == "age" else "job"]
        arguments = ["train", "--data", folder, "--label", target, *drop, "--structure", "walk:2", *FAST]
        code, out, _ = run(capsys, *arguments)
        assert code == 0
        assert said in out


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--knn", "3"], "Expected --data beside --knn .got none"),
        (["--source", "from"], "Expected --data beside --source .got none"),
        (["--data", "people", "--dataset", "Cora"], "either --dataset or --data .got 'Cora' and 'people'"),
        (["--data", "nowhere"], "Expected a graph at 'nowhere'"),
        (["--data", "people", "--shares", "0.9,0.9"], "'shares' as two numbers above 0"),
        (["--data", "people", "--set", "data=1"], "Expected settings that exist.*got 'data'"),
        (["--data", "people", "--metric", "f2"], "a metric of 'people' .got 'f2'.*accuracy"),
        (["--data", "people", "--label", "color"], "a column 'color' in 'people' .got id, age.*--label"),
    ],
)
def test_errors_about_ones_own_data_are_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    made_graphs.write(tmp_path / "people", *made_graphs.tables())
    for command in ("compare", "train"):
        code, out, err = run(capsys, command, *arguments)
        assert (code, out) == (2, "")
        assert re.fullmatch(rf"(people: .*\n)?kgat: error: .*{message}.*\n", err)


def test_convert_then_train_on_maps(capsys, tmp_path):
    folder = tmp_path / "maps"
    code, out, err = run(capsys, "convert", "--dataset", "karate", "--out", folder)
    assert (code, err) == (0, "")
    assert out.startswith(f"{folder}: 34 nodes with 34 features, 156 edges by target")
    batches = ["--batch-size", "4", "--neighbors", "3,3", *FAST]
    code, out, err = run(capsys, "train", "--data", folder, *batches)
    assert code == 0
    assert "78 undirected edges" in err
    assert "epoch" in out
    code, _, err = run(capsys, "convert", "--dataset", "karate", "--out", folder)
    assert code == 2
    assert "Expected a new folder" in err
    code, _, err = run(capsys, "convert", "--arrays", tmp_path / "none", "--out", tmp_path / "more")
    assert code == 2
    assert "no file" in err
    assert [path.name for path in tmp_path.iterdir()] == ["maps"]
