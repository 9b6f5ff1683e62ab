r"""Layers: projections, heads, dropout and masks around a kernel."""

from kgat.nn.decoder_layer import KernelDecoderLayer
from kgat.nn.encoder_layer import KernelEncoderLayer
from kgat.nn.fourier_attention import FourierAttention
from kgat.nn.global_attention import GlobalAttention
from kgat.nn.kernel_attention import KernelAttention
from kgat.nn.kernel_gat_conv import KernelGATConv
from kgat.nn.key_value_cache import KeyValueCache
from kgat.nn.primal_attention import PrimalAttention
from kgat.nn.segment_memory import SegmentMemory
from kgat.nn.start import calibrate

__all__ = [
    "FourierAttention",
    "GlobalAttention",
    "KernelAttention",
    "KernelDecoderLayer",
    "KernelEncoderLayer",
    "KernelGATConv",
    "KeyValueCache",
    "PrimalAttention",
    "SegmentMemory",
    "calibrate",
]
