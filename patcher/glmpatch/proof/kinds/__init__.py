"""The kinds of proof. Each has one module here and its questions in the probe.

A kind's module has ``order`` (a specification in, what the probe is told of it out), ``judge``
(what the probe measured in, a Result out), ``heading`` (what was run and what was not, in words)
and ``lines`` (the results of one file in, lines for a terminal out).
"""
