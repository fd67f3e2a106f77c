"""
A run as one file for a colleague
=================================

``whence report RUN`` writes the explorer's page with its answers in it: one HTML file that opens
anywhere and asks nobody for anything. The same from Python.
"""

# %%
import tempfile
from pathlib import Path

from whence import cli, pinn

run = Path(tempfile.mkdtemp()) / "run"
problem = pinn.zoo.load("diffusion")
result = pinn.train(
    problem,
    pinn.MLP([2, 12, 12, 1], seed=0),
    points=200,
    schedule=pinn.GaussNewton(30),
    out=run,
    progress=False,
)
cli.main(["report", str(run)])
for page in run.glob("*.html"):
    print(f"{page.name}: {page.stat().st_size / 1e6:.1f} MB")

# %%
# The figures of ``whence plot RUN`` are made from the same folder; this is the first of them.
pinn.load_run(run).plot()
