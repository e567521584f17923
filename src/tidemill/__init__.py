"""Tidemill: a trained model in, a metered public service out."""

__version__ = "0.1.0"
