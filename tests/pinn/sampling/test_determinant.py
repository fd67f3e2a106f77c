"""Greedy selection by determinant, against determinants and leverages themselves."""

import oracles
import pytest
import torch

from whence import pinn
from whence.jacobian import Jacobian


def embeddings(number=30, q=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(number, q, generator=generator, dtype=torch.float64)
    return table * torch.linspace(0.2, 2.0, number, dtype=torch.float64)[:, None]


def greedy(places, n, ridge):
    """Take what adds most to log det(ρI + G_S), by determinants of all sets with one more."""
    chosen = []
    rho = ridge * float(places.square().sum(1).max())
    for _ in range(n):
        gains = []
        for j in range(len(places)):
            rows = places[[*chosen, j]]
            gram = rows @ rows.T + rho * torch.eye(len(rows), dtype=torch.float64)
            gains.append(-torch.inf if j in chosen else float(torch.logdet(gram)))
        chosen.append(gains.index(max(gains)))
    return chosen


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ridge", [1e-3, 0.1, 5.0])
def test_it_is_the_greedy_determinant(ridge, seed):
    places = embeddings(seed=seed)
    # More are taken than there are dimensions.
    found = pinn.Determinant(ridge).select(places, 9, seed=0).tolist()
    assert found == greedy(places, 9, ridge)


def test_of_near_duplicates_one_is_taken():
    places = embeddings(8, 20, seed=1)
    places = places / places.norm(dim=1, keepdim=True)
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(8, 5, 20, generator=generator, dtype=torch.float64)
    copies = (3 * places[:, None] + 1e-3 * noise).flatten(0, 1)  # five of each of eight
    rows = pinn.Determinant().select(copies, 8, seed=0)
    assert sorted((rows // 5).tolist()) == list(range(8))
    # The highest scores alone have several of one.
    best = pinn.TopK().select(copies.square().sum(1), 8, seed=0)
    assert len(set((best // 5).tolist())) < 8


def test_a_large_ridge_takes_the_highest_scores_and_all_can_be_taken():
    places = embeddings()
    rows = pinn.Determinant(1e9).select(places, 7, seed=0)
    best = pinn.TopK().select(places.square().sum(1), 7, seed=0)
    assert torch.equal(rows, best)
    everything = pinn.Determinant().select(places, 30, seed=0)
    assert sorted(everything.tolist()) == list(range(30))
    zeros = pinn.Determinant().select(torch.zeros(4, 2), 4, seed=0)
    assert zeros.tolist() == [0, 1, 2, 3]


def problem(m=1):
    def pde(u_x, u_xx, x):
        return (u_xx - x,) if m == 1 else (u_xx - x, u_x)

    return pinn.Problem(
        domain=pinn.Interval("x", 0, 1),
        outputs=("u",),
        equations={"pde": pde},
        conditions=[pinn.Dirichlet(u=0.0, on="x")],
    )


def objective(m=1, widths=(5,), n=30):
    made = problem(m)
    network = pinn.MLP([1, *widths, 1], seed=0)
    return made.objective(network, made.sample({"pde": n, "dirichlet_u": 2}, seed=0))


@pytest.mark.parametrize(
    ("widths", "n"), [((5,), 30), ((12, 12), 6)], ids=["tall", "wide"]
)
@pytest.mark.parametrize("m", [1, 2])
def test_leverages_are_squared_lengths_of_embeddings(m, widths, n):
    case = objective(m, widths, n)
    pool = {
        "pde": case.draw("pde", 11, seed=3),
        "dirichlet_u": case.draw("dirichlet_u", 2, 0),
    }
    score = pinn.LeverageScore(damping=1e-3)
    values = score.score(case, pool)
    embedded = score.embedding(case, pool)
    oracles.close(embedded.square().sum(1), values, 1e-12)

    J = Jacobian(case, scaled=True).dense()
    damping = 1e-3 * float(torch.linalg.eigvalsh(J.T @ J)[-1])
    inverse = torch.linalg.inv(J.T @ J + damping * torch.eye(J.shape[1]).double())
    at_pool = case.with_points({"pde": pool["pde"]}).with_terms([case.term("pde")])
    term = case.with_points(pool).term("pde")
    rows = (
        Jacobian(case.with_terms([term])).dense() * (2 * case.term("pde").scale) ** 0.5
    )
    assert at_pool.n_points
    by_point = rows.view(11, m, -1)
    expected = torch.einsum("imp,pq,jmq->ij", by_point, inverse, by_point)
    oracles.close(embedded[:11] @ embedded[:11].T, expected, 1e-8)


def test_what_is_left_is_the_leverage_after_the_chosen_have_joined():
    case = objective()
    pool = case.draw("pde", 25, seed=3)
    embedded = pinn.LeverageScore(damping=1e-4).embedding(case, {"pde": pool})
    # ρ = 1, as a share of the highest score.
    ridge = 1 / float(embedded.square().sum(1).max())
    found = pinn.Determinant(ridge).select(embedded, 6, seed=0).tolist()

    J = Jacobian(case, scaled=True).dense()
    curvature = J.T @ J
    damping = 1e-4 * float(torch.linalg.eigvalsh(curvature)[-1])
    curvature += damping * torch.eye(J.shape[1]).double()
    term = case.with_points({"pde": pool}).term("pde")
    rows = (
        Jacobian(case.with_terms([term])).dense() * (2 * case.term("pde").scale) ** 0.5
    )
    chosen = []
    for _ in range(6):
        leverages = (rows @ torch.linalg.inv(curvature) * rows).sum(1)
        leverages[chosen] = -1
        best = int(leverages.argmax())
        chosen.append(best)
        curvature = curvature + torch.outer(rows[best], rows[best])
    assert found == chosen


def test_a_round_of_resampling_takes_unlike_points():
    case = objective()
    score = pinn.LeverageScore(damping=1e-4)
    options = {"n": 6, "candidates": 200}
    apart = pinn.Resample(score, pinn.Determinant(), **options)
    together = pinn.Resample(score, pinn.TopK(), **options)
    gaps = []
    for resample in (apart, together):
        new = resample.update_points(case, 1, 0)["pde"][30:, 0].sort().values
        gaps.append(float(new.diff().min()))
    assert gaps[0] > 3 * gaps[1]


def test_errors():
    with pytest.raises(ValueError, match="ridge"):
        pinn.Determinant(0.0)
    with pytest.raises(ValueError, match="embedding"):
        pinn.Determinant().select(torch.ones(3), 2, seed=0)
    with pytest.raises(TypeError, match="embeddings"):
        pinn.Resample(pinn.ResidualScore(), pinn.Determinant())
