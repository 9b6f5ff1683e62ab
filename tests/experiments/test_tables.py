import dataclasses
import io
import math

import pytest
from made_runs import make_cost, make_run
from scipy import stats

from kgat.experiments import ledger, tables
from kgat.experiments.pairs import AVERAGED
from kgat.experiments.table import render, terminal
from kgat.experiments.tables import laid_out, table

pytestmark = pytest.mark.quick

GAT = [0.80, 0.82, 0.81, 0.79, 0.83, 0.80]


RBF = [0.82, 0.83, 0.85, 0.80, 0.88, 0.86]  # differences .02 .01 .04 .01 .05 .06


def made():
    runs = [make_run("rbf", seed, test) for seed, test in enumerate(RBF)]
    runs += [make_run("gat", seed, test, val=0.25) for seed, test in enumerate(GAT)]
    runs += [make_run("dot", seed, test) for seed, test in enumerate(GAT[:3])]
    return [
        *runs,
        make_cost(rbf=(0.5, 0.25)),
        {"kind": "attention", "dataset": "made", "model": "gat", "seed": 0},
    ]


def test_table_by_hand():
    gat, rbf, dot = table(made())
    assert (gat.model, rbf.model, dot.model) == ("gat", "rbf", "dot")
    assert (gat.n, rbf.n, dot.n) == (6, 6, 3)
    assert gat.mean == pytest.approx(sum(GAT) / 6)
    variance = sum((x - sum(GAT) / 6) ** 2 for x in GAT) / 5
    assert gat.std == pytest.approx(math.sqrt(variance))
    assert (gat.difference, gat.ci_low, gat.p_value) == (None, None, None)
    assert (gat.val_mean, rbf.val_mean) == (0.25, 0.5)
    assert (gat.epoch_ratio, rbf.epoch_ratio, rbf.memory_ratio) == (1.0, 0.5, 0.25)
    assert (dot.epoch_ratio, dot.memory_ratio) == (None, None)
    assert rbf.parameters == 1003

    assert rbf.difference == pytest.approx(0.19 / 6)
    expected = stats.ttest_rel(RBF, GAT).confidence_interval(0.95)
    assert (rbf.ci_low, rbf.ci_high) == pytest.approx((expected.low, expected.high))
    # Six of six differences are positive: 2 / 2^6. 'dot' has too few pairs to be counted.
    assert rbf.p_value == pytest.approx(1 / 32)
    assert (dot.difference, dot.p_value, dot.pairs) == (0.0, None, 3)


def test_table_pairs_seeds_and_splits():
    runs = [make_run("gat", seed, 0.5) for seed in range(4)]
    runs += [make_run("rbf", seed, 0.5 + 0.1 * seed) for seed in range(2, 6)]
    runs += [make_run("dot", 0, 0.9, split="another")]
    rows = {row.model: row for row in table(runs)}
    assert rows["rbf"].pairs == 2
    assert rows["rbf"].difference == pytest.approx(0.25)
    assert (rows["dot"].pairs, rows["dot"].difference) == (0, None)


def test_table_of_one_seed_and_of_a_repeated_one():
    runs = [make_run("gat", 0, 0.1), make_run("gat", 0, 0.6), make_run("rbf", 0, 0.7)]
    gat, rbf = table(runs)
    assert (gat.n, gat.mean, gat.std) == (1, 0.6, None)
    assert rbf.difference == pytest.approx(0.1)
    assert (rbf.ci_low, rbf.ci_high, rbf.p_value) == (None, None, None)


def test_table_without_baseline_and_without_runs():
    (row,) = table([make_run("rbf", seed, 0.5) for seed in range(5)])
    assert (row.n, row.difference, row.p_value) == (5, None, None)
    assert table([]) == []
    assert table([make_cost()]) == []


def test_table_refuses_several_data_sets():
    with pytest.raises(ValueError, match=r"Expected records of one data set .got a, b"):
        table([make_run("gat", 0, 0.5, dataset="a"), make_run("gat", 0, 0.5, dataset="b")])


MARKDOWN = """\
| model | seeds | test accuracy % | difference to gat [95 %] | p | val % | epoch time | memory | \
parameters |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| `gat` | 6 | 80.8 ± 1.5 | – | – | 25.0 | 1.00× | 1.00× | 1,003 |
| `rbf` | 6 | 84.0 ± 2.9 | +3.2 [+0.9, +5.4] | 0.031 | 50.0 | 0.50× | 0.25× | 1,003 |
| `dot` | 3 | 81.0 ± 1.0 | +0.0 [+0.0, +0.0] | – | 50.0 | – | – | 1,003 |"""


def test_markdown_is_stable():
    assert render([laid_out(table(made()))]) == MARKDOWN


def test_markdown_of_unusual_rows():
    row = dataclasses.replace(table(made())[1], difference=-0.012, ci_low=None, p_value=0.0001)
    text = render([laid_out([row], "roc_auc")])
    assert "| −1.2 | < 0.001 |" in text.splitlines()[-1]
    assert "test ROC AUC %" in text


def test_terminal_table_has_the_same_cells():
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(terminal(laid_out(table(made()), title="made")))
    text = console.export_text()
    for cell in ("made", "84.0 ± 2.9", "+3.2 [+0.9, +5.4]", "0.031", "0.25×", "1,003"):
        assert cell in text


def write(folder, written):
    folder.mkdir(parents=True)
    for record in written:
        ledger.append(folder / "results.jsonl", record)


def test_readme_tables(tmp_path):
    write(tmp_path / "one", made())
    other = [make_run("sinc", seed, 0.3, dataset="PubMed", split="public") for seed in range(2)]
    write(tmp_path / "two", [*other, make_cost("PubMed", contended=True, sinc=(2.0, None))])
    text = tables.readme_tables(tmp_path)
    assert "| model | made | PubMed |" in text
    assert "| `gat` | 80.8 ± 1.5 | – |" in text
    assert "| `sinc` | – | 30.0 ± 0.0 |" in text
    assert MARKDOWN in text
    assert "**PubMed.** Split public, 2 seeds" in text
    assert "last layer 8 heads" in text
    assert "weight decay 0.001" in text
    assert "6 or 3 seeds" in text
    assert "Unreliable, varied by more than 1.6× between rounds: epoch time of sinc." in text
    assert text.count("Unreliable") == 1
    assert text == tables.readme_tables(tmp_path / "one", tmp_path / "two/results.jsonl")


def test_readme_tables_without_results(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected results in .*kgat compare"):
        tables.readme_tables(tmp_path)
    write(tmp_path / "one", [make_cost()])
    with pytest.raises(FileNotFoundError, match=r"Expected runs in"):
        tables.readme_tables(tmp_path)


def test_tables_of_tuned_and_untuned_runs_are_apart(tmp_path):
    mark = {"settings": 8, "seeds": 3, "space": {"lr": [0.1, 0.2], "dropout": [0.5]}}
    plain = [make_run(model, seed, 0.5) for model in ("gat", "rbf") for seed in range(2)]
    tuned = [{**make_run("gat", seed, 0.7, lr=0.2), "tuned": mark} for seed in range(2)]
    tuned += [{**make_run("rbf", seed, 0.9, lr=0.1), "tuned": mark} for seed in range(2)]
    write(tmp_path / "plain", [*plain, make_cost(rbf=(2.0, None))])
    trials = [{**make_run("gat", 0, 0.5, val=0.99), "kind": "tune", "key": "tune-0"}]
    write(tmp_path / "tuned", [*trials, *tuned, {**make_cost(rbf=(3.0, None)), "tuned": mark}])
    with pytest.raises(
        ValueError, match=r"equally tuned .*'gat' without tuning and 'gat' tuned over 8 settings"
    ):
        table([*plain, *tuned])
    with pytest.raises(ValueError, match=r"equally tuned"):  # also where the models differ
        table([*tuned[:2], *plain[2:]])
    text = tables.readme_tables(tmp_path)
    assert "| model | made | made, tuned 8 × 3 |" in text
    assert "| `rbf` | 50.0 ± 0.0 | 90.0 ± 0.0 |" in text
    first, second = text.split("**made, tuned 8 × 3.**")
    assert "| `rbf` | 2 | 50.0 ± 0.0 | +0.0 [+0.0, +0.0] | – | 50.0 | 2.00× |" in first
    assert "Tuned" not in first
    assert "| `rbf` | 2 | 90.0 ± 0.0 | +20.0 [+20.0, +20.0] | – | 50.0 | 3.00× |" in second
    assert "learning rate 0.2 or 0.1" in second
    assert "the same 8 settings" in second
    assert "grid lr 0.1 or 0.2; dropout 0.5, each trained with 3 seeds" in second
    assert "chose: `gat` lr 0.2, dropout 0.5; `rbf` lr 0.1, dropout 0.5.\n" in second


def test_table_refuses_runs_of_other_settings():
    runs = [make_run("gat", 0, 0.5), make_run("gat", 1, 0.5, lr=0.1)]
    with pytest.raises(ValueError, match=r"'gat' on 'made' with equal settings .got lr=0.005 and lr=0.1."):
        table(runs)
    with pytest.raises(ValueError, match=r"decay_kernels=True and decay_kernels=False"):
        table([make_run("rbf", 0, 0.5), make_run("rbf", 0, 0.5, decay_kernels=False)])
    assert len(table([make_run("gat", 0, 0.5), make_run("rbf", 0, 0.5, lr=0.1)])) == 2


def test_protocol_line_says_whose_weights_are_kept():
    def line(*keep):
        return tables._protocol_line([make_run(f"rbf*l{p}", 0, 0.5, keep=k) for p, k in enumerate(keep, 1)])

    said = "early stopping on validation loss and accuracy, patience 100, weights of the "
    assert f"{said}last epoch that had the lowest loss and the best accuracy at once; torch" in line("both")
    assert f"{said}epoch with the lowest loss; torch" in line("loss")
    assert f"{said}epoch with the best accuracy or the epoch with the lowest loss; torch" in line(
        "metric", "loss"
    )


def test_protocol_line_says_how_scores_start():
    assert "scores of kernels start at unit; torch" in tables._protocol_line(
        [make_run("rbf", 0, 0.5, start="unit")]
    )
    assert "start" not in tables._protocol_line([make_run("rbf", 0, 0.5)])


def old_runs(dataset, *epochs):
    return [
        {**make_run("gat", n, 0.5, dataset=dataset, keep="both"), "best_epoch": e}
        for n, e in enumerate(epochs)
    ]


def test_runs_under_a_rule_that_was_given_up_are_marked(tmp_path):
    # A record does not name the rule of its time: the one that the protocol of its set has given up since.
    assert all("keep" not in run["config"] for run in old_runs("made", 1))
    write(tmp_path / "old", old_runs("made", 1, 3, 200))
    write(tmp_path / "new", [make_run("gat", seed, 0.5, dataset="digits") for seed in range(2)])
    write(tmp_path / "paper", old_runs("Cora", 1, 2))  # whose protocol still has it
    text = tables.readme_tables(tmp_path)
    assert "| model | digits | made \\* | Cora |" in text
    assert text.count("To be made anew, for the reason") == 1
    assert text.count("**To be made anew.**") == 1
    made = text[text.index("**made.**") : text.index("**Cora.**")]
    before, after = made.split("**To be made anew.**")
    assert "2 of 3 runs kept one of their first 10. The protocol now keeps" in after
    assert "| model | seeds |" not in before  # above its table
    assert "kept one of" not in tables.outdated_line(old_runs("made", 100))
    new = [make_run("gat", seed, 0.5) for seed in range(2)]
    assert tables.outdated_line(new) == ""


def test_table_refuses_runs_of_two_rules_for_the_weights():
    with pytest.raises(
        ValueError, match=r"one rule .got 'gat' with keep=both and 'rbf' with keep=metric.*apart"
    ):
        table([make_run("gat", 0, 0.5, keep="both"), make_run("rbf", 0, 0.5)])
    with pytest.raises(ValueError, match=r"start=None and start=unit"):
        table([make_run("rbf", 0, 0.5), make_run("rbf", 1, 0.5, start="unit")])


def test_protocol_line_says_what_has_no_decay():
    runs = [make_run(model, 0, 0.5, decay_kernels=False) for model in ("gat", "rbf")]
    line = tables._protocol_line(runs)
    assert "weight decay 0.0005 (not on frequencies, lengthscales and exponents in rbf); at most" in line
    assert "(not" not in tables._protocol_line([make_run("rbf", 0, 0.5)])


def test_brackets_of_names_are_shown():
    from rich.console import Console

    console = Console(width=160, record=True, file=io.StringIO())
    runs = [make_run("spectral[num_features=4]*l2@shared", 0, 0.5)]
    console.print(terminal(laid_out(table(runs), title="made")))
    assert "spectral[num_features=4]*l2@shared" in console.export_text()


def test_unreliable_costs_are_named_wherever_the_table_is(capsys):
    from kgat.cli.table import print_tables
    from kgat.experiments import report

    lines = [make_run("sinc", seed, 0.3) for seed in range(2)] + [
        make_run("gat", seed, 0.3) for seed in range(2)
    ]
    lines.append(make_cost(contended=True, sinc=(2.0, None)))
    print_tables(lines)
    for text in (capsys.readouterr().out, report.page(lines)):
        assert "Unreliable, varied by more than 1.6× between rounds: epoch time of sinc." in text


def test_errors_are_no_percentages_and_say_which_way_is_better(tmp_path):
    from kgat.experiments import report

    runs = [make_run(model, seed, 1.25 + seed) for model in ("gat", "rbf") for seed in (0, 1)]
    runs = [{**run, "metric": "rmse", "level": "graph", "val": 0.75} for run in runs]
    shares = [make_run("gat", 0, 0.5, dataset="other")]
    text = render([laid_out(table(runs), "rmse")])
    assert "| model | seeds | test RMSE (less is better) | difference to gat [95 %] | p | val |" in text
    assert "| `gat` | 2 | 1.75 ± 0.71 | – | – | 0.75 |" in text
    path = tmp_path / "results.jsonl"
    for run in runs + shares:
        ledger.append(path, run)
    page = tables.readme_tables(path)
    assert "Test metric in % where none is named" in page
    assert "| model | made (RMSE, less is better) | other |" in page
    assert "early stopping on validation loss and RMSE" in page
    assert "; pooling mean, all graphs in a step; torch" in page
    html = report.page(runs)
    assert "Metric: RMSE (less is better). Training sees no label of a test graph" in html
    assert f"over seeds (less is better). Difference: paired by seed ({AVERAGED}). p:" in html
    assert "<td>2.25</td>" in html
