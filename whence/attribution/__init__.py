"""Quantities of interest and the methods that attribute them to training points."""
