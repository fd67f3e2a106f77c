"""
Hard and soft constraints
=========================

Conditions can be terms of the loss, or be met exactly by an ansatz. The same diffusion both ways: the
error, and where the answer at one place comes from.
"""

# %%
import whence as wh
from whence import pinn, plots

TARGET = wh.Output([[0.3, 0.6]])
SCHEDULE = pinn.GaussNewton(60)

hard = pinn.zoo.load("diffusion", "hard")
by_ansatz = pinn.train(
    hard,
    pinn.MLP([2, 16, 16, 1], bounds=hard.domain.bounds, seed=0),
    points=300,
    schedule=SCHEDULE,
    progress=False,
)

soft = pinn.zoo.load("diffusion", "soft")
by_terms = pinn.train(
    soft,
    pinn.MLP([2, 16, 16, 1], bounds=soft.domain.bounds, seed=0),
    points={"pde": 220, "initial_u": 40, "dirichlet_u": 40},
    schedule=SCHEDULE,
    progress=False,
)
for name, result in {"hard": by_ansatz, "soft": by_terms}.items():
    print(f"{name}: relative L2 error {result.summary['relative_l2']:.1e}")

# %%
# With soft conditions, part of the answer comes from the points that hold the conditions.
row = wh.Influence(by_terms.objective).attribute(TARGET).isel(target=0)
shares = abs(row).groupby("term").sum() / abs(row).sum()
for term, share in zip(shares["term"].values, shares.values, strict=True):
    print(f"{term:12s} {100 * share:3.0f} % of the absolute influence")

plots.influence_map(row, soft)

# %%
# With hard ones, all of it comes from the equation: what the ansatz meets needs no points.
row = wh.Influence(by_ansatz.objective).attribute(TARGET).isel(target=0)
plots.influence_map(row, hard)
