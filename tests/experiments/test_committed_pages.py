r"""The committed pages are what the committed records give, byte for byte."""

import itertools
import re
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from torch import bincount

from kgat.datasets import load
from kgat.experiments import claims, regression, sequences, starts
from kgat.experiments.bench import report
from kgat.experiments.judgements import judgement
from kgat.experiments.ledger import read_results
from kgat.experiments.pages import split_readme
from kgat.experiments.questions import answers
from kgat.experiments.statistics import LEVEL, holm, wilcoxon
from kgat.experiments.sweep import sweeps
from kgat.experiments.tables import readme_tables, result_files
from kgat.experiments.verdict import FAMILY, STOCK, verdicts

ROOT = Path(__file__).resolve().parents[2]
SEQUENCES = ROOT / "benchmarks" / "sequences"
CLAIMED = ROOT / "benchmarks" / "claims"
PAPERS = sorted(path.stem for path in SEQUENCES.glob("*.jsonl") if path.stem != "costs")


def between(page, name="results"):
    return split_readme(ROOT / page, name)[1].strip()


# As the commands on these pages give them: "ablation" beside the sets of "results" that have a part there.
SETS = ("Cora", "CiteSeer", "PubMed", "chameleon_filtered")
FAMILIES = ([FAMILY], STOCK)
FOLDERS = {
    "results/README.md": ["results"],
    "ablation/README.md": [*(f"results/{name}" for name in SETS), "ablation"],
}


@pytest.mark.parametrize("page", FOLDERS)
def test_comparisons(page):
    assert between(page) == readme_tables(*(ROOT / folder for folder in FOLDERS[page]))


def test_overview():
    assert between("README.md", "overview") == readme_tables(ROOT / "results", overview=True)


def records_below(*folders):
    return [r for path in result_files([ROOT / folder for folder in folders]) for r in read_results(path)]


MIXTURES = (["additive|rbf", "constant*additive+constant*rbf"], ["gat", "rbf"])
# As `make readme` gives them: a block of a page, from what, and who is judged against whom.
JUDGED = {
    "verdict": (
        "evidence/README.md",
        ["evidence/families", "evidence/floors", "evidence/graphs.jsonl"],
        FAMILIES,
    ),
    "sweep": ("evidence/README.md", ["evidence/sweep"], FAMILIES),
    "questions": ("evidence/README.md", ["evidence/questions"], FAMILIES),
    "settings": (
        "evidence/settings.md",
        ["evidence/families", "evidence/floors", "evidence/graphs.jsonl"],
        FAMILIES,
    ),
    "published": (
        "evidence/README.md",
        ["evidence/published", *(f"results/{name}" for name in ("Cora", "CiteSeer", "PubMed"))],
        FAMILIES,
    ),
    "mixtures": ("evidence/mixtures/README.md", ["evidence/mixtures"], MIXTURES),
}


@pytest.mark.parametrize("name", JUDGED)
def test_evidence(name):
    page, folders, (family, against) = JUDGED[name]
    block = "verdict" if name == "mixtures" else name
    text = judgement(block, records_below(*folders), family, against)
    assert between(page, block) == text.strip()


@pytest.mark.parametrize("page", ["README.md", "docs/why.md", "docs/how-to/choose-a-kernel.md"])
def test_what_pages_say_of_the_evidence(page):
    judged = verdicts(records_below("evidence/families"))
    outcomes = {outcome: [v.dataset for v in judged if v.outcome == outcome] for outcome in ("win", "loss")}
    # Sentences are written by hand: with another outcome they are to be written anew.
    wins, losses = (
        {"Handwriting-nearest", "Libras-nearest", "digits"},
        {"Epilepsy-nearest", "GunPoint-nearest"},
    )
    assert ({which: set(names) for which, names in outcomes.items()}, len(judged)) == (
        {"win": wins, "loss": losses},
        28,
    )
    # Validation tells which.
    preferred = {v.dataset for v in judged if v.preferred}
    assert preferred >= wins
    assert not preferred & losses
    text = " ".join((ROOT / page).read_text(encoding="utf8").split())
    assert "alidation nodes tell" in text or "validation score of several seeds preferred" in text
    assert any(
        said in text
        for said in ("of 28 they win significantly on three", "three of 28 graphs", "three graphs of 28")
    )


def test_what_pages_say_of_wins_losses_and_the_plain_mean():
    records = records_below("evidence/families", "evidence/graphs.jsonl")
    judged = verdicts(records)
    graphs = {r["dataset"]: r for r in records if r["kind"] == "graph"}
    text = {
        page: " ".join((ROOT / page).read_text(encoding="utf8").split())
        for page in ("README.md", "docs/why.md", "docs/faq.md", "docs/how-to/choose-a-kernel.md")
    }
    outside_ties = [v for v in judged if v.outcome != "tie"]
    assert all(graphs[v.dataset]["nearest"] for v in outside_ties)
    assert sum(graphs[v.dataset]["nearest"] for v in judged) == 17
    assert "win on three graphs and lose on two of seventeen" in text["docs/faq.md"]
    wins, losses = (
        [graphs[v.dataset]["classes"] for v in sorted(outside_ties, key=lambda v: -abs(v.contest.difference))
         if v.outcome == outcome]
        for outcome in ("win", "loss")
    )  # fmt: skip
    assert (wins, losses) == ([26, 15, 10], [4, 2])
    assert "26, 15 and 10 classes), and lose on two" in text["docs/why.md"]
    assert "series of that kind with 4 and 2)" in text["docs/why.md"]
    block = between("evidence/README.md", "verdict")
    gained, lost = re.search(
        r"its gain is \+([\d.]+) points on average, where they do not −([\d.]+)\.", block
    ).groups()
    said = f"it gained {gained} points on average, where it did not it lost {lost}"
    assert said in text["docs/how-to/choose-a-kernel.md"]
    # Over all graphs there is no gain over the stock layers, and none over the plain mean.
    for stock in (STOCK, ["constant"]):
        gains = [100 * v.contest.difference for v in verdicts(records, "kernel", stock) if v.measure.percent]
        assert wilcoxon(np.array(gains)) > LEVEL
        assert abs(np.mean(gains)) < 0.5
    assert "Over all there is no gain" in text["README.md"]
    assert "is as good on average" in text["README.md"]


def test_what_the_page_of_the_evidence_says_of_the_plain_mean():
    records = records_below("evidence/families", "evidence/graphs.jsonl")
    text = " ".join((ROOT / "evidence" / "README.md").read_text(encoding="utf8").split())
    against = {v.dataset: v.outcome for v in verdicts(records, "kernel", ["constant"])}
    assert {name: of for name, of in against.items() if of != "tie"} == {
        **dict.fromkeys(("Handwriting-nearest", "Libras-nearest", "digits"), "win"),
        "Epilepsy-nearest": "loss",
    }
    nearest = {r["dataset"] for r in records if r["kind"] == "graph" and r["nearest"]}
    contests = {
        judged.dataset: {v.dataset: v for v in verdicts(records, judged.stock, ["constant"])}[judged.dataset]
        for judged in verdicts(records)
    }
    assert contests.keys() == against.keys()

    def named(sign, kind, clearly=False):  # graphs of a kind where stock attention is ahead or behind
        ends = {
            name: (v.measure.sign * v.contest.ci_low, v.measure.sign * v.contest.ci_high)
            for name, v in contests.items()
            if (name in nearest) == kind and sign * v.measure.sign * v.contest.difference > 0
        }
        return {name for name in ends if not clearly or min(sign * end for end in ends[name]) > 0}

    assert (len(named(-1, True)), len(nearest & contests.keys())) == (13, 17)
    assert "behind the mean on 13 of 17 graphs, significantly on breast_cancer and JapaneseVowels" in text
    adjusted = holm({name: v.unadjusted for name, v in contests.items()})
    significant = {name for name, p_value in adjusted.items() if p_value <= LEVEL}
    assert significant & named(-1, True) == {"breast_cancer", "JapaneseVowels-nearest"}
    assert significant - named(-1, True) == {"ArrowHead-nearest"}
    assert (len(named(1, False)), len(contests.keys() - nearest)) == (8, 11)
    assert (
        "ahead of the mean on eight of eleven, on CiteSeer, Cora_ML, Wisconsin and reed98 by intervals"
        in text
    )
    assert named(1, False, clearly=True) == {"CiteSeer", "Cora_ML", "Wisconsin", "reed98"}


def test_what_the_page_of_the_evidence_says_of_models_without_attention():
    records = records_below("evidence/families", "evidence/floors")
    text = " ".join((ROOT / "evidence" / "README.md").read_text(encoding="utf8").split())
    judged = {name: verdicts(records, "kernel", [name]) for name in ("gcn", "mlp")}
    assert {name: len(of) for name, of in judged.items()} == {"gcn": 28, "mlp": 28}
    above = {
        name: {v.dataset for v in of if -v.measure.sign * v.contest.difference > 0}
        for name, of in judged.items()
    }
    of_stock = [v for v in verdicts(records, "gcn", STOCK) if v.measure.sign * v.contest.difference > 0]
    assert f"prefers on {len(of_stock)} of 28 graphs, and above the kernels' on {len(above['gcn'])}," in text
    for page in ("README.md", "docs/why.md"):
        said = " ".join((ROOT / page).read_text(encoding="utf8").split())
        assert f"ahead of them on {len(above['gcn'])} of 28" in said or (
            f"ahead of the kernels on {len(above['gcn'])} graphs, and of stock attention on {len(of_stock)}"
            in said
        )
    outcomes = {
        name: {v.dataset: v.outcome for v in of if v.outcome in ("win", "loss")}
        for name, of in judged.items()
    }
    assert outcomes["gcn"] == {
        **dict.fromkeys(("digits", "Handwriting-nearest"), "win"),
        **dict.fromkeys(("CiteSeer-geom-gcn", "Epilepsy-nearest"), "loss"),
    }
    assert above["mlp"] == {
        *("ACSF1-nearest", "GunPoint-nearest", "Libras-nearest", "SST2-nearest"),
        *("Texas", "Wisconsin", "wine", "diabetes"),
    }
    assert [name for name, outcome in outcomes["mlp"].items() if outcome == "loss"] == ["diabetes"]
    behind = {v.dataset for v in judged["mlp"] if v.measure.percent and v.contest.difference >= 0.1}
    assert behind >= {"Cora", "Cora_ML", "CiteSeer", "Handwriting-nearest"}


def test_what_the_page_of_the_evidence_says_of_kept_epochs():
    runs = [record for record in records_below("evidence/families") if record["kind"] == "run"]
    text = " ".join((ROOT / "evidence" / "README.md").read_text(encoding="utf8").split())

    def kept(dataset, model):
        return median(r["best_epoch"] for r in runs if (r["dataset"], r["model"]) == (dataset, model))

    of_three = ["gat", "kernel", "constant"]
    found = [f"{kept('Cora-geom-gcn', model):.0f}" for model in of_three]
    assert f"the median kept epoch is {found[0]}, {found[1]} and {found[2]}" in text
    alone = [kept(dataset, "kernel") for dataset in ("CiteSeer-geom-gcn", "digits")]
    assert f"kernel's come nearest to it ({alone[0]:.0f} and {alone[1]:.0f})" in text
    capped = {}
    for run in runs:
        capped.setdefault((run["dataset"], run["model"]), []).append(run["epochs"] >= 300)
    everywhere = {which for which, ended in capped.items() if all(ended)}
    assert everywhere == {
        *itertools.product(("Cora", "CiteSeer"), ("gat", "gatv2", "kernel", "constant")),
        *(("Cora-geom-gcn", model) for model in of_three),
    }


def test_what_the_page_of_the_evidence_says_of_series_and_entropies():
    records = records_below("evidence/families", "evidence/graphs.jsonl")
    text = " ".join((ROOT / "evidence" / "README.md").read_text(encoding="utf8").split())
    judged = {v.dataset: v for v in verdicts(records)}
    nearest = {r["dataset"] for r in records if r["kind"] == "graph" and r["nearest"]} & judged.keys()
    chosen_earlier = {"JapaneseVowels-nearest", "SST2-nearest"}
    series = [v for name, v in judged.items() if name.endswith("-nearest") and name not in chosen_earlier]
    gains = np.array([100 * np.mean(v.differences) for v in series])
    assert len(series) == 11
    assert f"gain {gains.mean():.1f} points on average (p = {wilcoxon(gains):.2f})" in text
    points = {name: f"{abs(100 * np.mean(of.differences)):.1f}" for name, of in judged.items()}
    told = [points[name] for name in ("Handwriting-nearest", "Libras-nearest", "digits")]
    assert f"on Handwriting ({told[0]} points), Libras ({told[1]}) and digits ({told[2]})" in text
    told = [points[name] for name in ("Epilepsy-nearest", "GunPoint-nearest")]
    assert f"lose on Epilepsy ({told[0]}) and GunPoint ({told[1]})" in text
    alike = [v.preferred == (v.measure.sign * v.contest.difference > 0) for v in judged.values()]
    assert f"the same sign on {sum(alike)} of {len(alike)} graphs" in text
    assert sum(v.preferred for v in judged.values()) == 12
    classes = {r["dataset"]: r["classes"] for r in records if r["kind"] == "graph"}
    assert "many classes: 26, 15 and 10" in text
    assert [v for name, v in classes.items() if judged.get(name) and judged[name].outcome == "win"] in (
        list(order) for order in itertools.permutations((26, 15, 10))
    )
    rank_sum = between("evidence/README.md", "verdict").partition("p after Holm: ")[2].partition(".\n")[0]
    correlated = {
        name: float(p) for name, p in re.findall(r"(?:^|; )([^;]+?) [+−][\d.]+ \(p = ([\d.]+)\)", rank_sum)
    }
    assert len(correlated) == 6
    assert [name for name, p in correlated.items() if p <= LEVEL] == ["number of classes"]
    epilepsy = judged["Epilepsy-nearest"]
    assert f"(entropy {epilepsy.entropies['kernel']:.2f})" in text
    assert set(epilepsy.at_protocol) == {epilepsy.stock, "kernel"}  # the same settings
    assert set(judged["Handwriting-nearest"].at_protocol) == {"gat", "gatv2", "kernel"}
    floors = records + records_below("evidence/floors")
    means = [
        100
        * verdicts(floors, "kernel", [model])[list(judged).index("Epilepsy-nearest")].summaries[which].mean
        for model, which in (("mlp", "kernel"), ("mlp", "mlp"), ("constant", "constant"))
    ]
    assert (
        f"ends near the MLP ({means[0]:.1f} and {means[1]:.1f}), far from the plain mean ({means[2]:.1f})"
        in text
    )
    both = {
        name: (of[judged[name].stock], of["kernel"])
        for name in nearest
        if {judged[name].stock, "kernel"} <= (of := judged[name].entropies).keys()
    }
    series = {f"{name}-nearest" for name in ("ArrowHead", "ACSF1", "Epilepsy", "Handwriting")}
    assert {name for name, of in both.items() if min(of) < 0.85} == {"wine", *series}
    percent = [of for name, of in both.items() if judged[name].measure.percent]
    assert (sum(kernel > stock for stock, kernel in percent), len(percent)) == (7, 16)
    assert "the kernel's is nearer on seven of sixteen graphs" in text


def test_what_the_page_of_the_evidence_says_of_labels_and_edges():
    found = sweeps(records_below("evidence/sweep"))
    text = " ".join((ROOT / "evidence" / "README.md").read_text(encoding="utf8").split())
    labels = {name: {n: of["rbf"] for n, of in found[name, "labels"][1].items()} for name, _ in found}
    assert {name: list(of) for name, of in labels.items()} == {name: [5, 10, 20, 50, 100] for name in labels}
    assert all(of.difference > 0 for name in ("digits", "breast_cancer") for of in labels[name].values())
    gains = [of.difference for of in labels["digits"].values()]
    assert gains == sorted(gains, reverse=True)
    told = {
        (name, n): of.difference > 0
        for name in ("Cora", "CiteSeer")
        for n, of in labels[name].items()
        if of.p_value <= LEVEL
    }
    assert told == {("CiteSeer", 20): False}
    for name, said in (("digits", "from 95.5 to 94.6 on digits"), ("breast_cancer", "from 94.2 to 93.7 on")):
        amounts = found[name, "edges"][1]
        before, after = (100 * amounts[n]["gat"].mean for n in (0, 50))
        assert f"from {before:.1f} to {after:.1f} on" in said
        assert said in text
    rbf = [100 * found[name, "edges"][1][50]["rbf"].mean for name in ("digits", "breast_cancer")]
    assert f"{rbf[0]:.1f} and {rbf[1]:.1f}" in text
    start = [100 * found[name, "edges"][1][0]["rbf"].mean for name in ("digits", "breast_cancer")]
    assert all(after > before for before, after in zip(start, rbf, strict=True))
    on_cora = found["Cora", "edges"][1]
    assert {round(100 * on_cora[0][model].mean) for model in ("gat", "rbf")} == {83}
    assert {round(100 * on_cora[50][model].mean) for model in ("gat", "rbf")} == {74}
    assert all(of["rbf"].p_value > LEVEL for of in on_cora.values())


def test_what_the_page_of_the_evidence_says_of_a_hundred_labels():
    text = " ".join((ROOT / "evidence" / "README.md").read_text(encoding="utf8").split())
    counts = {}
    for name in ("digits", "breast_cancer"):
        task = load(f"{name}-100-labels")
        counts[name] = [bincount(task.data.y[split.train]) for split in task.splits]
    least, most = (of(int(of(each)) for each in counts["digits"]) for of in (min, max))
    assert f"100 labels are {least} to {most} on digits" in text
    assert {tuple(each.tolist()) for each in counts["breast_cancer"]} == {(70, 100)}
    assert "70 of the smaller class of breast_cancer" in text


def test_what_the_page_of_the_evidence_says_of_settings_of_kernels():
    # By question and change: where it helped or hurt, on validation nodes.
    text = between("evidence/README.md", "questions")
    assert "hurt 2 (CiteSeer, Cora)" in text
    assert not re.search(r"on validation nodes helped [1-9]", text)
    answered = answers(records_below("evidence/questions"))
    tests = {(of.dataset, of.model): 100 * of.summaries["test"][of.model].difference for of in answered}
    costs = {
        which: -tests[which]
        for which in itertools.product(("CiteSeer", "Cora"), ("rbf@start=median", "rbf@start=unit"))
    }
    assert [round(cost) for cost in costs.values()] == [4, 9, 1, 1]
    told = {
        (of.dataset, of.model): of.outcome("test") for of in answered if not of.model.startswith("rbf@start")
    }
    assert {which: said for which, said in told.items() if said != "neither"} == {
        ("digits", "rbf@shared_qk"): "hurt"
    }


def test_what_the_page_of_the_evidence_says_of_power_and_of_plain_layers():
    records = records_below("evidence/families")
    judged = {v.dataset: v for v in verdicts(records)}
    pairs = [len(v.differences) for v in judged.values()]
    assert sum(n == 10 for n in pairs) == 12
    # Of the next after those that are significant ten pairs have to agree: with the smallest on the other
    # side it misses.
    left = sum(v.outcome == "tie" for v in judged.values())
    assert 2.0**-9 * left <= LEVEL < 2 * 2.0**-9 * left
    published = {r["dataset"]: [] for r in records_below("evidence/published") if r["kind"] == "run"}
    for run in records_below("evidence/published"):
        if run["kind"] == "run":
            published[run["dataset"]].append(100 * run["test"])
    worth = [
        100 * judged[name].summaries["gat"].mean - np.mean(published[name])
        for name in ("Cornell", "Wisconsin")
    ]
    assert all(25 <= round(points) <= 30 for points in worth)
    contest = {v.dataset: v for v in verdicts(records, "constant", ["gat"])}["CiteSeer"]
    assert set(contest.at_protocol) == {"gat", "constant"}  # the same settings


def test_what_the_page_of_mixtures_says():
    records = records_below("evidence/mixtures")
    for mixture in MIXTURES[0]:
        judged = {v.dataset: v for v in verdicts(records, mixture, MIXTURES[1])}
        assert {name: v.outcome for name, v in judged.items() if v.outcome != "tie"} == {"digits": "loss"}
        assert len(judged) == 5
    apart = {v.dataset: v for v in verdicts(records, "rbf", ["gat"]) if v.outcome != "tie"}
    assert {name: v.outcome for name, v in apart.items()} == {"digits": "win"}
    gat, rbf = (apart["digits"].summaries[name].mean for name in ("gat", "rbf"))
    heads, summed = (
        v.contest.mean for m in MIXTURES[0] for v in verdicts(records, m, ["gat"]) if v.dataset == "digits"
    )
    assert gat < heads < rbf
    assert abs(summed - gat) < 0.003


def test_start_of_scores():
    assert between("ablation/start/README.md") == starts.page(ROOT / "ablation" / "start")


@pytest.mark.parametrize("name", ["ops", "molecules", "before"])
def test_ops(name):
    path = ROOT / "benchmarks" / f"{name}.jsonl"
    said = report.tables(read_results(path, ["ops"])) if path.exists() else "Not measured yet."
    assert between("benchmarks/README.md", name) == said


def test_epochs():
    path = ROOT / "benchmarks" / "epochs.jsonl"
    said = report.epochs(read_results(path, ["epoch"])) if path.exists() else "Not measured yet."
    assert between("benchmarks/README.md", "epochs") == said


@pytest.mark.parametrize("kind", ["threads", "memory"])
def test_threads_and_memory(kind):
    path = ROOT / "benchmarks" / f"{kind}.jsonl"
    if not path.is_file():
        pytest.skip(f"nothing is recorded in {path.name} yet")
    assert between("benchmarks/README.md", kind) == report.TABLES[kind](read_results(path, [kind]))


def test_regression():
    records = read_results(ROOT / "benchmarks" / "regression" / "results.jsonl", ["regression"])
    text = regression.table(regression.of_setting(records, regression.Setting(epochs=300)))
    assert between("benchmarks/regression/README.md", "regression") == text


@pytest.mark.parametrize("paper", PAPERS)
def test_papers(paper):
    records = read_results(SEQUENCES / f"{paper}.jsonl", ["sequence"])
    order = list(sequences.resolve_paper(paper).datasets)
    records.sort(key=lambda record: order.index(record["dataset"]))
    assert between("benchmarks/sequences/README.md", paper) == sequences.table(records)


@pytest.mark.parametrize("claim", claims.CLAIMS.values(), ids=lambda claim: claim.name)
def test_claims(claim):
    said = "Not trained yet."
    if (CLAIMED / f"{claim.name}.jsonl").exists():
        said = claims.text(claim, claims.lines(claim, CLAIMED)).strip()
    assert between("benchmarks/claims/README.md", claim.name) == said
