"""Bad input of supervised models, their data and their losses: one clear error each."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bad_calls import Case
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import whence as wh
from whence import losses
from whence.evaluation.bad_data import suspects
from whence.samples import Samples

T, V = TypeError, ValueError
X, CLASSES, NUMBERS = torch.rand(6, 3), torch.arange(6) % 2, torch.rand(6, 2)
NAN = X.clone()
NAN[4, 1] = float("nan")


def model(outputs=2):
    return nn.Linear(3, outputs)


def made(data=(X, CLASSES), loss=None, network=None, **options):
    return wh.Objective.supervised(
        network or model(), data, loss or nn.CrossEntropyLoss(), **options
    )


def explained(quantity, method=wh.GradDot, points=None):
    return method(made()).attribute(quantity, points)


class Data(Dataset):
    def __init__(self, item, n=6):
        self.item, self.n = item, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.item(i)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(X[0], 0)])


class Two(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.a, self.outputs = nn.Linear(3, 2), outputs

    def forward(self, x):
        return self.outputs(self.a(x))


def mixed_devices():
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2, device="meta"))


def mixed_types():
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2, dtype=torch.float64))


def state(**changes):
    return {**model().state_dict(), **changes}


CALLS = [
    # Losses.
    Case("a loss of the mean", lambda: made(loss=lambda z, y: F.cross_entropy(z, y)), V,
         ("already reduced", "reduction='none'", "6 samples")),
    Case("a loss of the sum", lambda: made(loss=lambda z, y: F.cross_entropy(z, y).sum()), V,
         ("already reduced",)),
    Case("no loss", lambda: made(loss="cross_entropy"), T, ("loss must be", "'cross_entropy'")),
    Case("a class of loss", lambda: made(loss=nn.MSELoss), T, ("loss must be",)),
    Case("a loss of integers", lambda: made(loss=lambda z, y: y), T, ("real numbers", "int64")),
    Case("probabilities for classes", lambda: made((X, CLASSES.float())), T,
         ("class numbers", "float32", "targets.long()")),
    Case("a class too many", lambda: made((X, CLASSES + 1)), V, ("0 … 1", "got 2")),
    Case("a negative class", lambda: made((X, CLASSES - 1)), V, ("0 … 1", "got -1")),
    Case("booleans for classes", lambda: made((X, CLASSES > 0)), T, ("booleans", "long()")),
    Case("one logit for classes", lambda: made(network=model(1)), V, ("BinaryCrossEntropy",)),
    Case("classes for numbers", lambda: made(loss=nn.MSELoss()), T, ("int64", "CrossEntropy")),
    Case("numbers of another shape", lambda: made((X, NUMBERS[:, 0]), nn.MSELoss()), V,
         ("shape of the outputs, (6, 2)", "got (6, 1)")),
    Case("binary targets of another shape",
         lambda: made((X, CLASSES.float()), nn.BCEWithLogitsLoss()), V, ("(6, 2)", "(6, 1)")),
    Case("binary targets above one", lambda: made((X, NUMBERS + 1), wh.BinaryCrossEntropy()), V,
         ("0 … 1",)),
    Case("a negative scale", lambda: wh.Squared(-1.0), V, ("scale", "got -1.0")),
    Case("samples without targets", lambda: made(Samples(X)), V, ("have no targets",)),
    # Data.
    Case("inputs alone", lambda: made(X), T, ("(inputs, ..., target)",)),
    Case("one of a tuple", lambda: made((X,)), T, ("(inputs, ..., target)", "1 of them")),
    Case("no data", lambda: made(None), T, ("tensors (inputs, target), a Dataset", "None")),
    Case("lists of words", lambda: made(([["a"]], [0])), T, ("tensors or arrays",)),
    Case("lengths that differ", lambda: made((X, CLASSES[:5])), V, ("one length", "(5,)")),
    Case("no samples", lambda: made((X[:0], CLASSES[:0])), V, ("at least one",)),
    Case("an empty dataset", lambda: made(Data(lambda i: (X[i], 0), 0)), V, ("at least one",)),
    Case("inputs not finite", lambda: made((NAN, CLASSES)), V, ("finite", "sample 4")),
    Case("a loader that shuffles", lambda: made(
        DataLoader(TensorDataset(X, CLASSES), shuffle=True)), V,
        ("changes their order between passes", "shuffle=False")),
    Case("a stream", lambda: made(DataLoader(Stream())), T, ("IterableDataset", "map-style")),
    Case("a loader without batches", lambda: made(
        DataLoader(TensorDataset(X, CLASSES), batch_size=None)), T, ("batch_size=None",)),
    Case("augmentation at random", lambda: made(Data(lambda i: (torch.rand(3), 0))), V,
         ("another sample each time", "augmentation")),
    Case("items that are no tuples", lambda: made(Data(lambda i: X[i])), T,
         ("(inputs, ..., target)",)),
    Case("no batch", lambda: made(batch_size=0), V, ("batch_size", "got 0")),
    # Models.
    Case("no model", lambda: made(network=lambda x: x), T, ("torch.nn.Module",)),
    Case("all frozen", lambda: made(network=model().requires_grad_(False)), V,
         ("none that require",)),
    Case("an empty selection", lambda: made(parameters="wieght"), V,
         ("selects none", "did you mean 'weight'")),
    Case("a selection of nothing", lambda: made(parameters=()), V, ("selects none",)),
    Case("a selection by number", lambda: made(parameters=3), T, ("select must be",)),
    Case("mixed devices", lambda: made(network=mixed_devices()), V, ("mix devices", "meta")),
    Case("mixed numbers", lambda: made(network=mixed_types()), V, ("mix dtypes", "float64")),
    Case("a pair of outputs", lambda: made(network=Two(lambda h: (h, h))), T,
         ("several outputs", "a loss for each")),
    Case("outputs mixed over samples", lambda: made(network=Two(lambda h: h.sum(0))), V,
         ("for each of 6 samples",)),
    # Quantities and methods.
    Case("test data of another kind", lambda: explained(wh.Loss(X)), T, ("Loss(inputs, targets)",)),
    Case("test data not finite", lambda: explained(wh.Loss(NAN, CLASSES)), V, ("sample 4",)),
    Case("an output without a name", lambda: explained(wh.Output(X)), V, ("output_0, output_1",)),
    Case("an unknown output", lambda: explained(wh.Output(X, "output_7")), V, ("'output_7'",)),
    Case("points of another kind", lambda: explained(wh.Loss(), points=X), T,
         ("points of term 'data'", "(inputs, ..., target)")),
    Case("an unknown effect", lambda: wh.GradDot(made()).attribute(wh.Loss(), effect="move"), V,
         ("effect 'move'", "did you mean 'remove'")),
    Case("a method of a function", lambda: wh.GradDot(F.relu), T, ("must be an Objective",)),
    Case("a model alone", lambda: wh.GradDot(model()), T,
         ("a model needs data", "wh.GradDot(model, data=(x, y)")),
    Case("a model without a loss", lambda: wh.Influence(model(), (X, CLASSES)), T,
         ("a model needs loss",)),
    Case("an objective with data", lambda: wh.Influence(made(), (X, CLASSES)), T,
         ("an Objective has data of its own", "wh.Influence(model, data=data")),
    Case("an objective with parameters", lambda: wh.GradCos(made(), parameters="0.*"), T,
         ("an Objective has parameters of its own",)),
    Case("checkpoints of a model alone", lambda: wh.TracIn(model(), [state()]), T,
         ("a model needs data",)),
    Case("checkpoints for data", lambda: wh.TracIn(made(), [state()], data=(X, CLASSES)), T,
         ("an Objective has data of its own",)),
    Case("no checkpoints", lambda: wh.TracIn(made(), []), V, ("at least one",)),
    Case("one checkpoint bare", lambda: wh.TracIn(made(), state()), V, ("sequence",)),
    Case("rates that do not fit", lambda: wh.TracIn(made(), [state()], [0.1, 0.2]), V,
         ("1 checkpoints", "got 2")),
    Case("a negative rate", lambda: wh.TracIn(made(), [state()], -0.1), V, ("learning rate",)),
    Case("a checkpoint of another network", lambda: wh.TracIn(made(), [{"wieght": X}]), V,
         ("checkpoint 0 has no 'weight'", "did you mean 'wieght'")),
    Case("a checkpoint of another shape", lambda: wh.TracIn(made(), [state(bias=X[0])]), V,
         ("'bias' of shape (3,)", "(2,)")),
    Case("a pickled checkpoint", lambda: wh.TracIn(made(), ["model.pt"]), V,
         (".safetensors", "model.pt")),
    Case("a radius of zero", lambda: wh.EmpiricalInfluence(made(), radius=0.0), V, ("radius",)),
    Case("no directions", lambda: wh.EmpiricalInfluence(made(), directions=0), V, ("directions",)),
    Case("directions in words", lambda: wh.EmpiricalInfluence(made(), directions="gradients"), V,
         ("did you mean 'gradient'",)),
    Case("a learning rate of zero", lambda: wh.EmpiricalInfluence(made(), learning_rate=0.0), V,
         ("learning_rate",)),
    Case("a learning rate and a radius", lambda: wh.EmpiricalInfluence(
        made(), learning_rate=0.1, radius=0.1), V, ("one of the two",)),
    Case("a learning rate along random directions", lambda: wh.EmpiricalInfluence(
        made(), learning_rate=0.1, directions=3), V, ("leave out directions",)),
    Case("suspects of clean data that are none", lambda: suspects(
        wh.GradDot(made()), validation=X), T, ("Loss(inputs, targets)",)),
    Case("leverage of a loss without", lambda: wh.leverage(
        wh.Influence(made((X, NUMBERS), nn.HuberLoss()))), V, ("first_order",)),
]  # fmt: skip


@pytest.mark.parametrize("case", CALLS, ids=lambda case: case.name)
def test_bad_call(case):
    torch.manual_seed(0)
    with pytest.raises(case.error) as raised:
        case.call()
    message = str(raised.value)
    for part in case.says:
        assert part in message, message
    assert "\n" not in message
    assert len(message) < 400


def test_reading_leaves_the_random_state_alone():
    network, before = model(), torch.get_rng_state()
    made(DataLoader(TensorDataset(X, CLASSES), batch_size=2), network=network)
    with pytest.raises(ValueError, match="changes their order"):
        made(DataLoader(TensorDataset(X, CLASSES), shuffle=True), network=network)
    assert torch.equal(torch.get_rng_state(), before)


def test_ignored_classes_and_arrays():
    labels = np.where(np.arange(6) == 2, -100, CLASSES.numpy())
    objective = made((X.numpy(), labels))
    assert float(wh.GradDot(objective).self_influence()[2]) == 0.0


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (wh.CrossEntropy(), nn.CrossEntropyLoss(reduction="none")),
        (wh.CrossEntropy(label_smoothing=0.2),
         nn.CrossEntropyLoss(label_smoothing=0.2, reduction="none")),
        (wh.CrossEntropy(torch.tensor([1.0, 3.0])),
         nn.CrossEntropyLoss(torch.tensor([1.0, 3.0]), reduction="none")),
        (wh.BinaryCrossEntropy(), nn.BCEWithLogitsLoss(reduction="none")),
        (wh.BinaryCrossEntropy(torch.tensor([2.0])),
         nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0]), reduction="none")),
        (wh.Squared(), nn.MSELoss(reduction="none")),
        (wh.Absolute(), nn.L1Loss(reduction="none")),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("size", [1.0, 60.0])
def test_losses_and_their_derivatives_are_torchs(ours, theirs, size):
    """Values, gradients, curvature and its root; ρ meets ∂ℓ, also of logits that are far off."""
    torch.manual_seed(0)
    z = size * torch.randn(9, 2, dtype=torch.float64)
    classes = isinstance(ours, wh.CrossEntropy)
    y = (
        torch.arange(9) % 2
        if classes
        else torch.rand(9, 2, dtype=torch.float64).round()
    )
    for module in (theirs,):
        for name in ("weight", "pos_weight"):
            if getattr(module, name, None) is not None:
                setattr(module, name, getattr(module, name).double())
    reference = losses.PerSample(lambda a, b: theirs(a, b).reshape(len(a), -1).sum(1))
    torch.testing.assert_close(
        ours.value(z, y), reference.value(z, y), rtol=1e-12, atol=1e-12
    )
    gradient = reference.gradient(z, y)
    torch.testing.assert_close(ours.gradient(z, y), gradient, rtol=1e-10, atol=1e-12)
    root = ours.curvature_root(z, y)
    curvature = reference.curvature(z, y)
    torch.testing.assert_close(root @ root.mT, curvature, rtol=1e-9, atol=1e-12)
    if ours.spans:
        met = (root @ ours.whitened_gradient(z, y).unsqueeze(2)).squeeze(2)
        torch.testing.assert_close(met, gradient, rtol=1e-9, atol=1e-12)
