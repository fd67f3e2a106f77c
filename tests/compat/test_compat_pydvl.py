"""pyDVL's names: values against formulas written out, without pyDVL; its own where it is there."""

import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from whence.compat import pydvl as ours

N, T, D, CLASSES = 14, 4, 3, 3
LAMBDA = 0.7
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, D, generator=GENERATOR, dtype=torch.float64)
Y = torch.randint(0, CLASSES, (N,), generator=GENERATOR)
X_TEST = torch.randn(T, D, generator=GENERATOR, dtype=torch.float64)
Y_TEST = torch.randint(0, CLASSES, (T,), generator=GENERATOR)
EXACT = 1e-9
ALL = slice(None)


def cross_entropy(output, target):
    return F.cross_entropy(output, target)


def loader(x=X, y=Y, size=5, **options):
    return DataLoader(TensorDataset(x, y), size, **options)


@pytest.fixture(name="model", scope="module")
def _model():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(D, 4), nn.Tanh(), nn.Linear(4, CLASSES))
    return model.double()


# --- brute force -------------------------------------------------------------------------------


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def loss_at(model, theta, x, y, loss=cross_entropy):
    tensors, start = {}, 0
    for name, p in model.named_parameters():
        tensors[name] = theta[start : start + p.numel()].view(p.shape)
        start += p.numel()
    return loss(functional_call(model, tensors, (x,)), y)


def gradients(model, x, y, loss=cross_entropy):
    theta = flat(model)
    rows = [
        torch.func.grad(lambda t, k=k: loss_at(model, t, x[k, None], y[k, None], loss))(
            theta
        )
        for k in range(len(x))
    ]
    return torch.stack(rows)


def hessian(model, loss=cross_entropy, x=X, y=Y):
    return torch.func.hessian(lambda t: loss_at(model, t, x, y, loss))(flat(model))


def gauss_newton(model):
    theta = flat(model)
    total = torch.zeros(len(theta), len(theta), dtype=torch.float64)
    for k in range(N):
        out = loss_at(model, theta, X[k, None], Y, lambda o, _: o[0])
        j = torch.func.jacrev(
            lambda t, k=k: loss_at(model, t, X[k, None], Y, lambda o, _: o[0])
        )(theta)
        p = out.softmax(0)
        total += j.T @ (torch.diag(p) - torch.outer(p, p)) @ j / N
    return total


def expected(model, matrix, damping=LAMBDA):
    system = matrix + damping * torch.eye(len(matrix), dtype=torch.float64)
    solved = torch.linalg.solve(system, gradients(model, X_TEST, Y_TEST).T)
    return solved.T @ gradients(model, X, Y).T


def close(values, expected, tolerance=EXACT):
    assert values.shape == expected.shape
    assert float((values - expected).abs().max() / expected.abs().max()) <= tolerance


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss", [cross_entropy, nn.CrossEntropyLoss(), F.cross_entropy]
)
def test_influences_have_plus_and_no_factor_of_n(model, loss):
    fitted = ours.DirectInfluence(model, loss, regularization=LAMBDA).fit(loader())
    close(fitted.influences(X_TEST, Y_TEST, X, Y), expected(model, hessian(model)))


def test_a_positive_influence_raises_the_loss_where_the_sample_is_removed():
    """The sign, by retraining: least squares has its minimum in closed form."""
    x, y = X, X @ torch.tensor([[1.0], [2.0], [-1.0]]).double() + 0.5
    y = y + 0.3 * torch.randn(N, 1, generator=GENERATOR, dtype=torch.float64)
    model = nn.Linear(D, 1, bias=False).double()

    def fit(keep):
        return torch.linalg.lstsq(x[keep], y[keep]).solution

    with torch.no_grad():
        model.weight.copy_(fit(ALL).T)
    fitted = ours.DirectInfluence(model, nn.MSELoss()).fit(loader(x, y))
    values = fitted.influences(x[:1] + 1, y[:1], x, y)[0] / N

    changes = []
    for k in range(N):
        without = fit(torch.arange(N) != k)
        before = ((x[:1] + 1) @ fit(ALL) - y[:1]).square()
        changes.append(float(((x[:1] + 1) @ without - y[:1]).square() - before))
    assert np.corrcoef(values.numpy(), changes)[0, 1] > 0.95


def test_true_gauss_newton_not_the_fisher_matrix_of_the_labels(model):
    fitted = ours.DirectInfluence(
        model,
        cross_entropy,
        LAMBDA,
        second_order_mode=ours.SecondOrderMode.GAUSS_NEWTON,
    ).fit(loader())
    close(fitted.influences(X_TEST, Y_TEST, X, Y), expected(model, gauss_newton(model)))


def test_conjugate_gradients_answer_more_right_hand_sides_than_parameters():
    model = nn.Linear(D, 1, bias=False).double()
    y = X.sum(1, keepdim=True)
    fitted = ours.CgInfluence(model, nn.MSELoss(), LAMBDA).fit(loader(X, y))
    values = fitted.influences(X, y)
    rows = gradients(model, X, y, F.mse_loss)
    system = hessian(model, F.mse_loss, X, y) + LAMBDA * torch.eye(D).double()
    close(values, rows @ torch.linalg.solve(system, rows.T))
    assert (values.abs().sum(1) > 0).all()


def test_lissa_adds_dampen_times_scale(model):
    fitted = ours.LissaInfluence(
        model,
        cross_entropy,
        LAMBDA,
        dampen=0.02,
        scale=20.0,
        second_order_mode="gauss_newton",
    ).fit(loader())
    exact = expected(model, gauss_newton(model), LAMBDA + 0.02 * 20)
    close(fitted.influences(X_TEST, Y_TEST, X, Y), exact, 1e-7)


@pytest.mark.parametrize("woodbury", [False, True])
def test_arnoldi_keeps_the_largest_eigenvalues(model, woodbury):
    fitted = ours.ArnoldiInfluence(
        model, cross_entropy, LAMBDA, rank=6, use_woodbury=woodbury
    ).fit(loader())
    values, vectors = torch.linalg.eigh(hessian(model))
    kept = values.abs().argsort(descending=True)[:6]
    basis = vectors[:, kept]
    inverse = basis @ torch.diag(1 / (values[kept] + LAMBDA)) @ basis.T
    if woodbury:
        eye = torch.eye(len(values), dtype=torch.float64)
        inverse += (eye - basis @ basis.T) / LAMBDA
    test, train = gradients(model, X_TEST, Y_TEST), gradients(model, X, Y)
    close(fitted.influences(X_TEST, Y_TEST, X, Y), test @ inverse @ train.T, 1e-8)


@pytest.mark.parametrize("mode", ["hessian", "gauss_newton"])
def test_a_sketch_of_full_rank_is_the_curvature(model, mode):
    rank = sum(p.numel() for p in model.parameters())
    fitted = ours.NystroemSketchInfluence(
        model, cross_entropy, LAMBDA, rank, second_order_mode=mode
    ).fit(loader())
    matrix = hessian(model) if mode == "hessian" else gauss_newton(model)
    close(fitted.influences(X_TEST, Y_TEST, X, Y), expected(model, matrix), 1e-7)


def test_ekfac_of_one_layer_and_of_one_sample_is_exact():
    model = nn.Linear(D, CLASSES).double()
    fitted = ours.EkfacInfluence(model, hessian_regularization=LAMBDA)
    fitted.fit(loader(X[:1], Y[:1]))
    # Of a linear model the Hessian is the Gauss–Newton matrix.
    matrix = hessian(model, x=X[:1], y=Y[:1])
    close(fitted.influences(X_TEST, Y_TEST, X, Y), expected(model, matrix), 1e-8)


def test_perturbation_is_the_mixed_derivative(model):
    fitted = ours.DirectInfluence(model, cross_entropy, LAMBDA).fit(loader())
    values = fitted.influences(X_TEST, Y_TEST, X, Y, mode="perturbation")
    assert values.shape == (T, N, D)

    factors = fitted.influence_factors(X_TEST, Y_TEST)
    theta = flat(model)
    for j in range(N):
        mixed = torch.func.jacrev(
            torch.func.grad(
                lambda t, x, j=j: loss_at(model, t, x[None], Y[j, None]), argnums=0
            ),
            argnums=1,
        )(theta, X[j])
        close(values[:, j], factors @ mixed)


def test_images_are_moved_pixel_by_pixel():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2))
    model = model.double()
    x, y = torch.randn(5, 1, 3, 3).double(), torch.randn(5, 2).double()
    fitted = ours.DirectInfluence(model, nn.MSELoss(), 1.0).fit(loader(x, y))
    assert fitted.influences(
        x[:2], y[:2], x, y, ours.InfluenceMode.Perturbation
    ).shape == (
        2,
        5,
        1,
        3,
        3,
    )


# --- factors, blocks, parts --------------------------------------------------------------------


def test_influences_are_products_of_factors(model):
    fitted = ours.DirectInfluence(model, cross_entropy, LAMBDA).fit(loader())
    factors = fitted.influence_factors(X_TEST, Y_TEST)
    close(factors @ gradients(model, X, Y).T, expected(model, hessian(model)))
    close(
        fitted.influences_from_factors(factors, X, Y), expected(model, hessian(model))
    )


@pytest.mark.parametrize(
    ("structure", "sizes"),
    [
        (ours.BlockMode.LAYER_WISE, [16, 15]),
        (ours.BlockMode.PARAMETER_WISE, [12, 4, 12, 3]),
        (OrderedDict(a=["0.weight", "0.bias"], b=["2.weight", "2.bias"]), [16, 15]),
    ],
)
def test_blocks_leave_out_what_is_between_them(model, structure, sizes):
    fitted = ours.DirectInfluence(model, cross_entropy, LAMBDA, structure).fit(loader())
    matrix = hessian(model)
    blocks, start = torch.zeros_like(matrix), 0
    for size in sizes:
        part = slice(start, start + size)
        blocks[part, part] = matrix[part, part]
        start += size
    close(fitted.influences(X_TEST, Y_TEST, X, Y), expected(model, blocks))
    by_block = fitted.influences_by_block(X_TEST, Y_TEST, X, Y)
    assert [
        len(f[0]) for f in fitted.influence_factors_by_block(X, Y).values()
    ] == sizes
    close(sum(by_block.values()), expected(model, blocks))


def test_regularization_by_block_and_another_one_later(model):
    structure = ours.BlockMode.LAYER_WISE
    fitted = ours.DirectInfluence(model, cross_entropy, {"0": 1.0, "2": 2.0}, structure)
    fitted.fit(loader())
    whole = fitted.influences(X_TEST, Y_TEST, X, Y)
    again = ours.DirectInfluence(model, cross_entropy, 5.0, structure).fit(loader())
    again.with_regularization({"0": 1.0, "2": 2.0})
    close(again.influences(X_TEST, Y_TEST, X, Y), whole, 1e-14)


def test_a_loader_that_shuffles_has_the_same_curvature(model):
    plain = ours.DirectInfluence(model, cross_entropy, LAMBDA).fit(loader())
    shuffled = ours.DirectInfluence(model, cross_entropy, LAMBDA)
    shuffled.fit(loader(shuffle=True, drop_last=True))
    close(
        shuffled.influences(X_TEST, Y_TEST, X, Y),
        plain.influences(X_TEST, Y_TEST, X, Y),
        1e-14,
    )


def test_readmes_script_with_another_import(tmp_path, monkeypatch):
    """pyDVL's quick start to the letter, but for the module, on which its own fails."""
    monkeypatch.chdir(tmp_path)
    input_dim, output_dim = (5, 5, 5), 3
    train_x, train_y = torch.rand((10, *input_dim)), torch.rand((10, output_dim))
    test_x, test_y = torch.rand((5, *input_dim)), torch.rand((5, output_dim))
    train_data_loader = DataLoader(TensorDataset(train_x, train_y), batch_size=2)
    test_data_loader = DataLoader(TensorDataset(test_x, test_y), batch_size=1)
    model = nn.Sequential(
        nn.Conv2d(in_channels=5, out_channels=3, kernel_size=3),
        nn.Flatten(),
        nn.Linear(27, 3),
    )
    infl_model = ours.DirectInfluence(model, nn.MSELoss(), hessian_regularization=0.01)
    infl_model = infl_model.fit(train_data_loader)
    influences = infl_model.influences(test_x, test_y, train_x, train_y)

    lazy_influences = ours.SequentialInfluenceCalculator(infl_model).influences(
        test_data_loader, train_data_loader
    )
    again = lazy_influences.compute(aggregator=ours.NestedTorchCatAggregator())
    close(again, influences, 1e-3)  # float32
    chunks = lazy_influences.compute()
    assert (len(chunks), len(chunks[0]), chunks[0][0].shape) == (5, 5, (1, 2))
    stored = lazy_influences.to_zarr(
        "influences_result", ours.TorchNumpyConverter(), return_stored=True
    )
    assert np.array_equal(stored[:], again.numpy())
    with pytest.raises(FileExistsError, match="influences_result"):
        lazy_influences.to_zarr("influences_result", ours.TorchNumpyConverter())


# --- bad input ---------------------------------------------------------------------------------


def test_bad_input_is_an_error_that_says_what_to_do(model):
    direct = ours.DirectInfluence(model, cross_entropy, LAMBDA)
    with pytest.raises(ValueError, match=r"call fit\(train_loader\) first"):
        direct.influences(X, Y)
    with pytest.raises(TypeError, match="fit takes a DataLoader"):
        direct.fit((X, Y))
    with pytest.raises(ValueError, match="regularization"):
        ours.DirectInfluence(model, cross_entropy, -1.0)
    with pytest.raises(ValueError, match=r"block.*'nine'"):
        ours.DirectInfluence(
            model, cross_entropy, {"nine": 1.0}, ours.BlockMode.LAYER_WISE
        )
    with pytest.raises(TypeError, match="the loss must be"):
        ours.DirectInfluence(model, "mse")
    sampler = WeightedRandomSampler([1.0] * N, N)
    with pytest.raises(ValueError, match="WeightedRandomSampler"):
        direct.fit(DataLoader(TensorDataset(X, Y), sampler=sampler))
    direct.fit(loader())
    with pytest.raises(ValueError, match="mode"):
        direct.influences(X, Y, mode="down")
    with pytest.raises(ValueError, match="both inputs and targets"):
        direct.influences(X, Y, X)
    with pytest.raises(ValueError, match="influence_factors returned"):
        direct.influences_from_factors(torch.zeros(2, 3), X, Y)


def test_a_singular_curvature_is_refused():
    model = nn.Linear(D, 1, bias=False).double()
    x = torch.ones(N, D).double()
    with pytest.raises(ValueError, match="damping"):
        ours.DirectInfluence(model, nn.MSELoss()).fit(loader(x, x[:, :1]))


# --- beside pyDVL ------------------------------------------------------------------------------


def test_direct_agrees_with_pydvl(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pytest.importorskip("pydvl.influence.torch")
        modes = pytest.importorskip("pydvl.influence")
    fitted = theirs.DirectInfluence(model, cross_entropy, LAMBDA).fit(loader())
    own = ours.DirectInfluence(model, cross_entropy, LAMBDA).fit(loader())
    arguments = X_TEST, Y_TEST, X, Y
    close(own.influences(*arguments), fitted.influences(*arguments).detach())
    mode = modes.InfluenceMode.Perturbation
    close(
        own.influences(*arguments, mode),
        fitted.influences(*arguments, mode).detach(),
    )
