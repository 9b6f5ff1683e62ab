r"""What figures show of a trained model, as JSON lines."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import degree

from kgat.diagnostics.layers import attention_entropy, trace
from kgat.diagnostics.neighbours import neighbourhood
from kgat.diagnostics.similarity import (
    HEADS,
    gram_image,
    head_correlation,
    importance,
    kernel_profile,
    spectral_law,
)
from kgat.diagnostics.spectra import (
    cumulative_spectrum,
    effective_rank,
    gram_matrix,
    sample,
    singular_values,
    smallest_eigenvalue,
    symmetry_gap,
)
from kgat.models.graph_readout import takes

BINS = 20  # of the histogram of normalised entropies over [0, 1]
SINGULAR_VALUES = 64  # stored per head: the tail beyond is below print resolution
IMPORTANCES = 200  # nodes whose importance is stored


def attention_record(model: torch.nn.Module, task: Any, config: Any, layer: int = 0) -> dict[str, Any]:
    r"""Returns everything that the figures show of a trained model, ready to be a JSON line.

    Profile, spectrum and neighbourhood are those of one layer; the entropies of all of them. A
    layer without :obj:`kernel` (GATConv, GATv2Conv) has neither profile nor spectrum, and
    :obj:`reason` says so. At most eight heads are stored; the neighbourhood of a layer with more
    holds the mean over its heads.

    Args:
        model (torch.nn.Module): The trained model, with attention layers as in
            :func:`~kgat.diagnostics.trace`.
        task (Task): The task: its name, features, edges and labels.
        config (dict or object): Where :obj:`model` and :obj:`seed` are read, if it has them.
        layer (int, optional): The layer to look into. (default: :obj:`0`)

    Raises:
        ValueError: If no layer of the model gives attention weights, or none is called.
        IndexError: If there is no such layer.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> from kgat import KernelGAT
        >>> from kgat.diagnostics import attention_record
        >>> from torch_geometric.data import Data
        >>> data = Data(torch.randn(4, 3), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]), y=torch.arange(4) % 2)
        >>> task = SimpleNamespace(name="mine", data=data)
        >>> record = attention_record(KernelGAT(3, 8, 2, 2, kernel="rbf"), task, {"model": "rbf", "seed": 0})
        >>> record["kind"], record["dataset"], len(record["layers"]), record["nodes_sampled"]
        ('attention', 'mine', 2, 4)
    """
    data = task.data
    batch = getattr(data, "batch", None)
    extras = {"batch": batch} if batch is not None and takes(model) & {"batch", "**"} else {}
    layers = trace(model, data.x, data.edge_index, getattr(data, "edge_attr", None), **extras)
    if not -len(layers) <= layer < len(layers):
        raise IndexError(f"Expected 'layer' below {len(layers)} (got {layer}); pass a layer of the model")
    record = _record("attention", task.name, config)
    record["layers"] = []
    for conv, _, edge_index, alpha in layers:
        entropy = attention_entropy(alpha, _to_target(conv, edge_index)[1], data.num_nodes, reduce=False)
        counts = torch.histc(entropy.float().cpu(), bins=BINS, min=0, max=1 + 1e-6)
        mean = _rounded(entropy.mean(dim=0).tolist())
        record["layers"].append(
            {"heads": alpha.size(1), "entropy": mean, "histogram": counts.long().tolist()}
        )

    conv, x, edge_index, alpha = layers[layer]
    edge_index = _to_target(conv, edge_index)
    record["layer"] = layer % len(layers)
    classes = data.y is not None and data.y.dim() == 1 and not data.y.is_floating_point()
    labels = data.y if classes else None
    record.update(_kernel_record(conv, x, edge_index[1], labels))
    shown = alpha if alpha.size(1) <= HEADS else alpha.mean(dim=1, keepdim=True)
    cut = neighbourhood(edge_index, shown, labels=labels) if edge_index.numel() else None
    record["neighbourhood"] = _rounded(cut) if cut is None else {**_rounded(cut), **_called(cut, data)}
    return record


def spectra_record(dataset: str, config: Any, singular_values: Iterable[Tensor]) -> dict[str, Any]:
    r"""Returns the cumulative spectra of the layers of a model, ready to be a JSON line and to be drawn by
    :func:`kgat.experiments.plots.spectra`: of each layer the mean over heads and items.

    Args:
        dataset (str): The name of the data set.
        config (dict or object): Where :obj:`model` and :obj:`seed` are read, if it has them.
        singular_values (list of torch.Tensor): Per layer those of :func:`attention_spectrum` or
            :meth:`PrimalAttention.singular_values <kgat.nn.PrimalAttention.singular_values>`.

    Shapes:
        - **singular_values:** each :math:`(*, n)`

    Example:
        >>> import torch
        >>> from kgat.diagnostics import spectra_record
        >>> record = spectra_record("drawn", {"model": "primal"}, [torch.tensor([[3.0, 1.0], [1.0, 1.0]])])
        >>> record["layers"]
        [[0.625, 1.0]]
    """
    curves = (cumulative_spectrum(values) for values in singular_values)
    means = (curve.reshape(-1, curve.size(-1)).mean(dim=0)[:SINGULAR_VALUES] for curve in curves)
    return _record("spectra", dataset, config) | {"layers": [_rounded(mean.tolist()) for mean in means]}


def _record(kind: str, dataset: str, config: Any) -> dict[str, Any]:
    read = config.get if isinstance(config, Mapping) else lambda name: getattr(config, name, None)
    return {"kind": kind, "dataset": dataset, "model": read("model"), "seed": read("seed")}


def _to_target(conv: Any, edge_index: Tensor) -> Tensor:
    return edge_index.flip(0) if conv.flow == "target_to_source" else edge_index


def _kernel_record(conv: Any, x: Any, target: Tensor, labels: Tensor | None) -> dict[str, Any]:
    absent: dict[str, Any] = {"profile": None, "spectrum": None}
    kernel = getattr(conv, "kernel", None)
    if kernel is None:
        return absent | {"reason": f"{type(conv).__name__} has no kernel"}
    with torch.no_grad():
        query, key, _ = conv.project(x)
    profile, reason = kernel_profile(kernel, query, nodes=(query, key))
    if profile is None:
        return absent | {"reason": reason}
    for name in ("kernel", "low", "high"):
        profile[name] = profile[name][:HEADS]
    gram = gram_matrix(kernel, query, key)
    values = singular_values(gram)
    record = {
        "profile": profile,
        "spectrum": values[:HEADS, :SINGULAR_VALUES].tolist(),
        "effective_rank": effective_rank(values).tolist(),
        "nodes_sampled": min(gram.shape[:2]),
        "reason": None,
    }
    same_nodes = query.size(0) == key.size(0)
    if same_nodes:
        record["symmetry_gap"] = symmetry_gap(gram).tolist()
        record["smallest_eigenvalue"] = smallest_eigenvalue(gram).tolist()
        record["image"] = gram_image(kernel, query, key, labels)
    record["law"] = spectral_law(kernel, query, key)
    correlation = head_correlation(kernel, query, key)
    record["head_correlation"] = None if correlation is None else correlation.tolist()
    record["importance"] = None
    value = importance(kernel, key) if same_nodes else None
    if value is not None:
        nodes = sample(key.size(0), IMPORTANCES, 0)
        record["importance"] = {
            "value": value.mean(dim=1).cpu()[nodes].tolist(),
            "degree": degree(target.cpu(), key.size(0))[nodes].long().tolist(),
            "labels": None if labels is None else labels.cpu()[nodes].long().tolist(),
        }
    return _rounded(record)


def _called(cut: Mapping[str, Any], data: Any) -> dict[str, Any]:
    r"""What a graph of one's own calls the center and the classes of a neighbourhood."""
    ids, classes = getattr(data, "node_id", None), getattr(data, "classes", None)
    record: dict[str, Any] = {} if ids is None else {"name": str(ids[cut["center"]])}
    if classes is not None:
        present = sorted({label for label in cut["labels"] if label >= 0})
        record["classes"] = {str(label): str(classes[label]) for label in present}
    return record


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_rounded(item) for item in value]
    return value
