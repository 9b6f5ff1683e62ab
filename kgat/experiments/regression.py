r"""Regression as in "Implicit Kernel Attention": a data set is one sequence, and attention fills in its gaps.

Every point is a token and sees all others; the loss is that of training points. The released code reports the
best *test* error over epochs; here validation points choose the epoch, and test points are read once.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import seed_everything

from kgat import kernels
from kgat.experiments import loop
from kgat.experiments.circumstances import circumstances
from kgat.experiments.engine import Engine, Job
from kgat.experiments.loop import Diverged, Fitted
from kgat.experiments.registry import resolve_model
from kgat.experiments.summary import least_seeds, summarise_runs
from kgat.experiments.table import pivot, render, spread
from kgat.functional import dense_attention
from kgat.kernels import Context
from kgat.names import unknown
from kgat.nn import KernelGATConv

if TYPE_CHECKING:
    import pandas as pd

BASELINE = "dot"
GAUSSIAN_PROCESSES = ("gp-rbf", "gp-sm")
DEFAULT_MODELS = ("dot", "rbf*l2", "spectral*l2", "implicit*l2", "copula*l2", *GAUSSIAN_PROCESSES)
PROCESS_EPOCHS = 200  # of a Gaussian process at most
PROCESS_STARTS = 5  # of a spectral mixture, whose likelihood has many peaks; an RBF starts from fixed numbers
DRAWS = 20  # of a sampled kernel, for the band of a figure
SHARES = (0.8, 0.1)  # of points for training and validation; the rest is for the test

Record = dict[str, Any]
Value = Callable[[], float]


class Points(NamedTuple):
    r"""A regression problem.

    Args:
        name (str): Its name.
        x (numpy.ndarray): What is known of every point.
        y (numpy.ndarray): What is to be found.
        unit (str): The unit of :obj:`y`.

    Shapes:
        - **x:** :math:`(N, F)`, **y:** :math:`(N)`
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    unit: str


@dataclass(frozen=True)
class Setting:
    r"""How models are trained, the released code's numbers by default.

    Args:
        width (int): Channels of a token.
        heads (int): Number of heads; one has ``width / heads`` channels.
        num_features (int): Number :math:`S` of frequency pairs of spectral kernels.
        dropout (float): Of attention weights.
        lr (float): Learning rate of Adam.
        epochs (int): Number of epochs; the one with the smallest validation error is kept. A Gaussian
            process, which has a handful of parameters, gets 200 at most, and one with a spectral mixture the
            best of 5 starts, by the same validation error.
    """

    width: int = 64
    heads: int = 8
    num_features: int = 64
    dropout: float = 0.1
    lr: float = 0.01
    epochs: int = 1000


Arrays = tuple[np.ndarray, np.ndarray]


def _co2() -> Arrays:
    import pandas as pd

    weekly = _statsmodels("co2")["co2"]
    return _of_months(weekly.groupby(pd.PeriodIndex(weekly.index, freq="M")).mean().dropna())


def _of_months(monthly: pd.Series) -> Arrays:
    years = np.array([month.year + (month.month - 0.5) / 12 for month in monthly.index])
    return years[:, None], monthly.to_numpy()


def _statsmodels(name: str) -> pd.DataFrame:
    return import_module(f"statsmodels.datasets.{name}").load_pandas().data


def _of_years(name: str, year: str, value: str) -> Arrays:
    data = _statsmodels(name)
    return data[[year]].to_numpy(float), data[value].to_numpy(float)


LOADERS: dict[str, tuple[str, Callable[[], Arrays]]] = {  # the unit, and what reads the points
    "airline": ("thousands", lambda: _of_months(import_module("sktime.datasets").load_airline())),
    "co2": ("ppm", _co2),
    "diabetes": ("progression", lambda: import_module("sklearn.datasets").load_diabetes(return_X_y=True)),
    "nile": ("10⁸ m³", lambda: _of_years("nile", "year", "volume")),
    "sunspots": ("spots", lambda: _of_years("sunspots", "YEAR", "SUNACTIVITY")),
}


def load(name: str) -> Points:
    r"""Returns a data set that a package ships: nothing is downloaded.

    ``"co2"`` (Mauna Loa, monthly means), ``"sunspots"`` and ``"nile"`` (yearly) come with statsmodels,
    ``"airline"`` (passengers per month, 1949 to 1960) with sktime, ``"diabetes"`` (442 patients, 10 features)
    with scikit-learn.

    Args:
        name (str): The name.

    Raises:
        ValueError: If there is none of that name, with the choices.
        ImportError: If the package is not installed.

    Example:
        >>> load("diabetes").x.shape
        (442, 10)
    """
    if name not in LOADERS:
        unknown("the name of a regression set", name, LOADERS)
    unit, arrays = LOADERS[name]
    try:
        return Points(name, *arrays(), unit)
    except ImportError as error:
        raise ImportError(
            f"Expected the package that ships '{name}' (got: {error}); install it with "
            "pip install 'kgat[regression]'"
        ) from None


class Regressor(torch.nn.Module):
    r"""One layer of a Transformer with post-normalisation over all points, whose attention has any kernel.

    .. math::
        \mathbf{h} = \mathbf{W} \mathbf{x}, \quad
        \mathbf{h} \leftarrow \mathrm{LN}(\mathbf{h} + \mathbf{W}_o \mathrm{attention}(\mathbf{h})), \quad
        \mathbf{h} \leftarrow \mathrm{LN}(\mathbf{h} + \mathbf{W}_2 \, \mathrm{relu}(\mathbf{W}_1
        \mathbf{h})), \quad \hat{y} = \mathbf{w}^\top \mathbf{h}

    Args:
        in_channels (int): Number of features of a point.
        setting (Setting): Sizes and dropout.
        **kernel: ``kernel``, ``magnitude`` and ``kernel_kwargs`` of :class:`~kgat.nn.KernelGATConv`.

    Shapes:
        - **x:** :math:`(N, F)`, **output:** :math:`(N)`

    Example:
        >>> Regressor(3, Setting(width=8, heads=2), kernel="rbf")(torch.randn(5, 3)).shape
        torch.Size([5])
    """

    def __init__(self, in_channels: int, setting: Setting, **kernel: Any) -> None:
        super().__init__()
        width, heads = setting.width, setting.heads
        if width % heads != 0:
            raise ValueError(
                f"Expected 'width' divisible by 'heads={heads}' (got {width}); choose a multiple of it"
            )
        self.lin_in = torch.nn.Linear(in_channels, width)
        self.attention = KernelGATConv(
            *(width, width // heads, heads),
            add_self_loops=False,
            bias=False,
            dropout=setting.dropout,
            projections="separate",
            **kernel,
        )
        self.lin_attention = torch.nn.Linear(width, width)
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(width) for _ in range(2))
        self.feed_forward = torch.nn.Sequential(
            torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, width)
        )
        self.lin_out = torch.nn.Linear(width, 1)

    def forward(self, x: Tensor, losses: list[Tensor] | None = None) -> Tensor:
        r"""Returns one number per point.

        Args:
            x (torch.Tensor): The features of all points.
            losses (list of torch.Tensor, optional): Takes the penalty of the kernel. (default: :obj:`None`)
        """
        h = self.lin_in(x)
        query, key, value = self.attention.project(h)
        gram = self.attention.kernel(query, key, Context(losses=losses))
        dropout = self.attention.dropout if self.training else 0.0
        attended = dense_attention(gram, value, dropout=dropout).flatten(1)
        h = self.norms[0](h + self.lin_attention(attended))
        h = self.norms[1](h + self.feed_forward(h))
        return self.lin_out(h).squeeze(-1)  # type: ignore[no-any-return]


class Fit(NamedTuple):
    r"""What a model says of all points, in units of the target."""

    mean: Tensor
    std: Tensor | None
    fitted: Fitted
    parameters: int


def run(points: Points, model: str, seed: int, setting: Setting | None = None, curve: bool = False) -> Record:
    r"""Fits one model with one seed, which draws the split too, and reads the test points once.

    Args:
        points (Points): The problem.
        model (str): A kernel model that :func:`kgat.experiments.registry.resolve_model` takes,
            ``"gp-rbf"`` or
            ``"gp-sm"`` (Gaussian processes with an RBF and a spectral-mixture kernel).
        seed (int): The seed.
        setting (Setting, optional): How to train. (default: :obj:`Setting()`)
        curve (bool, optional): Whether the record shall hold the fitted curve. (default: :obj:`False`)

    Returns:
        dict: A record of kind :obj:`"regression"` with root-mean-square errors in units of the target.

    Raises:
        ValueError: If the model is unknown or diverges.
        ImportError: If a Gaussian process is asked for without gpytorch.
    """
    (model,) = check_models([model])
    setting = setting or Setting()
    start = time.perf_counter()
    x = torch.from_numpy(np.asarray(points.x, dtype=np.float32))
    y = torch.from_numpy(np.asarray(points.y, dtype=np.float32))
    train, val, test = split(len(y), seed)
    # Only training points decide the scale.
    x = (x - x[train].mean(0)) / x[train].std(0).clamp(min=1e-12)
    mean, std = y[train].mean(), y[train].std()
    known = ((y - mean) / std).where(train | val, torch.nan)  # no model sees the targets of the test
    seed_everything(seed)
    fit_model = _gaussian_process if model in GAUSSIAN_PROCESSES else _transformer
    fit = fit_model(model, x, known, train, val, setting)
    prediction = fit.mean * std + mean
    record: Record = {
        "kind": "regression",
        "dataset": points.name,
        "unit": points.unit,
        "model": model,
        "seed": seed,
        "points": len(y),
        "setting": asdict(setting),
        "val": _rounded(fit.fitted.best.val_loss * float(std)),
        "test": _rounded(_rmse(prediction, y, test)),
        "best_epoch": fit.fitted.best_epoch,
        "parameters": fit.parameters,
        "seconds": round(time.perf_counter() - start, 2),
        **circumstances("cpu"),
    }
    if curve and points.x.shape[1] == 1:
        order = np.argsort(points.x[:, 0])
        record["curve"] = {
            "x": points.x[order, 0].tolist(),  # months of a year take more digits
            "y": [_rounded(value) for value in points.y[order]],
            "mean": [_rounded(value) for value in prediction[order]],
            "std": None if fit.std is None else [_rounded(value) for value in (fit.std * std)[order]],
            "part": ["train" if train[i] else "val" if val[i] else "test" for i in order],
        }
    return record


def check_models(models: Sequence[str]) -> list[str]:
    r"""Says whether models can be run, before any is, and returns their names, each once.

    Args:
        models (list of str): Names as in :func:`run`.

    Raises:
        ValueError: If there is none, or one is unknown or no kernel model.
        ImportError: If a Gaussian process is named and gpytorch is not installed.
    """
    if not models:
        raise ValueError("Expected at least one model (got none); pass --models dot,rbf*l2")
    return list(dict.fromkeys(map(_checked, models)))


def _checked(model: str) -> str:
    if model not in GAUSSIAN_PROCESSES:
        resolved = resolve_model(model)
        if resolved.fixed:
            raise ValueError(
                f"Expected a kernel model (got '{model}'); stock layers are for graphs, and so are "
                "projections and settings in a name"
            )
        return resolved.name
    if find_spec("gpytorch") is None:
        raise ImportError(
            f"Expected gpytorch for '{model}' (got none); install it with pip install 'kgat[regression]', or "
            "leave the model out"
        )
    return model


def split(size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Draws the points for training, validation and test.

    Shapes:
        - **output:** three masks :math:`(N)`

    Example:
        >>> [int(mask.sum()) for mask in split(100, seed=0)]
        [80, 10, 10]
    """
    place = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).argsort()
    first = round(SHARES[0] * size)
    second = first + round(SHARES[1] * size)
    return place < first, (first <= place) & (place < second), second <= place


def _transformer(model: str, x: Tensor, y: Tensor, train: Tensor, val: Tensor, setting: Setting) -> Fit:
    kwargs = {"kernel": resolve_model(model).kwargs["kernel"]}
    if any("Spectral" in factor.cls.__name__ for factor in kernels.CATALOGUE.read(kwargs["kernel"]).factors):
        kwargs["kernel_kwargs"] = {"num_features": setting.num_features}
    net = Regressor(x.size(1), setting, **kwargs)
    count = int(train.sum())

    def backward() -> float:
        losses: list[Tensor] = []
        loss = F.mse_loss(net(x, losses)[train], y[train])
        if not math.isfinite(loss.item()):
            raise Diverged(f"loss of '{model}'", loss.item(), hint="lower lr")
        (loss + sum(losses) / count).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1000.0)
        return loss.item()

    fitted = _fitted(net, setting.lr, backward, lambda: _rmse(net(x), y, val), epochs=setting.epochs)
    with torch.no_grad():
        mean, std = net.eval()(x), None
        if (kernel := net.attention.kernel).penalised:
            kernel.train()  # other frequencies each time, and no dropout
            std = torch.stack([net(x) for _ in range(DRAWS)]).std(0)
    return Fit(mean, std, fitted, sum(p.numel() for p in net.parameters()))


def _fitted(model: torch.nn.Module, lr: float, backward: Value, error: Value, **options: Any) -> Fitted:
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)

    def step() -> float:
        model.train()
        optimizer.zero_grad()
        loss = backward()
        optimizer.step()
        return loss

    @torch.no_grad()
    def validate() -> tuple[float, float]:
        model.eval()
        value = error()
        return value, -value

    return loop.fit(model, step, validate, **options)


def _gaussian_process(model: str, x: Tensor, y: Tensor, train: Tensor, val: Tensor, setting: Setting) -> Fit:
    import gpytorch

    x, y = x.double(), y.double()  # the factorisation of a smooth kernel needs the digits

    class Process(gpytorch.models.ExactGP):
        def __init__(self, likelihood: Any) -> None:
            super().__init__(x[train], y[train], likelihood)
            self.mean_module = gpytorch.means.ConstantMean()
            if model == "gp-sm":
                self.covar_module = gpytorch.kernels.SpectralMixtureKernel(5, ard_num_dims=x.size(1))
                self.covar_module.initialize_from_data(x[train], y[train])
            else:
                self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())

        def forward(self, x: Tensor) -> Any:
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    def from_one_start() -> Fit:
        likelihood = gpytorch.likelihoods.GaussianLikelihood()
        process = Process(likelihood).double()
        marginal = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, process)

        def backward() -> float:
            loss = -marginal(process(x[train]), y[train])
            loss.backward()
            return loss.item()

        def error() -> float:
            with gpytorch.settings.fast_pred_var():
                return _rmse(process(x).mean, y, val)

        fitted = _fitted(process, 0.1, backward, error, epochs=min(setting.epochs, PROCESS_EPOCHS), every=10)
        with torch.no_grad():
            posterior = process.eval()(x)
            mean, std = posterior.mean.float(), posterior.stddev.float()
        return Fit(mean, std, fitted, sum(p.numel() for p in process.parameters()))

    starts = PROCESS_STARTS if model == "gp-sm" else 1
    return min((from_one_start() for _ in range(starts)), key=lambda fit: fit.fitted.best.val_loss)


def _rmse(prediction: Tensor, y: Tensor, mask: Tensor) -> float:
    return float((prediction[mask] - y[mask]).square().mean().sqrt())


def _rounded(value: Any) -> float:
    return float(f"{float(value):.5g}")


# --- Comparing --------------------------------------------------------------------------------------------


def compare(
    datasets: str | Points | Sequence[str | Points],
    models: Sequence[str] = DEFAULT_MODELS,
    seeds: int = 10,
    path: str | Path = "runs/regression.jsonl",
    setting: Setting | None = None,
    on_run: Callable[[Record], None] | None = None,
    *,
    shown: bool = False,
) -> list[Record]:
    r"""Runs all models with all seeds and appends each run to a file as soon as it is done; what is there
    with the same setting is not repeated. Records of the first seed hold the fitted curve.

    Args:
        datasets (str or Points): What :func:`load` takes, or a problem; or a list of these.
        models (list of str, optional): As in :func:`run`. (default: :obj:`DEFAULT_MODELS`)
        seeds (int, optional): Number of seeds, counted from 0. (default: :obj:`10`)
        path (str or Path, optional): The file of JSON lines. (default: :obj:`"runs/regression.jsonl"`)
        setting (Setting, optional): How to train. (default: :obj:`Setting()`)
        on_run (callable, optional): Called with each new record. (default: :obj:`None`)
        shown (bool, optional): Whether to show a progress bar. (default: :obj:`False`)

    Returns:
        list of dict: All records of the file.

    Raises:
        Interrupted: On Ctrl-C.
    """
    models = check_models(models)
    one_or_more = [datasets] if isinstance(datasets, str | Points) else datasets
    problems = [load(one) if isinstance(one, str) else one for one in one_or_more]
    one_setting = setting or Setting()

    def work(points: Points, model: str, seed: int, note: object) -> Iterator[Record]:
        record = run(points, model, seed, one_setting, curve=seed == 0)
        yield record
        if on_run is not None:
            on_run(record)

    jobs = []
    for points, seed, model in itertools.product(problems, range(seeds), models):
        key = _key(points.name, model, seed, asdict(one_setting))
        jobs.append(Job(key, f"{points.name}, {model}, seed {seed}", work, (points, model, seed)))
    with Engine(
        path, len(jobs), kinds=["regression"], key_of=_key_of, shown=shown, describe=_described
    ) as engine:
        engine.run(jobs)
    return engine.records


def _key(dataset: str, model: str, seed: int, setting: Mapping[str, Any]) -> Hashable:
    return ("regression", dataset, model, seed, json.dumps(setting, sort_keys=True))


def _key_of(record: Record) -> Hashable:
    if record.get("kind") != "regression":
        return None
    return _key(record["dataset"], record["model"], record["seed"], record["setting"])


def _described(records: Sequence[Record]) -> Iterator[str]:
    return (f"val {record['val']:.4g} {record['unit']}, {record['seconds']:.1f} s" for record in records)


def of_setting(records: Sequence[Mapping[str, Any]], setting: Setting) -> list[Mapping[str, Any]]:
    r"""Returns the records of runs with one setting, those that a table can hold."""
    return [r for r in records if r.get("kind") == "regression" and r["setting"] == asdict(setting)]


def table(records: Sequence[Mapping[str, Any]]) -> str:
    r"""Returns the test errors as Markdown: mean ± unbiased standard deviation over seeds, and Holm-corrected
    p-values of Wilcoxon's paired test against dot-product attention.

    Args:
        records (list of dict): Records of :func:`run`; of repeated ones the last counts.

    Raises:
        ValueError: If there are none, or a model has runs of several settings.
    """
    runs = [record for record in records if record.get("kind") == "regression"]
    if not runs:
        raise ValueError("Expected records of 'kgat regress' (got none); run it first")
    settings: dict[tuple[str, str], Mapping[str, Any]] = {}
    for run in runs:
        setting = run.get("setting") or {}
        first = settings.setdefault((run["dataset"], run["model"]), setting)
        for name in {**first, **setting}:
            if first.get(name) != setting.get(name):
                raise ValueError(
                    f"Expected runs of '{run['model']}' on '{run['dataset']}' of one setting (got "
                    f"{name}={first.get(name)} and {name}={setting.get(name)}); choose those of one with "
                    "of_setting"
                )
    units = {run["dataset"]: run["unit"] for run in runs}
    columns = {
        f"{dataset}, {units[dataset]}, {least_seeds(of_models)}": {
            model: spread(one.mean, one.std, "{:.3g}", p_value=one.p_value)
            for model, one in of_models.items()
        }
        for dataset, of_models in summarise_runs(runs, "model", BASELINE).items()
    }
    return render([pivot("model", columns, is_code=True)])
