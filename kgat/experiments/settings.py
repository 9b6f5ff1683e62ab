r"""The settings of a run: their names, types and defaults."""

import dataclasses
from dataclasses import dataclass

__all__ = ["SETTINGS", "TYPES", "Settings"]


@dataclass(frozen=True)
class Settings:
    r"""What :class:`~kgat.experiments.config.Config` explains and checks."""

    dataset: str
    model: str
    seed: int = 0
    hidden_channels: int = 64
    heads: int = 8
    out_heads: int = 1
    num_layers: int = 2
    dropout: float = 0.5
    input_dropout: float = 0.5
    value_dropout: float = 0.0
    act: str = "elu"
    norm: str | None = None
    residual: bool = False
    attention_dropout: float | None = None
    pre_linear: bool = False
    jk: str | None = None
    add_self_loops: bool = True
    position_dim: int | None = None
    global_attention: str | None = None
    projections: str | None = None
    lr: float = 0.005
    kernel_lr: float = 1.0
    weight_decay: float = 5e-4
    decay_kernels: bool = True
    max_epochs: int = 1000
    patience: int = 100
    keep: str = "metric"
    start: str | None = None
    batch_size: int | None = None
    pooling: str = "mean"
    decoder: str = "dot"
    neighbors: str | None = None
    clip: float | None = None
    scheduler: str | None = None
    precision: str = "fp32"
    compile: bool = False
    accumulate: int = 1
    data: str | None = None
    code: str | None = None


_GIVEN = ("dataset", "model", "seed", "data", "code")  # what a comparison is of is no setting
SETTINGS = tuple(field.name for field in dataclasses.fields(Settings) if field.name not in _GIVEN)
TYPES = {field.name: field.type for field in dataclasses.fields(Settings)}
