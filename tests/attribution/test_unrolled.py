"""Unrolled differentiation in segments against replays, and loops of dense steps."""

import numpy as np
import oracles
import pytest
import torch
from torch import nn

import whence as wh
from whence.attribution import unrolled as unrolled_module
from whence.attribution.segments import segments_of
from whence.curvature.layer_rows import LayerMatrix
from whence.curvature.unrolling import outer_root

N = 20


def data(n=N, outputs=3):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return x, torch.arange(n) % outputs


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(4, 3).double()


def perceptron(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def trained(model, optimizer, epochs=6, batch_size=N, scheduler=None):
    return wh.train(
        model,
        data(),
        nn.CrossEntropyLoss(),
        optimizer,
        epochs=epochs,
        batch_size=batch_size,
        scheduler=scheduler,
    )


def gradients(objective, state, model):
    """Return ∇ℓ of every training sample in a state, (N, P)."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    term = objective.term("data")
    rows = []
    for k in range(N):
        tensors = dict(model.named_parameters())
        point = term.points[k : k + 1]
        value = term.value(term.residual(tensors, point), point)
        rows.append(
            torch.cat(
                [g.reshape(-1) for g in torch.autograd.grad(value, model.parameters())]
            )
        )
    model.load_state_dict(before)
    return torch.stack(rows)


def curvature(objective, state, model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    matrix = wh.GaussNewtonMatrix(objective).dense()
    model.load_state_dict(before)
    return matrix


def test_segments_of_a_step_are_the_exact_replay():
    """Of a model that is linear in θ Gauss–Newton is the Hessian, and nothing is approximated."""
    model = linear()
    run = trained(model, torch.optim.SGD(model.parameters(), lr=0.3))
    quantity = wh.Loss(data(5))
    exact = wh.Replay(run).attribute(quantity)
    states = run.checkpoints(range(6))  # before each step
    segments = [wh.Segment([state], 0.3, 1) for state in states]
    unrolled = wh.Unrolled(run.objective, segments, form="power")
    oracles.close(unrolled.attribute(quantity).values, exact.values, 1e-10)

    # e^{−ηH} in place of 1 − ηH is wrong by O(η²) in each step.
    smooth = wh.Unrolled(run.objective, segments).attribute(quantity)
    error = np.abs(smooth.values - exact.values).max() / np.abs(exact.values).max()
    assert 1e-6 < error < 0.05


def test_it_is_a_loop_of_steps_with_means_over_checkpoints(tmp_path):
    """Two segments of a network, with rates and penalties of each parameter."""
    model = perceptron()
    objective = wh.Objective.supervised(model, data(), nn.CrossEntropyLoss())
    size = objective.parameters.size
    generator = torch.Generator().manual_seed(1)
    segments = []
    for k in range(2):
        states = [perceptron(10 * k + j).state_dict() for j in range(2)]
        rate = 0.2 + 0.3 * torch.rand(size, generator=generator, dtype=torch.float64)
        decay = 0.1 * torch.rand(size, generator=generator, dtype=torch.float64)
        segments.append(wh.Segment(states, rate, 3 + k, decay))

    # x ← x − η(H + C)x + ηg/N for every training sample, segment by segment
    moved = torch.zeros(size, N, dtype=torch.float64)
    for segment in segments:
        of_states = [curvature(objective, s, model) for s in segment.checkpoints]
        matrix = torch.stack(of_states).mean(0) + segment.weight_decay.diag()
        pushes = [gradients(objective, s, model) for s in segment.checkpoints]
        push = torch.stack(pushes).mean(0).T / N
        for _ in range(segment.steps):
            moved = moved + segment.learning_rate[:, None] * (push - matrix @ moved)
    ended = gradients(objective, model.state_dict(), model)
    expected = (ended[:4] @ moved).numpy()

    unrolled = wh.Unrolled(objective, segments, form="power")
    quantity = wh.Loss(data()[0][:4], data()[1][:4])
    whole = unrolled.attribute(quantity)
    oracles.close(whole.values, expected, 1e-9)
    oracles.close(
        unrolled.self_influence().values, np.diag((ended @ moved).numpy()), 1e-9
    )
    by_layer = unrolled.attribute(quantity, by_layer=True)
    oracles.close(by_layer.sum("layer").values, expected, 1e-9)
    some = unrolled.attribute(quantity, wh.TrainingPoints([3, 1]), "add")
    oracles.close(some.values, -expected[:, [1, 3]], 1e-9)
    written = unrolled.attribute(quantity, out=tmp_path / "values.zarr")
    oracles.close(written.values, expected, 1e-9)
    (total,) = unrolled.attribute_blocks(quantity, block=10)
    oracles.close(total, expected, 1e-9)

    assert whole.attrs["segments"] == 2
    assert whole.attrs["checkpoints"] == 4
    quality = whole.quality()
    assert "7 steps in 2 segments" in quality.statements[0]
    assert "wh.Replay" in quality.caveats[0]


def test_many_steps_are_influence_and_few_are_products_of_gradients():
    model = linear()
    x, y = data()
    target = nn.functional.one_hot(y).double()
    objective = wh.Objective.supervised(
        model, (x, target), wh.Squared(), weight_decay=1e-2
    )
    quantity = wh.Loss(x[:3], target[:3])
    state = model.state_dict()

    def values(steps, rate=0.1):
        segment = wh.Segment([state], rate, steps)
        return wh.Unrolled(objective, [segment]).attribute(quantity).values

    influence = wh.Influence(objective, damping=0.0).attribute(quantity).values
    errors = [np.abs(values(k) - influence).max() for k in (10, 100, 10_000)]
    assert errors[0] > errors[1] > errors[2]
    oracles.close(values(10_000), influence, 1e-7)

    products = wh.GradDot(objective).attribute(quantity).values
    oracles.close(values(1, 1e-7), 1e-7 * products, 1e-5)


def test_all_directions_coupled_are_the_dense_answer():
    model = perceptron()
    objective = wh.Objective.supervised(model, data(), nn.CrossEntropyLoss())
    size = objective.parameters.size
    states = [perceptron(k).state_dict() for k in (1, 2)]
    quantity = wh.Loss(data(3))

    # Rates that are a product of one of each output and one of each input of a layer.
    rates = {}
    for name, parameter in model.named_parameters():
        outputs = 0.1 + 0.05 * torch.arange(len(parameter), dtype=torch.float64)
        inputs = 1.0
        if parameter.ndim == 2:
            inputs = 1.0 + 0.1 * torch.arange(parameter.shape[1], dtype=torch.float64)
            outputs = outputs[:, None]
        rates[name] = torch.ones_like(parameter) * outputs * inputs
    for rate in (0.3, objective.parameters.flatten(rates).detach()):
        segments = [wh.Segment(states, rate, 20), wh.Segment(states[:1], rate, 10)]
        exact = wh.Unrolled(objective, segments, solver=wh.Exact()).attribute(quantity)
        coupled = wh.Unrolled(
            objective, segments, solver=wh.EKFAC(coupled=size)
        ).attribute(quantity)
        oracles.close(coupled.values, exact.values, 1e-8)

    sampled = wh.Unrolled(objective, segments, solver=wh.EKFAC(mc_samples=200))
    drawn = sampled.attribute(quantity).values
    assert np.corrcoef(drawn.ravel(), exact.values.ravel())[0, 1] > 0.99
    apart = wh.Unrolled(objective, segments, solver=wh.EKFAC(coupled=0))
    near = apart.attribute(quantity)
    assert near.attrs["factors"] == "ekfac"
    assert np.corrcoef(near.values.ravel(), exact.values.ravel())[0, 1] > 0.9


def test_the_solver_is_chosen_by_size_and_by_what_layers_are_known(monkeypatch):
    monkeypatch.setattr(unrolled_module, "DENSE_PARAMETERS", 1)
    torch.manual_seed(0)

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([0.5, 1.0, 2.0]))

        def forward(self, x):
            # Of what is done to a parameter before it is used no factors are known.
            return self.scale.exp() * x[:, :3]

    chosen = {}
    for model in (perceptron(), Scaled().double()):
        segment = wh.Segment([model.state_dict()], 0.1, 5)
        method = wh.Unrolled(model, [segment], data(), nn.CrossEntropyLoss())
        assert np.isfinite(method.attribute(wh.Loss(data(2)))).all()
        chosen[type(model)] = method.solver.name
    assert chosen == {nn.Sequential: "ekfac", Scaled: "exact"}


def test_kronecker_factors_of_a_layer_with_a_penalty_are_exact():
    """A single output: the layer's basis is that of the whole curvature."""
    torch.manual_seed(0)
    model = nn.Linear(4, 1).double()
    x, y = data()
    objective = wh.Objective.supervised(
        model, (x, y[:, None].double()), wh.Squared(), weight_decay=0.1
    )
    segments = [wh.Segment([model.state_dict()], 0.05, 9) for _ in range(2)]
    exact = wh.Unrolled(objective, segments, form="power").attribute(wh.Loss())
    by_layer = wh.Unrolled(objective, segments, solver=wh.EKFAC(), form="power")
    oracles.close(by_layer.attribute(wh.Loss()).values, exact.values, 1e-9)


def test_the_root_of_rates_is_the_nearest_product():
    layer = LayerMatrix("w", (), (slice(0, 6),), outputs=2, inputs=3, outer=True)
    rates = torch.outer(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 9.0, 2.0]))
    left, right = outer_root(layer, rates.reshape(-1))
    assert torch.allclose(left[:, None] * right, rates.sqrt())


OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "adam": (torch.optim.Adam, {"lr": 0.01, "betas": (0.0, 0.9), "eps": 1e-3}),
    "amsgrad": (torch.optim.Adam, {"lr": 0.01, "betas": (0.0, 0.9), "amsgrad": True}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, "centered": True}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.01, "lr_decay": 0.3}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_segment_of_a_step_has_the_rates_that_the_optimizer_took(name):
    """θ moves by the rate of each parameter times the gradient of the whole batch."""
    kind, options = OPTIMIZERS[name]
    model = linear()
    run = trained(model, kind(model.parameters(), **options), epochs=1)
    (segment,) = segments_of(run, 1, 1)
    before, after = run.checkpoints([0, 1])
    gradient = gradients(run.objective, before, model).mean(0)
    flatten = run.objective.parameters.flatten
    expected = flatten(before) - segment.learning_rate * gradient
    oracles.close(flatten(after), expected, 1e-9)


def test_rates_follow_momentum_schedules_and_decay():
    model = linear()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.02
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    run = trained(model, optimizer, epochs=4, scheduler=scheduler)
    first, second = segments_of(run, 2, 1)
    assert float(first.learning_rate[0]) == pytest.approx(10 * 0.075)
    assert float(second.learning_rate[3]) == pytest.approx(10 * 0.01875)
    assert float(second.weight_decay[3]) == pytest.approx(0.02)

    # A momentum that a loop of one's own changes is that of the step.
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    recorder = wh.TrainingRecorder(model, optimizer, data(), nn.CrossEntropyLoss())
    recorder.step(range(N))
    optimizer.param_groups[0]["momentum"] = 0.75
    recorder.step(range(N))
    before, after = segments_of(recorder.run(), 2, 1)
    assert float(before.learning_rate[0]) == pytest.approx(0.2)
    assert float(after.learning_rate[0]) == pytest.approx(0.4)

    model = linear()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.02)
    (segment,) = segments_of(trained(model, optimizer), 1, 2)
    shrinkage = segment.learning_rate * segment.weight_decay
    oracles.close(shrinkage, torch.full_like(shrinkage, 0.002), 1e-9)


def test_a_run_of_adam_is_predicted_nearly_as_a_replay_does():
    model = perceptron()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, eps=1e-3)
    run = trained(model, optimizer, epochs=20, batch_size=5)
    quantity = wh.Loss(data(8))
    exact = wh.Replay(run).attribute(quantity).values
    unrolled = wh.Unrolled.from_run(run, 4)
    values = unrolled.attribute(quantity).values
    assert np.corrcoef(exact.ravel(), values.ravel())[0, 1] > 0.8
    # Targets are those of the trained model, whatever has become of it.
    with torch.no_grad():
        model[0].weight.zero_()
    again = wh.Unrolled.from_run(run, 4).attribute(quantity).values
    oracles.close(again, values, 1e-12)


def test_tied_weights_are_in_checkpoints_twice():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    model[2].weight = model[0].weight
    x = torch.randn(6, 3, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = wh.train(model, (x, x), wh.Squared(), optimizer, epochs=2, batch_size=3)
    start, end = run.checkpoints([0, 4])
    assert torch.equal(start["0.weight"], start["2.weight"])
    assert not torch.equal(start["0.weight"], end["0.weight"])
    assert torch.equal(end["2.weight"], model[2].weight)
    with pytest.raises(ValueError, match="from 0 to 4"):
        run.checkpoints([3, 5])
    with pytest.raises(ValueError, match="in the order"):
        run.checkpoints([3, 1])


def test_what_does_not_fit_is_named():
    model = perceptron()
    task = (model, data(), nn.CrossEntropyLoss())
    objective = wh.Objective.supervised(*task)
    segment = wh.Segment([model.state_dict()], 0.1, 5)
    with pytest.raises(ValueError, match=r"one or more wh\.Segment"):
        wh.Unrolled(objective, [])
    with pytest.raises(TypeError, match=r"must be a wh\.Segment"):
        wh.Unrolled(objective, [model.state_dict()])
    with pytest.raises(ValueError, match="learning_rate"):
        wh.Segment([model.state_dict()], -0.1, 5)
    with pytest.raises(ValueError, match="must be positive"):
        wh.Segment([model.state_dict()], torch.zeros(3), 5)
    with pytest.raises(ValueError, match="learning_rate of a segment"):
        wh.Unrolled(objective, [wh.Segment([model.state_dict()], torch.ones(3), 5)])
    with pytest.raises(ValueError, match="of this network"):
        wh.Unrolled(objective, [wh.Segment([linear().state_dict()], 0.1, 5)])
    with pytest.raises(TypeError, match=r"wh\.Exact\(\) or wh\.EKFAC"):
        wh.Unrolled(objective, [segment], solver=wh.Nystrom())
    with pytest.raises(MemoryError, match="fewer segments"):
        wh.Unrolled(objective, [segment], solver=wh.Exact(), memory_budget=1000)
    small = wh.Unrolled(objective, [segment], memory_budget=1000)
    assert small.solver.name == "ekfac"
    x, y = data()
    target = nn.functional.one_hot(y).double()
    with pytest.raises(ValueError, match="not convex"):
        wh.Unrolled(model, [segment], (x, target), wh.Absolute())
    with pytest.raises(TypeError, match="a recorded training"):
        wh.Unrolled.from_run(model)
    large = wh.Segment([model.state_dict()], 100.0, 5)
    with pytest.raises(ValueError, match="diverge"):
        wh.Unrolled(objective, [large], form="power").attribute(wh.Loss())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="2 steps has no 3 segments"):
        wh.Unrolled.from_run(trained(model, optimizer, epochs=2))
