"""Objectives of models that other libraries trained; a module by library."""
