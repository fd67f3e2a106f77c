"""Curvature operators and the solvers of damped systems with them."""
