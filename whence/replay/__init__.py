"""Trainings that can be replayed: what they did, step by step, and the derivative through it."""
