"""Disk only: the vLLM that is installed, and the one step that changes it."""
