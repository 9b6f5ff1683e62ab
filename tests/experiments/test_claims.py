r"""Claims of papers: what is trained for them, and that sentences say what their lines do."""

import dataclasses
import json
import math

import pytest
import torch

from kgat import cli
from kgat.datasets import SequenceTask, load_sequences
from kgat.datasets.sequence_task import Padded, Pairs, Stream
from kgat.datasets.vocabulary import SPECIALS, Words
from kgat.experiments import claims, sequences
from kgat.experiments.claims import approximation, density, page
from kgat.experiments.ledger import read
from kgat.experiments.sequences.layers import ksvd, layers_record
from kgat.nn import PrimalAttention

TINY = sequences.Setting(embed_dim=8, num_heads=2, feedforward_channels=8, num_features=4, epochs=2)
EXPRESSIONS = {"lengths": (5, 9), "sizes": (12, 6, 4)}


def task():
    return load_sequences("ListOps", **EXPRESSIONS)


def trained(variant, dataset, seed, test, **values):
    layers = [{"name": "0", **values}, {"name": "1", **values}]
    names = {"kind": "sequence", "dataset": dataset, "metric": "accuracy", "variant": variant}
    return {**names, "seed": seed, "test": test, "layers": layers}


@pytest.mark.parametrize("claim", claims.CLAIMS.values(), ids=lambda claim: claim.name)
def test_every_claim_can_be_trained(claim):
    assert claim.name in page.SENTENCES
    for dataset in claim.datasets:
        setting = claim.setting(dataset)
        for variant in claim.variants.values():
            kwargs = sequences.arguments(dataset, variant, setting)
            assert json.dumps(kwargs)
            if isinstance(position := kwargs.get("position"), (list, tuple)):
                stacks = 2 if dataset == "Multi30k" else 1  # of encoder and decoder
                assert len(position) == stacks * setting.num_layers


WORDS = Words([*SPECIALS, "a", "b"])
SENTENCES = Padded(torch.tensor([[2, 4, 5, 3], [2, 5, 3, 0]]), torch.tensor([4, 3]))
PARTS = {
    "PTB": ("language_model", Stream(torch.arange(44) % 6)),
    "Multi30k": ("translation", Pairs(SENTENCES, SENTENCES, ("a b", "b"))),
}


@pytest.mark.parametrize(
    ("claim", "dataset", "variant"),
    [
        (name, dataset, variant)
        for name in ("translation", "positions", "values", "memory", "language")
        for dataset in claims.CLAIMS[name].datasets
        for variant in claims.CLAIMS[name].variants
    ],
)
def test_every_variant_of_texts_can_be_trained(claim, dataset, variant):
    kind, part = PARTS[dataset]
    text = SequenceTask(dataset, kind, part, part, part, "", "", vocabulary=WORDS, target_vocabulary=WORDS)
    setting = dataclasses.replace(TINY, block=5, batch_size=2, epochs=1)
    kwargs = sequences.arguments(dataset, claims.CLAIMS[claim].variants[variant], setting)
    torch.manual_seed(0)
    model = sequences.build(text, kwargs, setting)
    fitted = sequences.fit(model, part, part, setting, generator=torch.Generator().manual_seed(0))
    assert math.isfinite(fitted.val)
    if dataset == "Multi30k":  # search goes token by token
        assert len(model.translate(SENTENCES.x, bos=2, eos=3, max_len=4)) == 2


def test_the_ksvd_loss_is_off_without_it():
    variants = claims.CLAIMS["spectra"].variants
    setting = sequences.settings_of("ERing")
    for name in ("primal", "primal+"):
        weights = [
            sequences.arguments("ERing", variants[one], setting)["attention_kwargs"]["ksvd_weight"]
            for one in (name, f"{name}, no KSVD")
        ]
        assert weights[0] > 0.0 == weights[1]


def test_errors_see_rows_and_no_common_factor():
    exact = torch.tensor([[3.0, 1.0], [1.0, 1.0]])
    off = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    found = approximation.errors(exact, [5.0 * exact, off])
    # The best factor is 6 / 4.
    assert found["kernel"] == [0.0, pytest.approx(math.sqrt((2.25 + 0.75) / 12), rel=1e-3)]
    assert found["attention"] == [0.0, pytest.approx(0.125)]


def test_every_map_estimates_its_kernel():
    torch.manual_seed(0)
    query, key = 0.3 * torch.randn(2, 40, 1, approximation.CHANNELS, dtype=torch.float64)
    for name, one in approximation._maps().items():
        exact = one.exact.double()(query, key).dense().exp().squeeze(-1)
        with torch.no_grad():
            most = one.build(max(one.sizes.values())).double()
            found = approximation.errors(exact.detach(), [approximation._estimate(most, query, key)])
            features = most(query, key).features()[0].size(-1)
        assert found["kernel"][0] < 0.1, name
        assert max(one.sizes) <= features <= max(one.sizes) + 1, name  # one more for a floor


def test_density_is_one():
    axis = torch.linspace(-density.REACH, density.REACH, density.STEPS[2])
    grid = torch.cartesian_prod(axis, axis)
    assert float(density.density(grid).sum()) * float(axis[1] - axis[0]) ** 2 == pytest.approx(1.0, abs=1e-4)


def test_exponents_are_those_of_the_best_bandwidth():
    # R^-4 + R / N: the best R is the one of the grid that is nearest to (4 N)^(1/5).
    sizes, grid = (10**2, 10**4, 10**6), [2.0 ** (step / 8) for step in range(80)]
    records = [
        {
            "channels": 1,
            "power": 4,
            "size": n,
            "seed": 0,
            "bandwidths": grid,
            "errors": [r**-4 + r / n for r in grid],
        }
        for n in sizes
    ]
    error, best = page.best_errors(records)[1, 4]
    assert error == pytest.approx(-0.8, abs=0.01)
    assert best == pytest.approx(0.2, abs=0.01)
    said = " ".join(page._density(records))
    assert "N^−0.80, as fast as the bound N^−0.80" in said
    slow = [{**record, "errors": [0.1 + e for e in record["errors"]]} for record in records]
    assert "slower over these sizes than the bound" in " ".join(page._density(slow))


def test_layers_are_looked_at_after_training():
    record = sequences.run(task(), "softmax", {"kernel": "dot_product"}, 0, TINY, layers=True)
    first, second = record["layers"]
    assert first["name"] == "transformer.encoder.0.self_attn"
    assert {"distance", "relative", "correlation", "effective_rank", "asymmetry", "gram_rank"} <= set(second)
    assert len(second["spectrum"]) == 32
    assert second["spectrum"][-1] == 1.0
    assert "ksvd" not in record
    assert "layers" not in sequences.run(task(), "softmax", {"kernel": "dot_product"}, 0, TINY)


def test_shared_projections_make_symmetric_kernels():
    asymmetry = {}
    for projections in ("separate", "shared_qk"):
        torch.manual_seed(0)
        kwargs = sequences.arguments("ListOps", {"kernel": "rbf", "projections": projections}, TINY)
        model = sequences.build(task(), kwargs, TINY)
        asymmetry[projections] = [layer["asymmetry"] for layer in layers_record(model, task().val, TINY)]
    assert max(asymmetry["shared_qk"]) < 1e-12 < min(asymmetry["separate"])


def test_j_is_measured_whatever_its_weight():
    torch.manual_seed(0)
    kwargs = sequences.arguments("ListOps", claims.CLAIMS["spectra"].variants["primal, no KSVD"], TINY)
    model = sequences.build(task(), kwargs, TINY)
    measured = ksvd(model, task().val, TINY)
    assert measured > 0.0
    layers = [module for module in model.modules() if isinstance(module, PrimalAttention)]
    assert [layer.ksvd_weight for layer in layers] == [0.0, 0.0]
    assert measured == ksvd(model, task().val, TINY)
    record = sequences.run(task(), "primal", {"attention": "primal"}, 0, TINY, layers=True)
    assert len(record["ksvd"]) == record["epochs"]
    assert "distance" not in record["layers"][0]  # there are no weights of pairs


def test_sentences_count_sets_that_have_all():
    records = [
        trained("softmax", "A", 0, 0.5, distance=1.0, relative=2.0),
        trained("fourier", "A", 0, 0.5, distance=2.0, relative=1.0),
        trained("softmax", "B", 0, 0.5, distance=1.0, relative=1.0),  # its rival is not trained yet
        {**trained("fourier", "B", 0, None), "layers": []},
    ]
    said = " ".join(page._heads(records))
    assert "with Fourier attention than with softmax attention on 1 of 1 sets (A 2 and 1)" in said
    assert "on 0 of 1 sets (A 1 and 2)" in said
    assert "perplexity" not in said
    words = [{**record, "metric": "perplexity"} for record in records[:2]]
    assert "on A (perplexity, means over seeds): softmax (0.5); fourier (0.5)" in " ".join(page._heads(words))
    assert list(page._heads(records[2:])) == []


def test_sentences_of_orders_compare_with_the_spread_of_seeds():
    def runs(dataset, apart):
        return [
            trained(f"p{p}", dataset, seed, 0.5 + 0.01 * seed + apart * p)
            for p in range(4)
            for seed in range(3)
        ]

    said = " ".join(page._orders(runs("A", 0.001) + runs("B", 0.1)))
    assert "on 1 of 2 sets (B)" in said


@pytest.mark.parametrize(
    ("metric", "first", "better"),
    [
        ("bleu", "(BLEU, means over seeds): sum (25.0); none", "sum in 1 of 2"),
        ("perplexity", "(perplexity, means over seeds): none (20.0); sum", "sum in 0 of 2"),
        ("accuracy", "(accuracy in %, means over seeds): sum (2500.0); none", "sum in 1 of 2"),
    ],
)
def test_order_of_variants_is_that_of_the_metric(metric, first, better):
    records = [trained("none", "A", seed, 20.0) for seed in range(2)]
    records += [trained("sum", "A", seed, test) for seed, test in enumerate((30.0, 20.0))]
    said = " ".join(page._ranked([{**record, "metric": metric} for record in records], base="none"))
    assert f"on A {first}" in said
    assert f"better than none: {better}." in said


def test_one_position_in_a_list_is_that_of_all_layers():
    one = {"kernel": "rbf", "position": ("sum",)}
    assert sequences.arguments("PTB", one, TINY)["position"] == ["sum"] * 2
    assert sequences.arguments("Multi30k", one, TINY)["position"] == ["sum"] * 4


def test_lines_of_a_setting_with_options_are_found(tmp_path, monkeypatch):
    claim = claims.Claim(
        "made", "Made", "", "", datasets=("ListOps",), settings={"ListOps": {"options": EXPRESSIONS}}
    )
    record = {
        **trained("softmax", "ListOps", 0, 0.5),
        "setting": dataclasses.asdict(claim.setting("ListOps")),
    }
    (tmp_path / "made.jsonl").write_text(json.dumps(record) + "\n")
    assert len(claims.lines(claim, tmp_path)) == 1


def test_figures_of_every_claim_with_layers():
    values = {"distance": 1.0, "relative": 1.0, "correlation": 0.5, "asymmetry": 0.1, "negative": 0.1}
    values |= {
        "gram_rank": 7.0,
        "effective_rank": 2.0,
        "spectrum": [0.5, 1.0],
        "copula": [[1, 0.2], [0.2, 1]],
    }
    for name, claim in claims.CLAIMS.items():
        records = [
            {**trained(variant, dataset, seed, 0.5, **values), "ksvd": [1.0, 0.1]}
            for dataset in claim.datasets
            for variant in claim.variants
            for seed in range(2)
        ]
        if records:
            drawn = claims.figures(claim, records)
            assert drawn
            if name == "images":
                assert set(drawn) == {"images.png", "images-heads-distance.png", "images-heads-relative.png"}
            assert all(file.startswith(name) for file in drawn)
            assert list(page.SENTENCES[name](records))


def test_what_is_there_is_not_measured_again(tmp_path, capsys):
    folder = str(tmp_path)
    assert cli.main(["claims", "approximation", "--seeds", "1", "--out", folder]) == 0
    first = read(tmp_path / "approximation.jsonl")
    assert len(first) == len(approximation.jobs(1))
    said = capsys.readouterr().out
    assert cli.main(["claims", "approximation", "--draw", "--out", folder]) == 0
    assert capsys.readouterr().out == said
    assert cli.main(["claims", "approximation", "--seeds", "1", "--out", folder]) == 0
    assert read(tmp_path / "approximation.jsonl") == first
    assert (tmp_path / "approximation.png").stat().st_size < 500_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hads"], "heads"),
        (["heads", "--datasets", "Cora"], "Expected a data set of this claim"),
        (["heads", "--draw"], "run: kgat claims heads"),
        (["heads", "--draw", "--seeds", "2"], "--draw"),
    ],
)
def test_wrong_calls_end_in_one_sentence(arguments, said, tmp_path, capsys):
    assert cli.main(["claims", *arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
