"""
What terms do to terms
======================

Each row is the loss of a term, or an answer; each column all points of a term. Which term holds
which, and how much of it cancels?
"""

# %%
import whence as wh
from whence import pinn, plots

problem = pinn.zoo.load("lid_driven_cavity", "soft")
result = pinn.train(
    problem,
    pinn.MLP([2, 20, 20, 1], bounds=problem.domain.bounds, seed=0),
    points={"vorticity": 400, "walls": 120, "lid": 40},
    schedule=pinn.GaussNewton(30),
    progress=False,
)
influence = wh.Influence(result.objective)
table = wh.term_matrix(influence)
plots.term_matrix(table)

# %%
# The same for the solution, at 200 places: shares in influence beside shares in the loss.
places = problem.domain.sample(200, "sobol", seed=1)
plots.term_shares(wh.term_matrix(influence, [wh.Output(places, "psi")]))
