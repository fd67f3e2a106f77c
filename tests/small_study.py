"""A study small enough to train in a test."""

TEXT = """
[grid]
problem = ["diffusion", "wave"]
seed = [0, 1]

[methods.influence]
score = "influence"

[methods.random]
score = "random"

[train]
schedule = ["adam:60"]
points = ["pde=30"]
resample.every = 20
resample.n = 2
compile = "no"
layers = [2, 8, 1]
"""
