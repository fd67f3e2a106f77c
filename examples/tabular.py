"""A tabular classifier: where a prediction comes from, checked by retraining, and bad labels.

``python examples/tabular.py [--out runs/tabular]`` (half a minute on one core) trains an MLP to
tell benign tumours from malignant ones (scikit-learn's breast cancer data, 569 rows, 30 features,
float64) and prints

1. how far the attribution can be trusted, and the rows behind one prediction;
2. which feature of which training row moves that prediction most;
3. what removing single rows really does, against what their influence predicted;
4. after a tenth of the training labels are made wrong, how well they are found, and the test
   accuracy with them, without the most suspicious tenth of the rows, and with the true labels.

Figures go to the folder given by ``--out``.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

import whence as wh
from whence import plots
from whence.evaluation import detection, suspects

SHARE = 0.1
"""Of the labels that are made wrong. The rows looked at are as many, a number fixed before."""
PENALTY = 1e-2
"""c of the penalty (c/2)‖θ‖² on the weights: a part of the objective of the attribution, too."""


def split(seed=0):
    """Return standardised rows and labels for training and test, and the names of the columns."""
    data = load_breast_cancer()
    order = np.random.default_rng(seed).permutation(len(data.target))
    train, test = order[:400], order[400:]
    x = (data.data - data.data[train].mean(axis=0)) / data.data[train].std(axis=0)
    x, y = torch.tensor(x), torch.tensor(data.target, dtype=torch.float64)[:, None]
    return (x[train], y[train]), (x[test], y[test]), data.feature_names


def train(data, start=None, without=None, seed=0):
    """Train by L-BFGS until the gradient of loss and penalty is nothing; maybe without a row."""
    counted = torch.ones_like(data[1])
    if without is not None:
        counted[without] = 0.0  # the others keep the weight 1/N that they had
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(30, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    if start is not None:
        model.load_state_dict(start.state_dict())
    parameters = list(model.parameters())
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=2000, tolerance_grad=1e-10, tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        penalty = sum(parameter.square().sum() for parameter in parameters)
        losses = nn.functional.binary_cross_entropy_with_logits(
            model(data[0]), data[1], reduction="none"
        )
        total = (counted * losses).sum() / len(losses) + PENALTY / 2 * penalty
        total.backward()
        return total

    optimizer.step(closure)
    return model


@torch.no_grad()
def accuracy(model, data):
    """Return the share of the rows that get their label."""
    x, y = data
    return float(((model(x) > 0) == (y > 0.5)).double().mean())


def influence_of(model, data):
    """Return the influence function of a model that was trained with the penalty."""
    objective = wh.Objective.supervised(
        model, data, wh.BinaryCrossEntropy(), weight_decay=PENALTY
    )
    return wh.Influence(objective, damping=0.0, curvature="hessian")


def explain(influence, training, test, names, save):
    """Print where the least certain prediction comes from; return its influences."""
    logits = influence.objective.network(test[0]).detach()[:, 0]
    unsure = int(logits.abs().argmin())
    row = influence.attribute(wh.Output(test[0][unsure : unsure + 1])).isel(target=0)
    print(
        f"\nTest row {unsure} is the least certain, with a logit of {float(logits[unsure]):+.2f}."
    )
    print(plots.describe_samples(row, names={0.0: "malignant", 1.0: "benign"}))
    print(f"quality: {row.quality()}")
    save(
        "influence",
        plots.influence_histograms(row, names={0.0: "malignant", 1.0: "benign"}),
    )

    moved = influence.attribute(
        wh.Output(test[0][unsure : unsure + 1]), effect="perturb"
    )
    values = moved.isel(target=0).values
    point, feature = np.unravel_index(np.abs(values).argmax(), values.shape)
    print(
        f"Moving '{names[feature]}' of training row {point} by one standard deviation moves that "
        f"logit by a predicted {values[point, feature]:+.3f}, more than any other number would."
    )
    return unsure, row


def check(model, training, test, unsure, row):
    """Retrain without single rows; return how predicted and true changes of a logit correlate."""
    order = np.argsort(-np.abs(row.values))
    chosen = [
        *order[:6],
        *order[50::70],
    ]  # the most influential, and some of every size
    logits = [train(training, start=model, without=k)(test[0][unsure]) for k in chosen]
    actual = [float((logit - model(test[0][unsure])).detach()) for logit in logits]
    predicted = row.values[chosen]
    correlation = float(np.corrcoef(predicted, actual)[0, 1])
    print("\nWithout a row, the logit changes by")
    for index, said, real in zip(chosen[:6], predicted[:6], actual[:6], strict=True):
        print(f"  row {index:3d}: predicted {said:+.4f}, after retraining {real:+.4f}")
    print(f"Correlation over {len(chosen)} rows: {correlation:.4f}")
    return correlation


def clean(training, test, save):
    """Make labels wrong, find them, train without the most suspicious; return the numbers."""
    x, y = training
    generator = np.random.default_rng(1)
    wrong = np.zeros(len(y), dtype=bool)
    wrong[generator.choice(len(y), round(SHARE * len(y)), replace=False)] = True
    given = x, torch.where(torch.tensor(wrong)[:, None], 1 - y, y)
    spoilt = train(given)
    influence = influence_of(spoilt, given)
    rankings = {
        "influence, on itself": suspects(influence),
        "GradDot, on itself": suspects(wh.GradDot(influence.objective)),
        "the loss alone": suspects(influence, "loss"),
    }
    curves = {name: detection(ranking, wrong) for name, ranking in rankings.items()}
    print(
        f"\n{wrong.sum()} of {len(wrong)} training labels made wrong. Average precision of finding"
    )
    for name, curve in curves.items():
        print(f"  {name:24s}{curve.average_precision:.3f}")
    save("detection", plots.detection(curves))
    rank = rankings["influence, on itself"]["rank"].values
    kept = torch.tensor(rank >= round(SHARE * len(y)))
    cleaned = train(tuple(tensor[kept] for tensor in given))
    scores = {
        "corrupted": accuracy(spoilt, test),
        "cleaned": accuracy(cleaned, test),
        "clean": accuracy(train(training), test),
    }
    print("Test accuracy: with the wrong labels {corrupted:.3f}, without the most suspicious rows "
          "{cleaned:.3f}, with the true labels {clean:.3f}".format(**scores))  # fmt: skip
    precision = {name: curve.average_precision for name, curve in curves.items()}
    return {"accuracy": scores, "average_precision": precision}


def main(arguments=None):
    """Run all steps; return their numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("runs/tabular"), help="folder for figures"
    )
    out = parser.parse_args(arguments).out

    def save(name, figure):
        print(f"figure: {plots.save(figure, out / name)[0]}")

    training, test, names = split()
    model = train(training)
    print(f"{len(training[0])} rows: test accuracy {accuracy(model, test):.3f}")
    influence = influence_of(model, training)
    unsure, row = explain(influence, training, test, names, save)
    correlation = check(model, training, test, unsure, row)
    return {"correlation": correlation, **clean(training, test, save)}


if __name__ == "__main__":
    main()
