"""Solvers that give weights and activations fewer values."""
