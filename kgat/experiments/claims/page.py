r"""What the records of a claim show: figures, and sentences that follow from them alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from statistics import mean, median
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kgat.experiments import plots, regression, sequences
from kgat.experiments.claims.claim import POINTS, Claim
from kgat.experiments.claims.density import slope
from kgat.experiments.sequences.tables import UNITS
from kgat.experiments.table import Table, render

Record = Mapping[str, Any]
Means = dict[str, dict[str, float]]  # of data sets and variants
NONE = "none of them"


def figures(claim: Claim, records: Sequence[Record]) -> dict[str, Figure]:
    r"""Returns the figures of a claim by the names of their files.

    Args:
        claim (Claim): The claim.
        records (list of dict): Its records.
    """
    drawn = {f"{claim.name}{end}.png": draw(shown) for end, draw, shown in _figures(claim.name, records)}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _figures(name: str, records: Sequence[Record]) -> Iterator[tuple[str, Any, Sequence[Record]]]:
    runs = [record for record in records if record["kind"] == "sequence" and record["test"] is not None]
    models = [{**run, "model": run["variant"]} for run in runs]
    if name == "approximation":
        yield "", plots.approximation, records  # type: ignore[attr-defined]
    elif name == "density":
        yield "", plots.density, records  # type: ignore[attr-defined]
    elif name == "spectra":
        firsts = [model for model in models if model["seed"] == 0]
        for dataset in dict.fromkeys(run["dataset"] for run in runs):
            shown = [
                {**first, "kind": "spectra", "layers": [layer["spectrum"] for layer in first["layers"]]}
                for first in firsts
                if first["dataset"] == dataset
            ]
            yield f"-{dataset}", plots.spectra, shown  # type: ignore[attr-defined]
        objectives = [{**model, "kind": "objective"} for model in models if model.get("ksvd")]
        yield "-objective", plots.objective, objectives  # type: ignore[attr-defined]
    elif name == "degrees":
        extra = {"kind": "rank", "what": WHAT["gram_rank"], "unit": "BLEU"}
        ranks = [{**model, **extra, "rank": _of_layers(model, "gram_rank")} for model in models]
        yield "", plots.ranks, ranks  # type: ignore[attr-defined]
    elif name in SHOWN:
        for field in SHOWN[name]:
            values = [
                {**model, "kind": "layer value", "what": WHAT[field], "values": _values(model, field)}
                for model in models
            ]
            yield f"-{field}", plots.layer_values, values  # type: ignore[attr-defined]
    else:
        yield "", plots.variant_scores, [*_scores(records)]  # type: ignore[attr-defined]
    if name == "images":  # a claim about scores and heads
        yield from ((f"-heads{end}", *drawn) for end, *drawn in _figures("heads", records))


# Numbers of layers that figures show, and how they are called there.
SHOWN = {
    "heads": ("distance", "relative"),
    "copula": ("correlation",),
    "definite": ("asymmetry", "negative"),
}
WHAT = {
    "distance": "distance of heads",
    "relative": "distance / norm of a head",
    "correlation": "correlation of heads",
    "asymmetry": "asymmetry of the kernel",
    "negative": "negative share of eigenvalues",
    "gram_rank": "numerical rank of the kernel on up to 512 tokens, mean over heads and layers",
}


def _values(run: Record, field: str) -> list[float]:
    return [layer[field] for layer in run["layers"] if layer.get(field) is not None]


def _of_layers(run: Record, field: str) -> float:
    return mean(_values(run, field))


def _scores(records: Sequence[Record]) -> Iterator[Record]:
    for record in records:
        if record["test"] is None:
            continue
        scale, unit = 1.0, record.get("unit", "")
        if record["kind"] == "sequence":
            scale, unit = 100.0 if record["metric"] == "accuracy" else 1.0, UNITS[record["metric"]]
        test = scale * record["test"]
        model = record.get("variant") or record["model"]
        yield {**record, "kind": "variant score", "model": model, "test": test, "unit": unit}


def means(records: Sequence[Record], value: Callable[[Record], float], variants: Sequence[str] = ()) -> Means:
    r"""Returns per data set and variant the mean of a number over runs, of data sets that have all variants.

    Args:
        records (list of dict): Records of kind :obj:`"sequence"`; those that diverged do not count.
        value (Callable): Returns the number of a run.
        variants (list of str, optional): The variants; those of the records if empty. (default: :obj:`()`)
    """
    runs = [record for record in records if record["kind"] == "sequence" and record["test"] is not None]
    names = variants or list(dict.fromkeys(run["variant"] for run in runs))
    found: Means = {}
    for dataset, name in product(dict.fromkeys(run["dataset"] for run in runs), names):
        of_variant = [value(run) for run in runs if (run["dataset"], run["variant"]) == (dataset, name)]
        if of_variant:
            found.setdefault(dataset, {})[name] = mean(of_variant)
    return {dataset: of_set for dataset, of_set in found.items() if len(of_set) == len(names)}


def text(claim: Claim, records: Sequence[Record]) -> str:
    r"""Returns what a page says of a claim: the claim, what the records show, a table and the figures.

    Args:
        claim (Claim): The claim.
        records (list of dict): Its records.
    """
    blocks: list[str | Table] = [" ".join([*SENTENCES[claim.name](records), *_progress(claim, records)])]
    blocks += TABLES[claim.name](records) if claim.name in TABLES else []
    runs = [record for record in records if record["kind"] == "sequence"]
    points = regression.of_setting(records, POINTS)
    blocks += [regression.table(points)] if points else []
    blocks += [sequences.table(runs)] if runs else []
    blocks += [f"![{claim.title}]({name})" for name in figures(claim, records)]
    return render(blocks)


def _progress(claim: Claim, records: Sequence[Record]) -> Iterator[str]:
    wanted = len(claim.datasets) * len(claim.variants) + len(claim.regression) * len(claim.models)
    if wanted and len(records) < wanted * claim.seeds:
        yield f"So far {len(records)} of {wanted * claim.seeds} runs are there."


def _exponent(records: Sequence[Record], model: str, scale: float) -> float:
    draws = _draws(records, model, scale)
    middle = np.median([record["kernel"] for record in draws], axis=0)
    return slope(draws[0]["features"], middle.tolist())


def _draws(records: Sequence[Record], model: str, scale: float) -> list[Record]:
    return [record for record in records if (record["model"], record["scale"]) == (model, scale)]


def _cases(records: Sequence[Record]) -> list[tuple[float, str]]:
    cases = dict.fromkeys((record["scale"], record["model"]) for record in records)
    return sorted(cases, key=lambda case: case[0])


def _approximation(records: Sequence[Record]) -> Iterator[str]:
    for scale in sorted({record["scale"] for record in records}):
        names = [name for of_scale, name in _cases(records) if of_scale == scale and "truncated" not in name]
        random = {name: _exponent(records, name, scale) for name in names}
        near = [name for name, power in random.items() if abs(power + 0.5) <= 0.1]
        far = [f"{name} (m^{power:.2f})" for name, power in random.items() if name not in near]
        yield f"On tokens of standard deviation {scale:g} the error of the Gram matrix falls like m^−0.5,"
        yield f"within 0.1 of the exponent, for {len(near)} of {len(random)} random maps"
        yield f"({'; '.join(near) or NONE}){', and otherwise for ' if far else ''}{'; '.join(far)}.".replace(
            "^-", "^−"
        )
    draws = len({record["seed"] for record in records})
    yield f"Medians of {draws} draws of {records[0]['tokens']} normal tokens of"
    yield f"{records[0]['channels']} channels and of the directions."


def _approximation_table(records: Sequence[Record]) -> list[str | Table]:
    rows = []
    for scale, name in _cases(records):
        draws = _draws(records, name, scale)
        sizes = draws[0]["features"]
        place = max(i for i, size in enumerate(sizes) if size <= 256)
        kernel, attention = (median(r[what][place] for r in draws) for what in ("kernel", "attention"))
        power = f"{_exponent(records, name, scale):.2f}".replace("-", "−")
        rows.append([name, f"{scale:g}", power, str(sizes[place]), f"{kernel:.2g}", f"{attention:.2g}"])
    head = ["kernel: feature map", "deviation", "exponent", "features", "error of the Gram matrix"]
    return [Table([*head, "error of attention"], rows)]


def best_errors(records: Sequence[Record]) -> dict[tuple[int, int], tuple[float, float]]:
    r"""Returns per number of channels and power the exponents with which, at the best R of each size, the
    mean integrated squared error and R follow the size of the data.

    Args:
        records (list of dict): Records of kind :obj:`"density"`.
    """
    found = {}
    for channels, power in sorted({(record["channels"], record["power"]) for record in records}):
        chosen = [r for r in records if (r["channels"], r["power"]) == (channels, power)]
        sizes = sorted({record["size"] for record in chosen})
        errors = [np.mean([r["errors"] for r in chosen if r["size"] == n], axis=0) for n in sizes]
        best = [_best(chosen, next(r for r in chosen if r["size"] == n)) for n in sizes]
        exponents = slope(sizes, [float(error.min()) for error in errors]), slope(sizes, best)
        found[channels, power] = exponents
    return found


def _density(records: Sequence[Record]) -> Iterator[str]:
    for (channels, power), (error, _) in best_errors(records).items():
        bound = -4.0 / (channels + 4)
        if power >= 4:
            how = "as fast as" if error <= bound + 0.05 else "slower over these sizes than"
            yield f"In {channels} dimension{'s' * (channels > 1)} with power {power} the error at the best R"
            yield f"falls like N^{error:.2f}, {how} the bound N^{bound:.2f} says.".replace("^-", "^−")
        else:
            yield f"In {channels} dimension{'s' * (channels > 1)} with power {power}, outside the theorem,"
            yield f"the error at the best R falls like N^{error:.2f}.".replace("^-", "^−")
    for record in records:
        if record["seed"] == 0 and _best(records, record) == record["bandwidths"][-1]:
            yield f"Of power {record['power']}, D = {record['channels']}, N = {record['size']:,} the best R"
            yield "is the largest that was tried."
    yield "R is one of a grid whose steps are the root of 2, so that its own exponent is a coarse one. The"
    yield "bound is one for N towards infinity; a slower fall over these sizes does not contradict it."


def _best(records: Sequence[Record], like: Record) -> float:
    names = ("channels", "power", "size")
    draws = [r["errors"] for r in records if all(r[name] == like[name] for name in names)]
    return float(like["bandwidths"][int(np.mean(draws, axis=0).argmin())])


def _density_table(records: Sequence[Record]) -> list[str | Table]:
    rows = []
    for (channels, power), (error, best) in best_errors(records).items():
        bound = [-4.0 / (channels + 4), 1.0 / (channels + 4)] if power >= 4 else [float("nan")] * 2
        numbers = (error, bound[0], best, bound[1])
        said = ["–" if value != value else f"{value:+.2f}".replace("-", "−") for value in numbers]
        rows.append([str(channels), str(power), *said])
    head = ["D", "power", "error: exponent of N", "its bound", "best R: exponent of N", "of the theorem"]
    return [Table(head, rows, names=2)]


def _layer_means(records: Sequence[Record], field: str, *variants: str) -> Means:
    return means(records, lambda run: _of_layers(run, field), variants)


def _compared(of_sets: Means, first: str, second: str) -> tuple[int, str]:
    # In how many data sets the first is larger, and the numbers of all.
    pairs = {dataset: (one[first], one[second]) for dataset, one in of_sets.items()}
    said = ", ".join(f"{dataset} {a:.3g} and {b:.3g}" for dataset, (a, b) in pairs.items())
    return sum(a > b for a, b in pairs.values()), said


def _heads(records: Sequence[Record]) -> Iterator[str]:
    for field, said in (("distance", "Frobenius distance"), ("relative", "distance over the norm of a head")):
        of_sets = _layer_means(records, field, "fourier", "softmax")
        if not of_sets:
            return
        ups, numbers = _compared(of_sets, "fourier", "softmax")
        yield f"{said.capitalize()}, mean over layers, is larger with Fourier attention than with softmax"
        yield f"attention on {ups} of {len(of_sets)} sets ({numbers})."
    yield from _ranked([record for record in records if record["metric"] == "perplexity"])


def _images(records: Sequence[Record]) -> Iterator[str]:
    yield from _ranked(records)
    yield from _heads(records)


def _spectra(records: Sequence[Record]) -> Iterator[str]:
    primal = ("primal", "primal, no KSVD", "primal+", "primal+, no KSVD")
    last = means(records, lambda run: run["layers"][-1]["effective_rank"], ("softmax", *primal))
    for name in ("primal", "primal+") if last else ():
        without = f"{name}, no KSVD"
        lower = sum(one[name] < one["softmax"] for one in last.values())
        also = sum(one[without] < one["softmax"] for one in last.values())
        downs, numbers = _compared(last, without, name)
        ups, _ = _compared(last, name, without)
        yield f"The effective rank of the last layer of {name} is below that of softmax attention on {lower}"
        yield f"of {len(last)} sets with the KSVD loss and on {also} without it; the loss makes it lower on"
        yield f"{downs} and higher on {ups} ({numbers}, without and with), however little."
    runs = [record for record in records if record.get("ksvd")]
    for name in dict.fromkeys(run["variant"] for run in runs):
        ends = [(run["ksvd"][0], run["ksvd"][-1]) for run in runs if run["variant"] == name]
        begin, end = (mean(values) for values in zip(*ends, strict=True))
        yield f"J of {name}: {begin:.3g} after the first epoch, {end:.3g} after the last, means over runs."


def _off_diagonal(run: Record) -> float:
    matrices = [np.array(layer["copula"]) for layer in run["layers"] if layer.get("copula")]
    return mean(float(np.abs(m[~np.eye(len(m), dtype=bool)]).mean()) for m in matrices)


def _copula(records: Sequence[Record]) -> Iterator[str]:
    tied = [run for run in records if run["variant"] == "copula*l2" and run["test"] is not None]
    if tied:
        yield "The copula learned correlations between heads whose mean size is"
        yield f"{mean(map(_off_diagonal, tied)):.3f}, over channels, layers and runs; of the control they are"
        yield "0 by construction."
    of_sets = _layer_means(records, "correlation", "copula*l2", "implicit*l2")
    if not of_sets:
        return
    ups, numbers = _compared(of_sets, "copula*l2", "implicit*l2")
    yield f"Attention weights of two heads are more correlated with a copula than without on {ups} of"
    yield f"{len(of_sets)} sets ({numbers}, with and without)."


def _definite(records: Sequence[Record]) -> Iterator[str]:
    for field, said in (("asymmetry", "Asymmetry"), ("negative", "The negative share of eigenvalues")):
        of_sets = _layer_means(records, field)
        for dataset, one in of_sets.items():
            numbers = ", ".join(f"{name} {_or_rounding(value)}" for name, value in one.items())
            yield f"{said} on {dataset}, mean over heads, layers and seeds: {numbers}."


def _or_rounding(value: float) -> str:
    return "0 to rounding" if value < ROUNDING else f"{value:.2g}"


ROUNDING = 1e-9  # kernels are looked at in double precision


def _orders(records: Sequence[Record]) -> Iterator[str]:
    of_sets: dict[str, dict[str, list[float]]] = {}
    for score in _scores(records):
        if score["model"] != "softmax":
            of_sets.setdefault(score["dataset"], {}).setdefault(score["model"], []).append(score["test"])
    apart, complete = [], []
    for dataset, one in of_sets.items():
        if len(one) < 4 or min(map(len, one.values())) < 2:
            continue
        complete.append(dataset)
        lowest, highest = min(one.values(), key=mean), max(one.values(), key=mean)
        deviation = max(float(np.std(tests, ddof=1)) for tests in (lowest, highest))
        if mean(highest) - mean(lowest) > 2 * deviation:
            apart.append(dataset)
    if not complete:  # with one seed there is no deviation
        return
    yield "The best and the worst p are farther apart than twice the larger of their deviations over seeds (a"
    yield f"rule of thumb, no test) on {len(apart)} of {len(complete)} sets ({', '.join(apart) or NONE})."


def _translation(records: Sequence[Record]) -> Iterator[str]:
    yield from _ranked(records)
    yield from _orders(records)


def _degrees(records: Sequence[Record]) -> Iterator[str]:
    bleu = means(records, lambda run: run["test"])
    rank = _layer_means(records, "gram_rank")
    for dataset, one in bleu.items():
        said = ", ".join(f"{name} {one[name]:.1f} ({rank[dataset][name]:.0f})" for name in one)
        yield f"BLEU on {dataset} and, in brackets, the numerical rank (singular values above 10⁻³ of the"
        yield f"largest on up to 512 tokens, mean over heads and layers): {said}."
        if "exponential" not in one:
            continue
        exponential = [
            run["test"] for run in records if (run["dataset"], run["variant"]) == (dataset, "exponential")
        ]
        finite = {name: value - one["exponential"] for name, value in one.items() if name != "exponential"}
        said = ", ".join(f"{name} {value:+.1f}" for name, value in finite.items()).replace("-", "−")
        deviation = f"; over seeds it deviates by {np.std(exponential, ddof=1):.1f}" * (len(exponential) > 1)
        yield f"Of finite dimension, BLEU against the exponential: {said}{deviation}."
        settings = (run.get("setting") for run in records if run["dataset"] == dataset)
        setting = next(filter(None, settings), None)
        if setting is not None:
            channels = setting["embed_dim"] // setting["num_heads"]
            features = math.comb(channels + 2, 2)
            yield f"Of the {channels} channels of a head degree 2 has {features} features already, so that"
            yield "the figure tells nothing of dimensions below the number of tokens."


def _ranked(records: Sequence[Record], base: str = "softmax") -> Iterator[str]:
    tests = {(score["dataset"], score["model"], score["seed"]): score["test"] for score in _scores(records)}
    for dataset, one in means(records, lambda run: run["test"]).items():
        metric = next(record["metric"] for record in records if record["dataset"] == dataset)
        sign, scale = -1.0 if metric == "perplexity" else 1.0, 100.0 if metric == "accuracy" else 1.0
        order = sorted(one, key=lambda name, one=one, sign=sign: -sign * one[name])  # type: ignore[misc]
        said = "; ".join(f"{name} ({scale * one[name]:.1f})" for name in order)
        yield f"From best to worst on {dataset} ({UNITS[metric]}, means over seeds): {said}."
        better = []
        for name in [name for name in one if name != base]:
            seeds = [seed for d, n, seed in tests if (d, n) == (dataset, name) and (d, base, seed) in tests]
            gains = [sign * (tests[dataset, name, seed] - tests[dataset, base, seed]) for seed in seeds]
            better.append(f"{name} in {sum(gain > 0.0 for gain in gains)} of {len(gains)}")
        if better:
            yield f"Seeds in which one is better than {base}: {'; '.join(better)}."


SENTENCES: Mapping[str, Callable[[Sequence[Record]], Iterator[str]]] = {
    "approximation": _approximation,
    "density": _density,
    "heads": _heads,
    "images": _images,
    "spectra": _spectra,
    "copula": _copula,
    "definite": _definite,
    "orders": _orders,
    "listops": _ranked,
    "degrees": _degrees,
    "values": partial(_ranked, base="sum in layers, v1"),
    "memory": partial(_ranked, base="segments of 16"),
    "positions": partial(_ranked, base="none"),
    "language": partial(_ranked, base="none"),
    "translation": _translation,
}
TABLES: Mapping[str, Callable[[Sequence[Record]], list[str | Table]]] = {
    "approximation": _approximation_table,
    "density": _density_table,
}
