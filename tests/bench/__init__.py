"""``python -m tests.bench``: glmpatch beside what people use instead, as ratios.

``measure`` runs commands in turn, one module a group says which, ``data`` keeps the figures in
``docs/benchmarks.json``, and ``page`` and ``plot`` draw ``docs/benchmarks.md`` from them.
"""
