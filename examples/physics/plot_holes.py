"""
A plate with holes
==================

Heat flows from a hot hole to a cold edge, past an insulated hole. Shapes are added and subtracted;
their boundaries keep names, on which conditions are set.
"""

# %%
import whence as wh
from whence import pinn, plots

xy = ("x", "y")
plate = pinn.Rectangle(xy, (0, 0), (2, 1))
hot = pinn.Disk(xy, (0.5, 0.5), 0.2, "hot")
insulated = pinn.Ellipse(
    xy, center=(1.3, 0.5), radii=(0.15, 0.3), rotation=20, name="insulated"
)
domain = plate - hot - insulated
print([part.name for part in domain.boundary], f"area {domain.measure:.3f}")

problem = pinn.Problem(
    name="plate",
    domain=domain,
    outputs=("T",),
    equations={"heat": lambda T_xx, T_yy: T_xx + T_yy},
    conditions=[
        pinn.Dirichlet(T=1.0, on="hot", name="hot"),
        pinn.Dirichlet(T=0.0, on="x_max", name="cold"),
        pinn.Neumann(T=0.0, on=("insulated", "x_min", "y_min", "y_max"), name="walls"),
    ],
)
result = pinn.train(
    problem,
    pinn.MLP([2, 24, 24, 1], bounds=domain.bounds, seed=0),
    points={"heat": 500, "hot": 60, "cold": 40, "walls": 160},
    weights={"hot": 10.0, "cold": 10.0},
    schedule=pinn.GaussNewton(50),
    progress=False,
)
result.plot()

# %%
# Which points does the temperature behind the insulated hole come from? A panel for each term:
# the hot and the cold edge hold it, and so do the walls that heat flows along.
influence = wh.Influence(result.objective, damping=1e-8)
row = influence.attribute(wh.Output([[1.7, 0.5]])).isel(target=0)
plots.influence_by_term(row, problem)
