"""Solvers that leave weights out."""
