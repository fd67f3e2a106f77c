"""
The spectrum of the tangent kernel
==================================

An eigenvalue of the tangent kernel is the rate at which a mode of the residual decays. A line that
falls steeply has modes that gradient descent never learns, which is why Gauss-Newton, which divides
by them, does so much better.
"""

# %%
from whence import pinn

problem = pinn.zoo.load("diffusion", "soft")


def trained(schedule):
    """Return a training that records the spectra of each term's kernel."""
    return pinn.train(
        problem,
        pinn.MLP([2, 20, 20, 1], bounds=problem.domain.bounds, seed=0),
        points={"pde": 200, "initial_u": 60, "dirichlet_u": 60},
        schedule=schedule,
        observers=[pinn.Spectra(every=100, points=60)],
        progress=False,
    )


result = trained(pinn.Adam(400))
print(f"Adam, 400 steps: relative L2 error {result.summary['relative_l2']:.1e}")
result.plot("spectra")

# %%
second_order = trained(pinn.GaussNewton(30))
print(f"Gauss-Newton, 30: relative L2 error {second_order.summary['relative_l2']:.1e}")
