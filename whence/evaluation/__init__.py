"""How good an attribution is, and what it finds: bad data, retraining, the reverse influence."""

from whence.evaluation.bad_data import detection, label_report, suspects
from whence.evaluation.datamodels import datamodel
from whence.evaluation.ground_truth import lds_scores, leave_one_out_scores
from whence.evaluation.lds import linear_datamodeling_score, random_subsets, retrained
from whence.evaluation.leaving_out import leave_one_out, leave_out
from whence.evaluation.reverse import reverse_check

__all__ = [
    "datamodel",
    "detection",
    "label_report",
    "lds_scores",
    "leave_one_out",
    "leave_one_out_scores",
    "leave_out",
    "linear_datamodeling_score",
    "random_subsets",
    "retrained",
    "reverse_check",
    "suspects",
]
