"""Tiny models of every kind, each with data, its loss in whence, and the same in plain torch.

``KINDS`` has what makes each of them by its name, in the order of the modules below.
"""

from benchmarks._kinds import images, sequences, tables, transformers_library
from benchmarks._kinds.kind import KINDS, Kind
from benchmarks._kinds.transformers_library import CAUSAL

__all__ = [
    "CAUSAL",
    "KINDS",
    "Kind",
    "images",
    "sequences",
    "tables",
    "transformers_library",
]
