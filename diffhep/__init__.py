"""Differentiable high-energy physics: one gradient from collisions to the result."""

from ._version import __version__ as __version__
