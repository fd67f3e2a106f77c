"""EKFAC with layers on workers: what one process makes of it."""

import os
import signal

import pytest
import torch
from torch import nn

import whence as wh
from whence.curvature.sharded import ShardedEKFAC, factor_size, shared_out


def model():
    torch.manual_seed(0)
    layers = [
        nn.Linear(6, 20),
        nn.Tanh(),
        nn.Linear(20, 12),
        nn.Tanh(),
        nn.LayerNorm(12),
    ]
    return nn.Sequential(*layers, nn.Linear(12, 3)).double()


X = torch.rand(50, 6, generator=torch.Generator().manual_seed(1)).double()
Y = torch.arange(50) % 3
LOSS = wh.Loss((X[:4], Y[:4]))


def influence(solver):
    return wh.Influence(model(), (X, Y), wh.CrossEntropy(), solver=solver, damping=1e-3)


@pytest.mark.parametrize(("limit", "samples"), [(1, None), (2000, None), (2000, 2)])
def test_it_is_what_one_process_makes(limit, samples, client):
    ekfac = wh.EKFAC(block_limit=limit, coupled=0, mc_samples=samples)
    expected = influence(ekfac).attribute(LOSS)
    found = influence(ShardedEKFAC(client, ekfac)).attribute(LOSS)
    assert torch.equal(*(torch.as_tensor(each.values) for each in (found, expected)))
    assert found.attrs["solver"] == "ekfac"
    same = ("damping", "blocks", "full_blocks", "largest_eigenvalue", "solver_residual")
    assert [found.attrs[name] for name in same] == [
        expected.attrs[name] for name in same
    ]


def test_other_workers_make_the_layers_of_one_that_died(client):
    expected = influence(wh.EKFAC(coupled=0)).attribute(LOSS).values
    sharded = influence(ShardedEKFAC(client))
    sharded.state()
    killed = client.submit(os.getpid, pure=False).result()
    os.kill(killed, signal.SIGKILL)
    assert torch.equal(
        *map(torch.as_tensor, (sharded.attribute(LOSS).values, expected))
    )


def test_beside_other_work_of_workers(client, tmp_path):
    x = torch.rand(3000, 6, generator=torch.Generator().manual_seed(2)).double()
    data = (x, torch.arange(3000) % 3)
    method = wh.Influence(
        model(), data, wh.CrossEntropy(), solver=ShardedEKFAC(client), damping=1e-3
    )
    expected = method.attribute(LOSS).values
    found = method.attribute(LOSS, out=tmp_path / "a.zarr", client=client)
    assert (found.values == expected).all()
    with pytest.raises(ValueError, match="leave client= away"):
        method.self_influence(client=client)


def test_factors_are_shared_out_evenly():
    operator = wh.GaussNewtonMatrix(influence("auto").objective)
    from whence.curvature.layer_rows import layer_matrices

    layers = layer_matrices(operator.root())
    shards = shared_out(layers, 2)
    names = sorted(layer.names for layers in shards for layer in layers)
    assert names == sorted(layer.names for layer in layers)
    loads = [sum(map(factor_size, layers)) for layers in shards]
    assert max(loads) <= sum(loads) - min(loads)
    assert max(loads) - min(loads) <= max(map(factor_size, layers))
    assert len(shared_out(layers, 100)) == len(layers)


def test_what_it_cannot_do(client):
    with pytest.raises(TypeError, match=r"must be a dask\.distributed\.Client"):
        ShardedEKFAC("tcp://127.0.0.1:1")
    hessian = wh.Influence(
        model(),
        (X, Y),
        wh.CrossEntropy(),
        solver=ShardedEKFAC(client),
        curvature="hessian",
    )
    with pytest.raises(ValueError, match="EKFAC"):
        hessian.attribute(LOSS)
    singular = wh.Influence(
        model(),
        (X[:1], Y[:1]),
        wh.CrossEntropy(),
        solver=ShardedEKFAC(client),
        damping=0.0,
    )
    with pytest.raises(ValueError, match="singular"):
        singular.attribute(LOSS)
