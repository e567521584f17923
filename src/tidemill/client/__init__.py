"""Beside the house: what calls a service from outside. Imports `core` alone, runs in the caller's process."""
