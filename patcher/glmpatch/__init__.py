"""The machinery of glmpatch. What it must know of a model comes as data from a patch."""

__version__ = "0.2.0"
