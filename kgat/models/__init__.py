r"""Whole models: stacks of our layers."""

from kgat.models.graph_readout import GraphReadout
from kgat.models.hetero_gnn import HeteroGNN
from kgat.models.kernel_gat import AttentionGNN, KernelGAT
from kgat.models.kernel_hetero_gat import KernelHeteroGAT
from kgat.models.kernel_transformer import KernelTransformer
from kgat.models.language_model import LanguageModel
from kgat.models.link_predictor import LinkPredictor
from kgat.models.sequence_classifier import SequenceClassifier
from kgat.models.standardized_output import StandardizedOutput
from kgat.models.target_output import TargetOutput
from kgat.models.translator import Translator
from kgat.moved import old_names

__all__ = [
    "AttentionGNN",
    "GraphReadout",
    "HeteroGNN",
    "KernelGAT",
    "KernelHeteroGAT",
    "KernelTransformer",
    "LanguageModel",
    "LinkPredictor",
    "SequenceClassifier",
    "StandardizedOutput",
    "TargetOutput",
    "Translator",
]

__getattr__ = old_names(__name__)
