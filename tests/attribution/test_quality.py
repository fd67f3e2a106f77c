import warnings

import oracles
import pytest
import torch
import xarray as xr

import whence as wh
from whence.attribution.quality import FarFromMinimum, quality
from whence.attribution.quantities import Output
from whence.refits import refit


def attributed(case, **options):
    given = {"damping": 1e-3, **options}
    return wh.Influence(case.objective, **given).attribute(
        Output(oracles.target_points(case))
    )


def settled(case):
    """The same case at a minimum."""
    case.objective.parameters.assign(
        refit(case.objective, steps=200, damping=1e-6).theta
    )
    return case


@pytest.fixture(scope="module")
def near():
    return settled(oracles.burgers_soft(n=30, widths=(2, 4, 1)))


@pytest.fixture(scope="module")
def far():
    return oracles.burgers_soft()


def test_far_from_a_minimum_is_warned_of_and_said(far):
    with pytest.warns(FarFromMinimum, match="Train further"):
        found = attributed(far)
    assert found.attrs["predicted_decrease"] > 0.5
    assert "far from a minimum" in str(found.quality())


def test_the_predicted_decrease_is_that_of_a_damped_step(far):
    matrix = oracles.gauss_newton(far)
    gradients, scales = oracles.loss_gradients(far)
    gradient = scales @ gradients
    largest = float(torch.linalg.eigvalsh(torch.as_tensor(matrix))[-1])
    loss = float(oracles.loss(far, far.theta))
    for damping, used in ((1e-2, 1e-2), (1e-9, 1e-6)):
        shifted = torch.as_tensor(matrix) + used * largest * torch.eye(len(matrix))
        step = torch.linalg.solve(shifted, torch.as_tensor(gradient))
        expected = 0.5 * float(torch.as_tensor(gradient) @ step) / loss
        with pytest.warns(FarFromMinimum):
            said = attributed(far, damping=damping).attrs
        assert said["predicted_decrease"] == pytest.approx(expected, rel=1e-6)


def test_near_a_minimum_nothing_speaks_against_it(near):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FarFromMinimum)
        found = attributed(near)
    assert found.attrs["predicted_decrease"] < 0.1
    assert found.quality().caveats == ()
    assert "Nothing speaks against it" in str(found.quality())
    assert "Solver exact, damping 1e-03" in str(found.quality())


@pytest.mark.parametrize(
    ("options", "caveat"),
    [
        ({"solver": wh.Arnoldi(1), "damping": 1e-8}, "full system is not solved"),
        (
            {"solver": wh.ConjugateGradient(preconditioner=None, max_iterations=1)},
            "max_iterations",
        ),
        ({"solver": wh.LiSSA(2)}, "raise iterations"),
    ],
)
def test_what_speaks_against_it(near, options, caveat):
    found = attributed(near, **options)
    assert any(caveat in said for said in found.quality().caveats)


@pytest.mark.parametrize(
    ("solver", "remedy", "other"),
    [
        (wh.Nystrom(2), "raise the rank or the damping", "sketch"),
        (wh.Sketched(4), "raise the dimension of the sketch or the damping", "rank or"),
        (wh.EKFAC(coupled=0), "raise the damping", "rank or"),
        (wh.DataInf(), "raise the damping", "rank or"),
    ],
    ids=["nystrom", "sketched", "ekfac", "datainf"],
)
def test_only_a_solver_with_a_rank_is_told_to_raise_it(near, solver, remedy, other):
    caveats = attributed(near, solver=solver, damping=1e-8).quality().caveats
    assert any(remedy in caveat for caveat in caveats)
    assert not any(other in caveat for caveat in caveats)


@pytest.mark.filterwarnings("ignore::whence.FarFromMinimum")
def test_negative_eigenvalues_are_said():
    case = oracles.burgers_soft(n=5, widths=(2, 4, 1))
    found = attributed(case, curvature="hessian", damping=1e-2)
    assert any("negative eigenvalues" in said for said in found.quality().caveats)


def test_it_survives_selection_and_the_disk(near, tmp_path):
    found = attributed(near)
    assert found.sel(term="pde").isel(target=0).quality() == found.quality()
    found.reset_index("term").to_netcdf(tmp_path / "a.nc")
    with xr.open_dataarray(tmp_path / "a.nc") as read:
        assert str(quality(read)) == str(found.quality())


def test_other_arrays_are_refused():
    with pytest.raises(ValueError, match="'solver'"):
        quality(xr.DataArray([1.0]))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"solver": "exakt"}, ValueError, "unknown solver"),
        ({"solver": wh.Exact}, TypeError, "wh.Exact()"),
        ({"solver": 3}, TypeError, "wh.Exact()"),
        ({"damping": "loo"}, TypeError, "damping=wh.LeaveOneOut(), got 'loo'"),
        (
            {"damping": wh.LeaveOneOut},
            TypeError,
            "damping=wh.LeaveOneOut(), got <class",
        ),
    ],
)
def test_wrong_options(near, options, error, said):
    with pytest.raises(error, match=said.replace("(", r"\(").replace(")", r"\)")):
        wh.Influence(near.objective, **options)
