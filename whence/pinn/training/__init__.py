"""Training a network on a problem, and the run folder that it leaves."""

from whence.pinn.training.automatic import AutomaticRecipe, automatic_recipe
from whence.pinn.training.configuration import Origin
from whence.pinn.training.integrity import FileState, check_run
from whence.pinn.training.load import load_network, load_points, load_run, load_weights
from whence.pinn.training.observers import Observer, ProgressBar, Stop
from whence.pinn.training.recipe import Recipe, features_recipe, growing_recipe
from whence.pinn.training.refinement import refine, refined
from whence.pinn.training.result import Result
from whence.pinn.training.run_folder import RunFolder
from whence.pinn.training.slabs import Slabs
from whence.pinn.training.spectra import Spectra
from whence.pinn.training.train import train
from whence.pinn.training.variant import Variant

__all__ = [
    "AutomaticRecipe",
    "FileState",
    "Observer",
    "Origin",
    "ProgressBar",
    "Recipe",
    "Result",
    "RunFolder",
    "Slabs",
    "Spectra",
    "Stop",
    "Variant",
    "automatic_recipe",
    "check_run",
    "features_recipe",
    "growing_recipe",
    "load_network",
    "load_points",
    "load_run",
    "load_weights",
    "refine",
    "refined",
    "train",
]
