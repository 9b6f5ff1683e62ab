import csv
import io

import pytest

from kgat.experiments.table import (
    FORMATS,
    Cell,
    Table,
    code,
    interval,
    number,
    pivot,
    render,
    spread,
    terminal,
)

pytestmark = pytest.mark.quick

TABLE = Table(
    ["model", "test %", "difference [95 %]", "p"],
    [
        [code("gat"), spread(0.5, 0.0125, "{:.1f}", 100), interval(None, None, None, "{:+.1f}"), "–"],
        [
            code("rbf*l2_a|b"),
            spread(0.625, None, "{:.1f}", 100),
            interval(0.125, -0.125, 0.375, "{:+.1f}", 100),
            number(1 / 32, "{:.3f}"),
        ],
    ],
    title="Cora",
)
TEXT = "**Cora.** With `rbf`, 5 % & more \\*"


def test_markdown():
    assert render([TEXT, TABLE]).splitlines() == [
        TEXT,
        "",
        "| model | test % | difference [95 %] | p |",
        "| --- | ---: | ---: | ---: |",
        "| `gat` | 50.0 ± 1.2 | – | – |",
        "| `rbf*l2_a\\|b` | 62.5 | +12.5 [−12.5, +37.5] | 0.031 |",
    ]


def test_csv_has_all_digits():
    (gat, rbf) = csv.DictReader(io.StringIO(render([TEXT, TABLE], "csv")))
    assert gat == {
        "table": "Cora",
        "model": "gat",
        "test %": "50.0",
        "test %: std": "1.25",
        "difference [95 %]": "",
        "difference [95 %]: low": "",
        "difference [95 %]: high": "",
        "p": "",
    }
    assert (rbf["model"], rbf["test %: std"], rbf["p"]) == ("rbf*l2_a|b", "", "0.03125")
    assert (rbf["difference [95 %]"], rbf["difference [95 %]: low"]) == ("12.5", "-12.5")


def test_csv_is_one_table():
    other = Table(["model", "AUC"], [[code("dot"), number(0.5, "{:.1f}")]], title="tolokers")
    overview = pivot("model", {"Cora": {"gat": "1"}})
    rows = list(csv.DictReader(io.StringIO(render([overview, TABLE, other], "csv"))))
    assert [(row["table"], row["model"]) for row in rows] == [
        ("Cora", "gat"), ("Cora", "rbf*l2_a|b"), ("tolokers", "dot"),
    ]  # fmt: skip
    assert (rows[2]["AUC"], rows[2]["test %"], rows[0]["AUC"]) == ("0.5", "", "")
    assert render([overview], "csv") == "model,Cora\ngat,1"


def test_latex():
    text = render([TEXT, TABLE], "latex")
    assert r"\textbf{Cora.} With \texttt{rbf}, 5 \% \& more *" in text
    assert r"\begin{tabular}{lrrr}" in text
    assert r"model & test \% & difference [95 \%] & p \\" in text
    assert r"\texttt{rbf*l2\_a|b} & 62.5 & +12.5 [$-$12.5, +37.5] & 0.031 \\" in text


def test_html_escapes_everything():
    bad = "<script>&\"'"
    table = Table([bad, "x"], [[Cell(bad, is_code=True, color="#123456"), bad], ["a<br>b", "**c**"]], names=1)
    text = render([bad, table], "html")
    assert "<script>" not in text
    assert text.count("&lt;script&gt;&amp;") == 4
    assert '<span class="swatch" style="background:#123456"></span>&lt;script' in text
    assert "<td>a; b</td><td>c</td>" in text
    assert '<td class="left">b</td>' in render([Table(["n", "m"], [["a", "b"]], names=2)], "html")


def test_terminal_has_the_cells():
    from rich.console import Console

    console = Console(width=100, record=True, file=io.StringIO())
    console.print(terminal(TABLE))
    text = console.export_text()
    for cell in ("Cora", "rbf*l2_a|b", "50.0 ± 1.2", "+12.5 [−12.5, +37.5]", "0.031"):
        assert cell in text


def test_pivot_begins_with_the_first():
    columns = {"Cora": {"rbf": "1", "dot": "2"}, "Texas": {"gat": "3", "rbf": Cell("4")}}
    table = pivot("model", columns, is_code=True, first="gat")
    rows = [[cell.text for cell in row] for row in table.cells]
    assert rows == [["gat", "–", "3"], ["rbf", "1", "4"], ["dot", "2", "–"]]
    assert all(row[0].is_code for row in table.cells)


def test_formats_that_are_unknown():
    with pytest.raises(ValueError, match=f"Expected a format of tables .got 'pdf'.*{', '.join(FORMATS)}"):
        render([TABLE], "pdf")
