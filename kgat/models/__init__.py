r"""Whole models: stacks of our layers."""

from kgat.models.kernel_gat import AttentionGNN, KernelGAT
from kgat.models.kernel_transformer import KernelTransformer
from kgat.models.language_model import LanguageModel
from kgat.models.sequence_classifier import SequenceClassifier
from kgat.models.translator import Translator
from kgat.moved import old_names

__all__ = [
    "AttentionGNN",
    "KernelGAT",
    "KernelTransformer",
    "LanguageModel",
    "SequenceClassifier",
    "Translator",
]

__getattr__ = old_names(__name__)
