"""Pure: bytes and a Patch in, findings and new bytes out. Touches no file."""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from patcher.patch import Patch, PatchState, RewriteState, Unrecognized, lazy
from patcher.window import cut

if TYPE_CHECKING:
    import libcst as cst

    from patcher import editing
    from patcher.patch import Place
else:
    cst = lazy("libcst")
    editing = lazy("patcher.editing")

DEPTH = 100
"""Levels of nesting that are read; vLLM's model files have about 15."""


@dataclass(frozen=True)
class Finding:
    """What one rewrite says of a source. ``line`` counts from 1; None where there is no place."""

    rewrite: str
    state: RewriteState
    line: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """What is wrong with a source and what it would look like mended.

    ``after`` equals ``before`` unless the state is needed. ``problem`` tells why a source cannot
    be judged at all (and ``line`` where); its findings are all unrecognized then.
    """

    before: bytes
    after: bytes
    findings: tuple[Finding, ...]
    problem: str = ""
    line: int | None = None

    @property
    def state(self) -> PatchState:
        """Needed, fixed or drifted: what the bytes alone say."""
        states = {finding.state for finding in self.findings}
        if RewriteState.UNRECOGNIZED in states:
            return PatchState.DRIFTED
        return PatchState.NEEDED if RewriteState.BROKEN in states else PatchState.FIXED

    @property
    def sha256(self) -> str:
        return sha256(self.before)

    @property
    def broken(self) -> tuple[str, ...]:
        """Ids of the rewrites that find their defect."""
        broken = (f.rewrite for f in self.findings if f.state is RewriteState.BROKEN)
        return tuple(dict.fromkeys(broken))


class Unreadable(Exception):
    """The bytes are no Python source that LibCST reproduces exactly."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.line = reason, line


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_plan(patch: Patch, data: bytes, only: Collection[str] | None = None) -> Plan:
    """Judge a source and mend it.

    Args:
        patch: the patch whose rewrites to run, in order.
        data: the file's bytes.
        only: ids of the rewrites to make; None for all. The others are judged, not made.
    """

    def is_right(data: bytes) -> bool:
        return patch.known.get(sha256(data)) is PatchState.FIXED

    if is_right(data):
        fixed = tuple(Finding(r.id, RewriteState.FIXED) for r in patch.rewrites)
        return Plan(data, data, fixed)
    if not patch.within:
        return _plan(patch, data, only, is_right)
    window = cut(data, patch.within)
    plan = _plan(
        patch, window.source, only, lambda after: is_right(window.above + after + window.below)
    )
    return replace(
        plan,
        before=data,
        after=window.above + plan.after + window.below,
        findings=tuple(replace(f, line=f.line and f.line + window.offset) for f in plan.findings),
        line=plan.line and plan.line + window.offset,
    )


def _plan(
    patch: Patch,
    data: bytes,
    only: Collection[str] | None,
    is_right: Callable[[bytes], bool],
) -> Plan:
    """The plan for a source; a result that ``is_right`` knows is not read anew."""
    try:
        module = parse(data)
    except Unreadable as error:
        lost = tuple(Finding(r.id, RewriteState.UNRECOGNIZED) for r in patch.rewrites)
        return Plan(data, data, lost, error.reason, error.line)
    places, unknown = _find_all(module, patch)
    findings = _findings(module, patch, places, unknown)
    plan = Plan(data, data, findings)
    if plan.state is not PatchState.NEEDED:
        return plan
    made = [r.id for r in patch.rewrites if only is None or r.id in only]
    edits = {k: v for r in made for place in places[r] for k, v in place.edits.items()}
    try:
        after = editing.apply_edits(module, edits).bytes
        if is_right(after):
            return Plan(data, after, findings)
        # Read anew, each rewrite that was made must find its own result fixed.
        again, gone = _find_all(_parse(after), patch)
    except (editing.NoPlace, Unreadable) as error:
        again, gone = {}, dict.fromkeys(made, Unrecognized(str(error)))
    unknown = {
        rewrite: Unrecognized(
            f"mended, this code is not what is known to be right: {gone[rewrite].reason}"
            if rewrite in gone
            else "mended, this code still has the defect",
            places[rewrite][0].node,
        )
        for rewrite in places
        if rewrite in gone or (rewrite in made and any(p.broken for p in again[rewrite]))
    }
    if unknown:
        known = {r: found for r, found in places.items() if r not in unknown}
        return Plan(data, data, _findings(module, patch, known, unknown))
    return Plan(data, after, findings)


def parse(data: bytes) -> cst.Module:
    """The module, or Unreadable when printing it would not give back the very same bytes."""
    module = _parse(data)
    try:
        printed = editing.printed(module).encode(module.encoding)
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error
    if printed != data:
        pairs = zip(printed, data, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(printed))
        line = data[:same].count(b"\n") + 1
        raise Unreadable("a form feed or lone carriage return, which would not survive", line)
    return module


def _parse(data: bytes) -> cst.Module:
    _check(data)
    try:
        return cst.parse_module(data)
    except cst.ParserSyntaxError as error:
        raise Unreadable(f"syntax error: {error.message}", error.raw_line) from error
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error


def _check(data: bytes) -> None:
    """Raise Unreadable for what Python itself refuses, and for what would kill LibCST.

    LibCST's parser overflows the stack of the process on deeply nested code, so Python, which
    only raises an error, has to go first.
    """
    if not data.strip():
        raise Unreadable("the file is empty", 1)
    if b"\0" in data:
        raise Unreadable("a NUL byte", data[: data.index(b"\0")].count(b"\n") + 1)
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        data.decode(encoding)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an invalid escape sequence
            level: list[ast.AST] = [ast.parse(data)]
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Unreadable(f"not {error.encoding}: {error.reason}", line) from error
    except SyntaxError as error:
        raise Unreadable(f"syntax error: {error.msg}", error.lineno or 1) from error
    except (LookupError, ValueError) as error:
        raise Unreadable(f"not a Python source: {error}", 1) from error
    except (RecursionError, MemoryError) as error:
        raise Unreadable("nested too deeply") from error
    line = 1
    for _ in range(DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
        line = getattr(level[0], "lineno", line)
    raise Unreadable("nested too deeply", line)


def _find_all(
    module: cst.Module, patch: Patch
) -> tuple[dict[str, list[Place]], dict[str, Unrecognized]]:
    """By the id of the rewrite: the places that it accounts for, or why it does not know them."""
    places: dict[str, list[Place]] = {}
    lost: dict[str, Unrecognized] = {}
    for rewrite in patch.rewrites:
        try:
            found = list(rewrite.find(module))
        except Unrecognized as error:
            lost[rewrite.id] = error
            continue
        except RecursionError:
            lost[rewrite.id] = Unrecognized("nested too deeply")
            continue
        if len(found) != rewrite.places:
            # A transformer that matches nothing must not pass for success.
            reason = f"{len(found)} places found, expected {rewrite.places}"
            lost[rewrite.id] = Unrecognized(reason)
            continue
        places[rewrite.id] = found
    return places, lost


def _findings(
    module: cst.Module,
    patch: Patch,
    places: dict[str, list[Place]],
    lost: dict[str, Unrecognized],
) -> tuple[Finding, ...]:
    nodes = [place.node for found in places.values() for place in found]
    lines = editing.line_numbers(
        module, [*nodes, *(error.node for error in lost.values() if error.node is not None)]
    )
    findings = []
    for rewrite in patch.rewrites:
        for place in places.get(rewrite.id, ()):
            state = RewriteState.BROKEN if place.broken else RewriteState.FIXED
            findings.append(Finding(rewrite.id, state, lines[place.node]))
        if rewrite.id in lost:
            error = lost[rewrite.id]
            line = lines[error.node] if error.node is not None else None
            findings.append(Finding(rewrite.id, RewriteState.UNRECOGNIZED, line, error.reason))
    return tuple(findings)
