r"""What a trained attention model attends to: entropy, profile and spectrum of its kernels."""

from kgat.diagnostics.layers import Layer, attention_entropy, attention_weights, has_attention, trace
from kgat.diagnostics.neighbours import neighbourhood
from kgat.diagnostics.record import attention_record, spectra_record
from kgat.diagnostics.sequences import AttentionCall, trace_attention
from kgat.diagnostics.similarity import (
    gram_image,
    head_correlation,
    head_distance,
    importance,
    kernel_profile,
    spectral_law,
)
from kgat.diagnostics.spectra import (
    attention_spectrum,
    cumulative_spectrum,
    effective_rank,
    gram_matrix,
    gram_spectrum,
    inertia,
    negative_mass,
    numerical_rank,
    singular_values,
    smallest_eigenvalue,
    smoother_spectrum,
    symmetry_gap,
)

__all__ = [
    "AttentionCall",
    "Layer",
    "attention_entropy",
    "attention_record",
    "attention_spectrum",
    "attention_weights",
    "cumulative_spectrum",
    "effective_rank",
    "gram_image",
    "gram_matrix",
    "gram_spectrum",
    "has_attention",
    "head_correlation",
    "head_distance",
    "importance",
    "inertia",
    "kernel_profile",
    "negative_mass",
    "neighbourhood",
    "numerical_rank",
    "singular_values",
    "smallest_eigenvalue",
    "smoother_spectrum",
    "spectra_record",
    "spectral_law",
    "symmetry_gap",
    "trace",
    "trace_attention",
]
