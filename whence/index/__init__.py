"""Gradients of training points, projected and kept on disk: questions take milliseconds."""
