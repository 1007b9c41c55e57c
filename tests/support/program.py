"""A second judge of programs, which shares nothing with the form: code objects, compared.

What the compiler made of two sources is compared instruction by instruction, with neither positions
nor the docstrings that the form leaves out (of modules and functions). Two sources that are one
program here may still have different forms: the form keeps what compiles to nothing, such as the
docstring of a field.
"""

from __future__ import annotations

import bisect
import dis
import types
import warnings
from typing import Any

NOTHING = {"NOP", "EXTENDED_ARG", "CACHE", "RESUME"}
HAS_DOCSTRING = 0x4000000
"""Flag of code since Python 3.13."""


def program(source: bytes) -> Any:
    """Something that is equal for equal programs; None for what does not compile."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _code(compile(source, "<file>", "exec", dont_inherit=True))
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


def _code(code: types.CodeType) -> Any:
    steps = [each for each in dis.get_instructions(code) if each.opname not in NOTHING]
    at = _numbers(code, steps)
    found = [
        (step.opname, at(step.argval) if _jumps(step) else _value(step.argval)) for step in steps
    ]
    return (
        code.co_name,
        code.co_flags & ~HAS_DOCSTRING,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
        code.co_varnames[: code.co_argcount + code.co_kwonlyargcount],
        (code.co_freevars, code.co_cellvars),
        tuple(found[2:] if _documented(steps) and code.co_name == "<module>" else found),
        _handlers(code, at),
    )


def _numbers(code: types.CodeType, steps: list[dis.Instruction]) -> Any:
    """From an offset to the number of the first instruction there that does anything."""
    offsets = [step.offset for step in steps]
    return lambda offset: bisect.bisect_left(offsets, offset)


def _jumps(step: dis.Instruction) -> bool:
    return step.opcode in dis.hasjrel or step.opcode in dis.hasjabs


def _documented(steps: list[dis.Instruction]) -> bool:
    return (
        [step.opname for step in steps[:2]] == ["LOAD_CONST", "STORE_NAME"]
        and isinstance(steps[0].argval, str)
        and steps[1].argval == "__doc__"
    )


def _handlers(code: types.CodeType, at: Any) -> Any:
    parse = getattr(dis, "_parse_exception_table", lambda code: ())
    return tuple((at(e.start), at(e.end), at(e.target), e.depth, e.lasti) for e in parse(code))


def _value(value: object) -> Any:
    """A constant with its type, down to the signs of zeros."""
    if isinstance(value, types.CodeType):
        return _code(value)
    if isinstance(value, (tuple, frozenset)):
        each = [_value(one) for one in value]
        return (
            type(value).__name__,
            *(each if isinstance(value, tuple) else sorted(each, key=repr)),
        )
    return (type(value).__name__, repr(value))
