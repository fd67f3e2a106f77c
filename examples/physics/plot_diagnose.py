"""
A network that is wrong, found and mended
=========================================

The equation of this diffusion is wrong. Its loss is small and its solution smooth: nothing in the
training shows it. With the known solution to compare with, the diagnosis names the term, what is
wrong with it, and what to do.
"""

# %%
from whence import pinn

wrong = pinn.zoo.load("diffusion", "soft", variant="broken")


def trained(problem):
    """Return what a short training comes to."""
    return pinn.train(
        problem,
        pinn.MLP([2, 20, 20, 1], seed=0),
        points={"pde": 300, "initial_u": 40, "dirichlet_u": 40},
        schedule=pinn.GaussNewton(60),
        progress=False,
    )


result = trained(wrong)
print(f"loss {result.summary['loss']:.1e}, error {result.summary['relative_l2']:.2f}")

# %%
# What looks wrong, where, and what to try next:
diagnosis = pinn.diagnose(result)
print(diagnosis.text())

# %%
# The figure shows each term beside its scale, and where it is not met.
diagnosis.plot()

# %%
# With the right equation:
mended = trained(pinn.zoo.load("diffusion", "soft"))
print(f"error {mended.summary['relative_l2']:.1e}")
print(pinn.diagnose(mended).text())
