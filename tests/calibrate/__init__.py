"""Calibration of the proof: how far the right file stays below the limits, and wrong ones above.

``python -m tests.calibrate`` asks, and writes ``docs/proof.json``; from it come ``docs/proof.md``
and its two plots.
"""
