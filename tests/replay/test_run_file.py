"""Recorded trainings in files: the same to the last bit, and what does not fit is refused."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from torch import nn

import whence as wh


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(14, 3, generator=generator), torch.arange(14) % 2


def network(hidden=nn.Tanh):
    return nn.Sequential(
        nn.Linear(3, 4),
        nn.BatchNorm1d(4),
        hidden(),
        nn.Dropout(0.3),
        nn.Linear(4, 2),
    )


def adam(model):
    groups = [
        {"params": [model[0].weight, model[1].weight], "weight_decay": 0.1},
        {"params": [model[4].weight, model[4].bias], "lr": 0.02},
    ]
    return torch.optim.Adam(groups, lr=0.05, eps=1e-3, amsgrad=True)


def sgd(model):
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(parameters, 0.1, momentum=0.9)


def recorded(make=adam, **options):
    torch.manual_seed(0)
    model = network()
    model[0].bias.requires_grad_(False)
    optimizer = make(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.7)
    loss = nn.CrossEntropyLoss()
    return wh.train(
        model,
        data(),
        loss,
        optimizer,
        epochs=2,
        batch_size=5,
        scheduler=scheduler,
        **options,
    )


def fresh():
    torch.manual_seed(9)
    model = network()
    model[0].bias.requires_grad_(False)
    return model


def loaded(path, model=None, samples=None, loss=None):
    return wh.TrainingRun.load(
        path,
        fresh() if model is None else model,
        data() if samples is None else samples,
        nn.CrossEntropyLoss() if loss is None else loss,
    )


@pytest.mark.parametrize("make", [adam, sgd])
def test_a_replay_from_a_file_is_the_same_to_the_last_bit(tmp_path, make):
    run = recorded(make, max_norm=1.0)
    run.model.eval()
    model = fresh()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    again = loaded(run.save(tmp_path / "kept" / "run.safetensors"), model)

    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])
    assert not any(module.training for module in again.model.modules())
    quantity = wh.Loss(data())
    first = wh.Replay(run).attribute(quantity)
    second = wh.Replay(again).attribute(quantity)
    assert first.values.tobytes() == second.values.tobytes()

    weights = torch.linspace(0, 2, 14)
    trained, retrained = (r.retrained(weights).state_dict() for r in (run, again))
    for name, value in trained.items():
        assert torch.equal(value, retrained[name])


def test_steps_keep_their_options_and_share_those_that_are_the_same(tmp_path):
    run = recorded()
    again = loaded(run.save(tmp_path / "run.safetensors"))
    for then, now in zip(run.record.steps, again.record.steps, strict=True):
        assert torch.equal(then.places, now.places)
        assert then.seed == now.seed
        assert list(now.options) == list(then.options)
    first, second = again.record.steps[:2]
    assert first.options is second.options


def test_other_methods_take_what_was_read(tmp_path):
    run = recorded()
    again = loaded(run.save(tmp_path / "run.safetensors"))
    for of_run, of_file in zip(
        run.checkpoints([2, 6]), again.checkpoints([2, 6]), strict=True
    ):
        for name, value in of_run.items():
            assert torch.equal(value, of_file[name])
    quantity = wh.Loss(data())
    effects = wh.GradDot(run.objective).attribute(quantity)
    assert torch.equal(
        torch.as_tensor(effects.values),
        torch.as_tensor(wh.GradDot(again.objective).attribute(quantity).values),
    )


def test_what_is_of_another_training_is_refused(tmp_path):
    path = recorded().save(tmp_path / "run.safetensors")
    x, y = data()
    with pytest.raises(ValueError, match="data are not those"):
        loaded(path, samples=(x.flip(0), y.flip(0)))
    with pytest.raises(ValueError, match=r"'0.weight' was \(4, 3\).*\(5, 3\)"):
        loaded(path, nn.Sequential(nn.Linear(3, 5)))
    with pytest.raises(ValueError, match="not there"):
        loaded(path, nn.Sequential(*fresh(), nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r"of torch.float32, here .* torch.float64"):
        loaded(path, fresh().double())
    with pytest.raises(ValueError, match="model gives other outputs"):
        loaded(path, network(nn.ReLU))
    with pytest.raises(ValueError, match="loss gives other values"):
        loaded(path, loss=nn.CrossEntropyLoss(label_smoothing=0.1))


def test_files_that_are_damaged_or_something_else_are_refused_by_name(tmp_path):
    path = recorded().save(tmp_path / "run.safetensors")
    content = path.read_bytes()

    flipped = bytearray(content)
    flipped[-3] ^= 1
    path.write_bytes(bytes(flipped))
    with pytest.raises(ValueError, match=r"run.safetensors is damaged"):
        loaded(path)
    path.write_bytes(content[:-20])
    with pytest.raises(ValueError, match=r"run.safetensors is damaged"):
        loaded(path)
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"no file of run.save"):
        loaded(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"run.safetensors is damaged"):
        loaded(path)
    with pytest.raises(FileNotFoundError, match=r"missing.safetensors"):
        loaded(tmp_path / "missing.safetensors")


def test_a_file_that_is_there_is_kept(tmp_path):
    run = recorded()
    path = run.save(tmp_path / "run.safetensors")
    content = path.read_bytes()
    with pytest.raises(FileExistsError, match="is there already"):
        run.save(path)
    assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.safetensors"]
    with pytest.raises(ValueError, match=r"ends in .safetensors"):
        run.save(tmp_path / "run.pt")


def test_an_option_that_is_a_tensor_is_named():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1))
    run = wh.train(model, data(), nn.CrossEntropyLoss(), optimizer, epochs=1)
    with pytest.raises(ValueError, match="'lr'"):
        run.save("never.safetensors")


class Steeper(torch.optim.SGD):
    """An optimizer of one's own."""


def test_an_optimizer_of_ones_own_is_asked_for(tmp_path, monkeypatch):
    from whence.replay.updates import UPDATES, sgd

    monkeypatch.setitem(UPDATES, Steeper, sgd)
    model = nn.Linear(3, 2)
    optimizer = Steeper(model.parameters(), lr=0.1)
    run = wh.train(model, data(), nn.CrossEntropyLoss(), optimizer, epochs=1)
    path = run.save(tmp_path / "own.safetensors")
    assert type(loaded(path, nn.Linear(3, 2)).record.optimizer) is Steeper
    monkeypatch.delitem(UPDATES, Steeper)
    with pytest.raises(ValueError, match=r"test_run_file.Steeper"):
        loaded(path, nn.Linear(3, 2))
