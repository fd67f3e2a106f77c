"""How good an attribution is, and what it finds: bad data, retraining, the reverse influence."""

from whence.evaluation.bad_data import detection, label_report, suspects
from whence.evaluation.beta_shapley import beta_shapley
from whence.evaluation.brittleness import brittleness
from whence.evaluation.damping_path import damping_path
from whence.evaluation.datamodels import datamodel
from whence.evaluation.ground_truth import lds_scores, leave_one_out_scores
from whence.evaluation.knn_shapley import knn_shapley
from whence.evaluation.lds import linear_datamodeling_score, random_subsets, retrained
from whence.evaluation.leaving_out import leave_one_out, leave_out
from whence.evaluation.out_of_bag import data_oob
from whence.evaluation.retrieval import retrieval
from whence.evaluation.reverse import reverse_check
from whence.evaluation.sanity_checks import (
    model_randomization,
    top_k_cardinality,
    with_random_parameters,
)
from whence.evaluation.tail_patch import tail_patch

__all__ = [
    "beta_shapley",
    "brittleness",
    "damping_path",
    "data_oob",
    "datamodel",
    "detection",
    "knn_shapley",
    "label_report",
    "lds_scores",
    "leave_one_out",
    "leave_one_out_scores",
    "leave_out",
    "linear_datamodeling_score",
    "model_randomization",
    "random_subsets",
    "retrained",
    "retrieval",
    "reverse_check",
    "suspects",
    "tail_patch",
    "top_k_cardinality",
    "with_random_parameters",
]
