r"""The catalogues of kernels and positions, read from classes: formula, picture, laws, cost, parameters."""

import inspect
import re
import tomllib
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from _generate import save
from kgat import kernels, positions
from kgat.functional import explain
from kgat.kernels import Kernel
from kgat.names import snake
from kgat.nn import KernelAttention
from kgat.score.gram import Gram, LazyGram
from kgat.score.rules import ScoreRule

WORDS = Path(__file__).parents[1] / "kernels.toml"
CHANNELS = 8  # of the facts; pictures have two
INK = "#808080"  # legible on white and on black
SPAN = 3.0  # of pictures, on both sides of the origin


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "kernels.rst", _kernels(folder))
    save(folder / "positions.rst", _positions(folder))


def _title(text: str, sign: str) -> str:
    return f"{text}\n{sign * len(text)}\n\n"


def described(cls: type) -> str:
    r"""A docstring up to its first section."""
    lines = (inspect.getdoc(cls) or "").splitlines()
    sections = ("Args:", "Shapes:", "Raises:", "Example:", "Returns:")
    end = next((i for i, line in enumerate(lines) if line.strip() in sections), len(lines))
    return "\n".join(lines[:end]).strip()


def literal(text: str) -> str:
    r"""Markdown's code spans as those of reStructuredText; roles stay."""
    return re.sub(r"(:\w+:`[^`]*`)|`([^`]+)`", lambda m: m[1] or f"``{m[2]}``", text.strip())


def _table(rows: list[tuple[str, str]]) -> str:
    lines = [".. list-table::", "   :widths: 22 78", "   :class: facts", ""]
    for name, value in rows:
        lines += [f"   * - {name}", f"     - {value}"]
    return "\n".join(lines) + "\n\n"


def _picture(path: str, alt: str) -> str:
    return f".. image:: {path}\n   :alt: {alt}\n   :class: profile\n   :width: 100%\n\n"


def words() -> dict[str, Any]:
    return tomllib.loads(WORDS.read_text(encoding="utf8"))


def families() -> list[dict[str, Any]]:
    r"""Families with the names of their kernels; last, those of kernels that are in none yet."""
    sorted_in = words()["family"]
    known = {name for family in sorted_in for name in family["kernels"]}
    others = [name for name in kernels.names() if name not in known]
    return sorted_in + ([{"title": "Others", "text": "", "kernels": others}] if others else [])


def _kernels(folder: Path) -> str:
    text = _title("Kernels", "=") + ".. currentmodule:: kgat.kernels\n\n"
    text += literal(words()["kernels"]) + "\n\n"
    text += _overview()
    for family in families():
        text += _title(family["title"], "-") + literal(family["text"]) + "\n\n"
        for name in family["kernels"]:
            text += _kernel(name, folder)
    return text


def _overview() -> str:
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 24 10 10 16 40", ""]
    lines += ["   * - kernel", "     - symmetric", "     - PSD", "     - features", "     - learned"]
    for family in families():
        for name in family["kernels"]:
            kernel = _build(name)
            lines += [
                f"   * - `{name}`_",
                f"     - {_yes(kernel.symmetric)}",
                f"     - {_yes(kernel.positive_definite)}",
            ]
            lines += [f"     - {_features(kernel)[0]}", f"     - {_learned(kernel)}"]
    return "\n".join(lines) + "\n\n"


def _build(name: str) -> Kernel:
    torch.manual_seed(0)
    return kernels.resolve(name, CHANNELS, 1).eval()


def _kernel(name: str, folder: Path) -> str:
    cls, kernel = getattr(kernels, name), _build(name)
    save(folder / "pictures" / f"{name}.png", picture(name))
    laws = {
        "symmetric": kernel.symmetric,
        "positive semi-definite": kernel.positive_definite,
        "translation invariant": kernel.translation_invariant,
    }
    rows = [
        (
            "Laws",
            ", ".join(law for law, holds in laws.items() if holds)
            or "none of symmetric, PSD, translation invariant",
        ),
        ("Features", _features(kernel)[1]),
        ("Learned", _learned(kernel)),
        ("Cost", _cost(kernel)),
        ("Names", _names(name)),
        ("Arguments", f":class:`kgat.kernels.{name}`"),
    ]
    alt = f"Weight of a key in the plane and score along a line for the kernel {name}"
    return _title(name, "~") + described(cls) + "\n\n" + _picture(f"pictures/{name}.png", alt) + _table(rows)


def _names(name: str) -> str:
    others = [alias for alias, target in kernels.CATALOGUE.aliases.items() if target.split("[")[0] == name]
    return ", ".join(f"``{text}``" for text in dict.fromkeys([snake(name), *others]))


def _yes(holds: bool) -> str:
    return "yes" if holds else "–"


def _points(channels: int = CHANNELS) -> Tensor:
    return torch.randn(6, 1, channels, generator=torch.Generator().manual_seed(1))


def _features(kernel: Kernel) -> tuple[str, str]:
    try:
        query, _ = kernel(_points(), _points()).features()
    except NotImplementedError:
        return "–", "no finite feature map"
    count = query.size(-1)
    return str(
        count
    ), f"{count} features give the kernel exactly, so that attention over all pairs can be linear in time"


def _learned(kernel: Kernel) -> str:
    # Of a part with many parameters, such as a network, its name.
    names = dict.fromkeys(
        name.split(".")[0] for name, value in kernel.named_parameters() if value.requires_grad
    )
    return ", ".join(f"``{name}``" for name in names) or "nothing"


def _cost(kernel: Kernel) -> str:
    gram = kernel(_points(), _points())
    if gram.signed:
        return "no attention, as it can be negative"
    edges = torch.tensor([[0, 1], [1, 2]])
    runs = "cpu: ok" in explain(gram, _points(), edges)
    where = "fused" if runs else "in pieces, on the eager backend"
    return f"{_sums(gram)}; {where}"


def _sums(gram: Gram) -> str:
    if not isinstance(gram, LazyGram):
        return "several sums, and a function of them"
    if not gram.terms:
        return "one number per node and nothing per edge but the sum of the two"
    parts = []
    for term in gram.terms:
        if not isinstance(term.rule, ScoreRule):
            return "a function of the two vectors, in torch"
        link = term.rule.link.name.replace("_", " ")
        after = "" if link == "identity" else f", then one ``{term.rule.link.name}``"
        parts.append(f"{term.query.size(-1)} × ``{term.rule.pair.name}``{after}")
    biases = "" if gram.key_bias is None and gram.query_bias is None else ", plus a number of each node"
    return " and ".join(parts) + biases


def picture(name: str) -> bytes:
    r"""The plane of keys as a query sees it, and the score along a line."""
    torch.manual_seed(0)
    kernel = kernels.resolve(name, 2, 1).eval()
    _spread(kernel)
    axis = torch.linspace(-SPAN, SPAN, 161)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    query = torch.tensor([1.2, 0.6]).view(1, 1, 2)
    with torch.no_grad():
        values = _evaluated(kernel, query, torch.stack([x, y], dim=-1).view(-1, 1, 2))[0].view(161, 161)
        line = (axis[:, None] * torch.tensor([2.0, 1.0]) / 5**0.5).view(-1, 1, 2)
        profile = _evaluated(kernel, query, line)[0].view(-1)
    signed = kernel(query, query).signed
    figure = _figure(6.4, 2.5)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.6])
    image = values if signed else (values - values.max()).exp()
    top = float(image.abs().max())
    limits = (
        {"vmin": -top, "vmax": top, "cmap": "coolwarm"}
        if signed
        else {"vmin": 0.0, "vmax": 1.0, "cmap": "viridis"}
    )
    left.imshow(image.numpy(), extent=(-SPAN, SPAN, -SPAN, SPAN), origin="lower", **limits)
    left.plot(1.2, 0.6, "o", color="#d55e00", ms=6, mec="white", mew=0.8)
    ends = SPAN * torch.tensor([2.0, 1.0]) / 5**0.5
    left.plot([-ends[0], ends[0]], [-ends[1], ends[1]], "--", color="white", lw=0.9)
    left.set(xticks=[-2, 0, 2], yticks=[-2, 0, 2], xlabel="key, first channel", ylabel="second")
    right.plot(axis, profile, color="#3b8ed0", lw=2)
    right.axvline(1.8**0.5, color="#d55e00", lw=1, ls=":")
    right.set(xlabel="key along the line", ylabel="k(q, k)" if signed else "score = log k(q, k)")
    right.set_ylim(bottom=max(float(profile.min()) - 0.2, float(profile.max()) - 12))
    return _png(figure)


SHOWN = (
    "additive_v2",
    "dot_product",
    "rbf",
    "laplace",
    "intersection",
    "scaled_cosine",
    "periodic",
    "spectral",
)


def strip() -> bytes:
    r"""A few kernels side by side, as a query sees the plane of keys."""
    figure = _figure(11.2, 1.75)
    axis = torch.linspace(-SPAN, SPAN, 161)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    query = torch.tensor([1.2, 0.6]).view(1, 1, 2)
    for axes, name in zip(figure.subplots(1, 8), SHOWN, strict=True):
        torch.manual_seed(0)
        kernel = kernels.resolve(name, 2, 1).eval()
        _spread(kernel)
        with torch.no_grad():
            values = _evaluated(kernel, query, torch.stack([x, y], dim=-1).view(-1, 1, 2))[0].view(161, 161)
        axes.imshow(
            (values - values.max()).exp(),
            extent=(-SPAN, SPAN, -SPAN, SPAN),
            origin="lower",
            vmin=0,
            vmax=1,
        )
        axes.plot(1.2, 0.6, "o", color="#d55e00", ms=5, mec="white", mew=0.8)
        axes.set(title=name, xticks=[], yticks=[])
    return _png(figure)


def _spread(kernel: Kernel) -> None:
    # Random parameters that start small would show a flat picture.
    with torch.no_grad():
        for name, value in kernel.named_parameters():
            if name.rpartition(".")[2] in ("omega",) and value.std() < 0.5:
                value.mul_(0.8 / value.std())


def _evaluated(kernel: Kernel, query: Tensor, key: Tensor) -> Tensor:
    gram = kernel(query, key)
    if gram.signed:
        f, g = gram.features()
        return torch.einsum("nhr,mhr->nmh", f, g)
    return gram.dense()


def _positions(folder: Path) -> str:
    text = _title("Positions", "=") + ".. currentmodule:: kgat.positions\n\n"
    text += literal(words()["positions"]) + "\n\n"
    for name in positions.names():
        if name == "none":
            continue
        save(folder / "pictures" / f"position-{name}.png", attention_picture(name))
        alt = f"Attention between equal tokens with the position {name}"
        learned = [n for n, p in positions.resolve(name, 16, 2).named_parameters()]
        rows = [
            ("Learned", ", ".join(f"``{n}``" for n in learned) or "nothing"),
            ("Arguments", f":class:`kgat.positions.{name}`"),
        ]
        text += _title(name, "-") + described(getattr(positions, name)) + "\n\n"
        text += _picture(f"pictures/position-{name}.png", alt) + _table(rows)
    return text


def attention_picture(name: str) -> bytes:
    torch.manual_seed(0)
    attention = KernelAttention(16, 2, kernel="dot_product", position=name).eval()
    with torch.no_grad():
        for value in attention.position.parameters():
            if value.std() == 0 and value.dim() > 1:
                value.normal_()
        x = torch.randn(1, 1, 16).expand(1, 24, 16)
        pictures = [attention(x, is_causal=causal)[1][0] for causal in (False, True)]
    figure = _figure(6.4, 2.9)
    for axes, weights, title in zip(figure.subplots(1, 2), pictures, ("all tokens", "causal"), strict=True):
        axes.imshow(weights / weights.amax(dim=-1, keepdim=True), cmap="viridis", vmin=0, vmax=1)
        axes.set(title=title, xlabel="key", ylabel="query", xticks=[0, 12, 23], yticks=[0, 12, 23])
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", facecolor="none")


def _png(figure: Figure) -> bytes:
    for axes in figure.axes:
        axes.set_facecolor("none")
        for spine in axes.spines.values():
            spine.set_color(INK)
        axes.tick_params(colors=INK, labelsize=8)
        for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
            text.set_color(INK)
            text.set_fontsize(9)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=144, transparent=True, metadata={"Software": None})
    return buffer.getvalue()


if __name__ == "__main__":  # the picture of the README, which is kept: make readme
    save(Path(__file__).parents[1] / "_static" / "kernels.png", strip())
