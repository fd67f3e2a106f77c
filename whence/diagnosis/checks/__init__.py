"""Checks of a run, one module each; ``diagnose`` runs all that the catalogue has.

A check is a class with a rank and ``findings(evidence)``. Ranks order findings that are equally
serious: what causes others comes first.
"""
