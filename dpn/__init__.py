"""The Dynamic Pyramid Network.

A decoder that pools its visual tokens in stages, at a rate chosen per sample.
"""

from dpn.config import DpnConfig
from dpn.flops import count_flops
from dpn.parse import parse_reduction
from dpn.pyramid import PyramidLlamaConfig, PyramidLlamaModel, PyramidOutput

__all__ = [
    "DpnConfig",
    "PyramidLlamaConfig",
    "PyramidLlamaModel",
    "PyramidOutput",
    "count_flops",
    "parse_reduction",
]
