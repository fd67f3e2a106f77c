"""How good an attribution is, and what it finds: bad data, retraining, the reverse influence."""

from whence.evaluation.bad_data import detection, label_report, suspects
from whence.evaluation.lds import linear_datamodeling_score, random_subsets, retrained
from whence.evaluation.reverse import reverse_check

__all__ = [
    "detection",
    "label_report",
    "linear_datamodeling_score",
    "random_subsets",
    "retrained",
    "reverse_check",
    "suspects",
]
