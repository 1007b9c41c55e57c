"""Every release of vLLM on the registry, and what each patch means for it.

``table.json`` says it, with the lines of the sources from which one can tell: found by reading
them, not by glmpatch. ``python -m tests.matrix`` reads the releases anew, holds the table against
their sources and glmpatch against the table.
"""
