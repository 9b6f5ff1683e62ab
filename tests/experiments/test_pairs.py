import numpy as np
import pytest
from made_runs import make_run
from scipy import stats

from kgat.experiments import plots, starts
from kgat.experiments.pairs import Pair, differences, latest
from kgat.experiments.questions import answers
from kgat.experiments.statistics import wilcoxon
from kgat.experiments.summary import summarise_runs
from kgat.experiments.sweep import sweeps
from kgat.experiments.tables import table
from kgat.experiments.verdict import verdicts

pytestmark = pytest.mark.quick


def test_splits_count_once_where_there_are_several():
    ours = {Pair(0, "a"): 1.0, Pair(1, "b"): 2.0, Pair(2, "a"): 4.0, Pair(3, "b"): None, Pair(4, "c"): 5.0}
    stock = {Pair(0, "a"): 0.5, Pair(1, "b"): 0.5, Pair(2, "a"): 1.0, Pair(3, "b"): 0.5, Pair(5, "d"): 0.5}
    assert differences(ours, stock).tolist() == [1.75, 1.5]


def test_seeds_count_where_there_is_one_split_or_none_is_known():
    for pairs in (
        [Pair(seed, "public") for seed in range(4)],
        [Pair(seed, None) for seed in range(4)],
        "abcd",
    ):
        ours = {pair: float(number) for number, pair in enumerate(pairs)}
        assert differences(ours, dict.fromkeys(pairs, 0.5)).tolist() == [-0.5, 0.5, 1.5, 2.5]
    assert differences({}, {}).size == differences(ours, {}).size == 0


SEEDS = 20


def runs(model, num_splits, gain, dataset="made"):
    rng = np.random.default_rng(len(model))
    return [
        {
            **make_run("rbf", seed, test, test, dataset, split=f"split-{seed % num_splits}"),
            "model": model,
            "commit": None,
        }
        for seed, test in enumerate(0.5 + gain + 0.01 * rng.standard_normal(SEEDS))
    ]


def of_table(stock, ours):
    (row,) = (row for row in table([*stock("gat"), *ours("rbf")]) if row.model == "rbf")
    return row


def of_verdict(stock, ours):
    (verdict,) = verdicts([*stock("gat"), *ours("kernel")])
    assert verdict.contest.p_value == verdict.p_value
    assert len(verdict.differences) == verdict.contest.pairs
    return verdict.contest


def of_question(stock, ours):
    (answer,) = answers([*stock("rbf"), *ours("rbf@shared_qk")])
    return answer.summaries["test"][answer.model]


def of_sweep(stock, ours):
    runs = [*stock("gat", "made-5-labels"), *ours("rbf", "made-5-labels")]
    ((_, of_amounts),) = sweeps(runs).values()
    return of_amounts[5]["rbf"]


def of_start(stock, ours):
    changed = [{**run, "config": {**run["config"], "start": "unit"}} for run in ours("rbf")]
    (of_starts,) = starts.compared([*stock("rbf"), *changed]).values()
    return of_starts["unit"]


def of_runs(stock, ours):
    return summarise_runs([*stock("gat"), *ours("rbf")], "model", "gat")["made"]["rbf"]


@pytest.mark.parametrize("said", [of_table, of_verdict, of_question, of_sweep, of_start, of_runs])
@pytest.mark.parametrize("num_splits", [1, 10, 20])
def test_no_page_is_surer_than_its_splits(said, num_splits):
    def stock(model, dataset="made"):
        return runs(model, num_splits, 0.0, dataset)

    def ours(model, dataset="made"):
        return runs(model, num_splits, 0.003, dataset)

    summary = said(stock, ours)
    assert summary.pairs == (SEEDS if num_splits == 1 else num_splits)
    assert summary.n == SEEDS
    assert summary.ups + summary.downs == summary.pairs
    pairs = summary.pairs
    assert summary.p_value is None or summary.p_value >= 2 ** (1 - pairs)
    if said in (of_table, of_sweep, of_runs):
        tests = [np.array([run["test"] for run in of]) for of in (ours("rbf"), stock("gat"))]
        means = (tests[0] - tests[1]).reshape(-1, pairs).mean(axis=0)
        assert summary.p_value == pytest.approx(wilcoxon(means))
        assert summary.difference == pytest.approx(means.mean())


def test_runs_on_former_splits_are_dropped():
    former = [{**run, "split": f"random-{run['seed'] % 10}", "test": 0.0} for run in runs("gat", 20, 0.0)]
    again = [{**run, "split": f"random-{run['seed']}"} for run in runs("gat", 20, 0.0)[10:]]
    ours = [{**run, "split": f"random-{run['seed']}"} for run in runs("rbf", 20, 0.0)]
    records = [*former, *ours, *again, {"kind": "cost"}]
    assert len(latest(records)) == len(records) - 10
    gat, rbf = table([record for record in records if record["kind"] == "run"])
    assert (gat.n, rbf.n, rbf.pairs) == (20, 20, 20)


def test_the_bar_of_scores_is_that_of_splits():
    of_seeds, of_splits = (
        plots.accuracy(runs("gat", number, 0.0)).axes[0].lines[-2].get_xdata() for number in (1, 10)
    )
    scores = np.array([run["test"] for run in runs("gat", 10, 0.0)])
    for drawn, values in ((of_seeds, scores), (of_splits, scores.reshape(2, 10).mean(axis=0))):
        expected = stats.t.interval(0.95, values.size - 1, values.mean(), stats.sem(values))
        assert drawn == pytest.approx(100 * np.array(expected))


def test_the_figure_shows_one_dot_for_each():
    for num_splits, dots in ((1, 20), (10, 10)):
        figure = plots.difference([*runs("gat", num_splits, 0.0), *runs("rbf", num_splits, 0.01)])
        assert dots in [len(line.get_xdata()) for line in figure.axes[0].lines]
