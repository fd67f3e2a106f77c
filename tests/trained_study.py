"""A small real study, trained as ``whence study`` would: what its results are made of."""

import dataclasses

import pandas as pd

from whence import pinn
from whence.studies.folder import StudyFolder
from whence.studies.study import Study, StudyRun

PROBLEMS = ("diffusion", "wave")
METHODS = {"random": pinn.RandomScore, "residual": pinn.ResidualScore}
SEEDS = (0, 1, 2)
FAILED = {"problem": "wave", "method": "residual", "seed": 3}
UNFINISHED = {"problem": "wave", "method": "random", "seed": 3}


def run_of(labels):
    return StudyRun.of(labels, [])


def table_of(values, seeds=None):
    """A table of results from the errors by problem and method."""
    rows = []
    for (problem, method), errors in values.items():
        for seed, error in enumerate(errors):
            number = seed if seeds is None else seeds[problem, method][seed]
            row = {"problem": problem, "method": method, "seed": number, "error": error}
            rows.append(row)
    table = pd.DataFrame(rows)
    names = ("validation_loss", "test_loss", "seconds", "iterations", "points")
    return table.assign(**dict.fromkeys(names, 1.0))


def write_study(folder, labels):
    """Write ``study.json`` with runs of these labels."""
    study = StudyFolder.at(folder)
    study.begin(Study(tuple(run_of(own_labels) for own_labels in labels)))
    return study


def write_run(folder, name, summary=(), history=()):
    """Write a run folder as far as results read it."""
    run = pinn.RunFolder(folder / "runs" / name)
    run.create({"problem": name})
    rows = []
    for row in history:
        rows.append({"stage": "Adam", "points": 9, "loss": 1.0, **row})
    if rows:
        run.write_history(rows)
    if summary:
        run.write_summary(
            {"stopped_by": "schedule finished", "failure": None, **dict(summary)}
        )


def train(folder, labels):
    problem = dataclasses.replace(
        pinn.zoo.load(labels["problem"]),
        architecture=lambda seed: pinn.MLP([2, 10, 10, 1], seed=seed),
    )
    pinn.train(
        problem,
        points=40,
        schedule=pinn.Adam(80, lr=5e-3),
        resample=pinn.Resample(METHODS[labels["method"]](), n=10, every=20, candidates=100),
        validation=50,
        test=50,
        seed=labels["seed"],
        out=folder / "runs" / run_of(labels).name,
        compile=False,
        progress=False,
    )  # fmt: skip


def make_study(path):
    """Train a study of two problems and two methods, with a failed and an unfinished run."""
    labels = []
    for problem in PROBLEMS:
        for method in METHODS:
            for seed in SEEDS:
                labels.append({"problem": problem, "method": method, "seed": seed})
    study = write_study(path, [*labels, FAILED, UNFINISHED])
    for own_labels in labels:
        train(path, own_labels)
    study.fail(run_of(FAILED), "ValueError: no memory")
    return path
