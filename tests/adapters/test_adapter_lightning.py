"""A training by Lightning, recorded: states, rates and order as they were, and what follows."""

import json
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import whence as wh

lightning = pytest.importorskip("lightning")

from whence.adapters.lightning import RecordTraining, read_record  # noqa: E402

N, D, CLASSES = 12, 3, 2
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, D, generator=GENERATOR)
Y = torch.randint(0, CLASSES, (N,), generator=GENERATOR)
DATA = TensorDataset(X, Y, torch.arange(N))


class Module(lightning.LightningModule):
    """Logistic regression that remembers what it saw and which states it had."""

    def __init__(self, decay=0.0, groups=False, optimizer=torch.optim.SGD):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(D, 4), nn.Tanh(), nn.Linear(4, CLASSES))
        self.decay, self.groups, self.kind = decay, groups, optimizer
        self.seen, self.ends = [], []

    def training_step(self, batch, _):
        x, y, places = batch
        self.seen.append(places.tolist())
        return nn.functional.cross_entropy(self.net(x), y)

    def on_train_epoch_end(self):
        state = {n: t.detach().clone() for n, t in self.net.state_dict().items()}
        self.ends.append(state)

    def configure_optimizers(self):
        groups = [{"params": self.net.parameters()}]
        if self.groups:
            groups = [
                {"params": self.net[0].parameters(), "lr": 0.5},
                {"params": self.net[2].parameters(), "lr": 0.1},
            ]
        optimizer = self.kind(groups, lr=0.4, weight_decay=self.decay)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        return [optimizer], [schedule]


def fit(module, record, epochs=3, loader=None, **options):
    loader = loader or DataLoader(DATA, 5, shuffle=True)
    checkpoint = options.pop("ckpt_path", None)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        callbacks=[record],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader, ckpt_path=checkpoint)
    return trainer


@pytest.fixture(name="trained", scope="module")
def _trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "record"
    module, record = Module(decay=0.01), RecordTraining(folder, model="net")
    loader = DataLoader(DATA, 5, shuffle=True)
    fit(module, record, loader=loader)
    return module, record, loader


def test_states_and_rates_are_those_of_the_training(trained):
    module, record, _ = trained
    found = read_record(record.record.folder)
    assert [state.step for state in found.states] == [3, 6, 9]
    assert [state.epoch for state in found.states] == [0, 1, 2]
    # The schedule halves the rate after an epoch: these are the rates that were used in it.
    assert found.learning_rates() == pytest.approx([0.4, 0.2, 0.1])
    for file, end in zip(found.checkpoints, module.ends, strict=True):
        from safetensors.torch import load_file

        state = load_file(file)
        assert all(torch.equal(state[name], end[name]) for name in end)
    assert set(found.groups[0]) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_the_order_is_that_in_which_samples_were_seen(trained):
    module, record, loader = trained
    found = read_record(record.record.folder)
    seen = []
    for epoch in range(3):
        seen += [batch.tolist() for batch in found.batches(epoch)]
    assert seen == module.seen
    assert seen[:3] != seen[3:6]  # it shuffles
    assert type(loader.batch_sampler.sampler).__name__ == "RandomSampler"
    with pytest.raises(ValueError, match="from 0 to 2"):
        found.batches(3)


def test_tracin_of_the_record_is_the_sum_by_hand(trained):
    module, record, _ = trained
    objective = record.objective(nn.CrossEntropyLoss(), (X, Y))
    assert objective.weight_decay == 0.01
    values = record.tracin(objective).attribute(wh.Loss(X[:2], Y[:2])).values

    expected = 0
    for rate, state in zip([0.4, 0.2, 0.1], module.ends, strict=True):
        net = Module().net
        net.load_state_dict(state)
        rows = []
        for x, y in zip(X, Y, strict=True):
            loss = nn.functional.cross_entropy(net(x[None]), y[None])
            parts = torch.autograd.grad(loss, list(net.parameters()))
            rows.append(torch.cat([p.reshape(-1) for p in parts]))
        rows = torch.stack(rows)
        expected = expected + rate * (rows[:2] @ rows.T) / N
    assert np.allclose(values, expected.numpy(), rtol=1e-4, atol=1e-7)

    # What is read back says the same.
    again = read_record(record.record.folder).tracin(objective)
    assert np.array_equal(again.attribute(wh.Loss(X[:2], Y[:2])).values, values)


def test_data_of_the_loader_are_read_in_order(tmp_path):
    class Plain(Module):
        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

    module, record = Plain(), RecordTraining(tmp_path / "r")
    fit(module, record, 1, DataLoader(TensorDataset(X, Y), 5, shuffle=True))
    objective = record.objective(nn.CrossEntropyLoss())
    assert np.array_equal(objective.terms["data"].points.labels(), Y.numpy())
    assert record.tracin(objective).attribute(wh.Loss(X[:2], Y[:2])).shape == (2, N)


def test_groups_of_parameters_with_rates_of_their_own(tmp_path):
    module, record = Module(groups=True), RecordTraining(tmp_path / "r", model="net")
    fit(module, record, 2)
    loss = nn.CrossEntropyLoss()
    with pytest.raises(ValueError, match="parameters of one group"):
        record.tracin(record.objective(loss, (X, Y)))
    last = record.objective(loss, (X, Y), parameters="2.*")
    assert record.record.learning_rates(last) == pytest.approx([0.1, 0.05])


def test_states_by_steps(tmp_path):
    record = RecordTraining(tmp_path / "r", every_n_steps=4, model="net")
    fit(Module(), record, 3)
    assert [state.step for state in record.record.states] == [4, 8]


def test_a_training_that_is_gone_on_with_goes_on_with_its_record(tmp_path):
    first = RecordTraining(tmp_path / "r", model="net")
    trainer = fit(Module(), first, 2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = RecordTraining(tmp_path / "r", model="net")
    fit(
        Module(),
        again,
        4,
        ckpt_path=tmp_path / "last.ckpt",
    )
    found = read_record(tmp_path / "r")
    assert [state.step for state in found.states] == [3, 6, 9, 12]
    assert len(found.order) == 4


# --- bad input ---------------------------------------------------------------------------------


def test_bad_input_is_an_error_that_says_what_to_do(tmp_path):
    record = RecordTraining(tmp_path / "r", model="net")
    loss = nn.CrossEntropyLoss()
    with pytest.raises(RuntimeError, match=r"trainer\.fit comes first"):
        record.objective(loss)
    with pytest.raises(ValueError, match="every_n_epochs"):
        RecordTraining(tmp_path, every_n_epochs=0)
    with pytest.raises(ValueError, match="no module 'nett'"):
        fit(Module(), RecordTraining(tmp_path / "x", model="nett"), 1)
    fit(Module(decay=0.1, optimizer=torch.optim.AdamW), record, 1)
    with pytest.raises(ValueError, match="AdamW decays weights apart"):
        record.objective(loss, (X, Y))
    assert record.objective(loss, (X, Y), weight_decay=0.0).weight_decay == 0
    with pytest.raises(FileExistsError, match="give another folder"):
        fit(Module(), RecordTraining(tmp_path / "r", model="net"), 1)


def test_a_damaged_record_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no record"):
        read_record(tmp_path)
    fit(Module(), RecordTraining(tmp_path / "r", model="net"), 1)
    (tmp_path / "r" / "step-000003.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="lacks step-000003"):
        read_record(tmp_path / "r")
    file = tmp_path / "r" / "record.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 9}))
    with pytest.raises(ValueError, match="format 9"):
        read_record(tmp_path / "r")
