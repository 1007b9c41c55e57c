"""Pure: bytes and a Patch in, findings and new bytes out. It proposes; others judge the result."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import libcst as cst

from glmpatch.language import N_, _
from glmpatch.patch import Finding, Patch, PatchState, Place, RewriteState, Unrecognized
from glmpatch.source import edits, sha256
from glmpatch.source.form import Unreadable
from glmpatch.source.unreadable import told
from glmpatch.source.window import cut, whole

DEPTH = 100
"""Levels of nesting that are read; vLLM's model files have about 15."""
CHAIN = 1_000
"""Operands of an ``and``, or names with dots between: flat to Python, nested to LibCST."""
STUMBLED = N_("the rewrite stumbled")


@dataclass(frozen=True)
class Plan:
    """What is wrong with a source and what it would look like mended.

    ``after`` equals ``before`` unless a place is broken. ``problem`` tells why a source cannot be
    read at all (and ``line`` where); its findings are all unrecognized then.
    """

    before: bytes
    after: bytes
    findings: tuple[Finding, ...]
    problem: str = ""
    line: int | None = None

    @property
    def state(self) -> PatchState:
        """Needed, fixed or drifted: what the rewrites say of their places, and no more."""
        states = {finding.state for finding in self.findings}
        if RewriteState.UNRECOGNIZED in states:
            return PatchState.DRIFTED
        return PatchState.NEEDED if RewriteState.BROKEN in states else PatchState.FIXED

    @property
    def broken(self) -> tuple[str, ...]:
        """Ids of the rewrites that find their defect."""
        return broken(self.findings)


def broken(findings: Collection[Finding]) -> tuple[str, ...]:
    """Ids of the rewrites that find their defect."""
    return tuple(dict.fromkeys(f.rewrite for f in findings if f.state is RewriteState.BROKEN))


def make_plan(
    patch: Patch,
    data: bytes,
    version: str | None = None,
    only: Collection[str] | None = None,
    right: Collection[str] = (),
) -> Plan:
    """Find the defects in a source and mend them.

    Args:
        patch: the patch whose rewrites to run, in order.
        data: the file's bytes.
        version: the release, which selects the rewrites; all of them for None.
        only: ids of the rewrites to make; None for all. The others are looked for, not made.
        right: sha256 of results that are known, and need not be read anew.
    """
    rewrites = patch.rewrites_in(version)

    def is_right(result: bytes) -> bool:
        return bool(right) and sha256(result) in right

    narrowed = replace(patch, rewrites=rewrites)
    window = cut(data, patch.within) if patch.within else whole(data)
    plan = _plan(
        narrowed, window.source, only, lambda after: is_right(window.above + after + window.below)
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
        return Plan(data, data, lost, told(error.reason), error.line)
    places, unknown = _find_all(module, patch)
    findings = _findings(module, patch, places, unknown)
    plan = Plan(data, data, findings)
    if plan.state is not PatchState.NEEDED:
        return plan
    made = [r.id for r in patch.rewrites if only is None or r.id in only]
    changes = {k: v for r in made for place in places[r] for k, v in place.edits.items()}
    try:
        after = edits.apply_edits(module, changes).bytes
        if is_right(after):
            return Plan(data, after, findings)
        # Read anew, each rewrite that was made must find its own result fixed.
        again, gone = _find_all(_parse(after), patch)
    except (edits.NoPlace, Unreadable) as error:
        again, gone = {}, dict.fromkeys(made, Unrecognized(told(str(error))))
    unknown = {
        rewrite: Unrecognized(
            _("mended, this place is not found again: {reason}", reason=gone[rewrite].reason)
            if rewrite in gone
            else _("mended, this code still has the defect"),
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
        printed = edits.printed(module).encode(module.encoding)
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error
    except UnicodeError as error:  # a codec that does not give back all that it takes, as idna
        raise Unreadable(f"it cannot be written in its own encoding: {error}") from error
    if printed != data:
        pairs = zip(printed, data, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(printed))
        line = data[:same].count(b"\n") + 1
        raise Unreadable("a form feed or lone carriage return, which would not survive", line)
    return module


def _parse(data: bytes) -> cst.Module:
    _check_depth(data)
    try:
        return cst.parse_module(data)
    except cst.ParserSyntaxError as error:
        raise Unreadable(f"syntax error: {error.message}", error.raw_line) from error
    except UnicodeDecodeError as error:
        raise Unreadable(f"not {error.encoding}: {error.reason}") from error
    except UnicodeError as error:
        raise Unreadable(f"not in its encoding: {error}") from error
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error


def _check_depth(data: bytes) -> None:
    """LibCST's parser overflows the stack of the process on deeply nested code, so Python, which
    only raises an error, has to go first."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an invalid escape sequence
            level: list[ast.AST] = [ast.parse(data)]
    except SyntaxError as error:
        raise Unreadable(f"syntax error: {error.msg}", error.lineno or 1) from error
    except (LookupError, ValueError) as error:
        raise Unreadable(f"not a Python source: {error}", 1) from error
    except (RecursionError, MemoryError) as error:
        raise Unreadable("nested too deeply") from error
    line = 1
    for _level in range(DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
        line = getattr(level[0], "lineno", line)
        chained = next((node for node in level if _chain(node) > CHAIN), None)
        if chained is not None:
            raise Unreadable("nested too deeply", getattr(chained, "lineno", line))
    raise Unreadable("nested too deeply", line)


def _chain(node: ast.AST) -> int:
    if isinstance(node, ast.BoolOp):
        return len(node.values)
    name = node.name if isinstance(node, ast.alias) else getattr(node, "module", None)
    return name.count(".") if isinstance(name, str) else 0


def _find_all(
    module: cst.Module, patch: Patch
) -> tuple[dict[str, list[Place]], dict[str, Unrecognized]]:
    """By the id of the rewrite: the places that it accounts for, or why it does not find them."""
    places: dict[str, list[Place]] = {}
    lost: dict[str, Unrecognized] = {}
    for rewrite in patch.rewrites:
        try:
            found = list(patch.find(rewrite)(module))
        except Unrecognized as error:
            lost[rewrite.id] = error
            continue
        except RecursionError:
            lost[rewrite.id] = Unrecognized(_("nested too deeply"))
            continue
        except Exception as error:  # what it was not written for is not recognised, never a crash
            lost[rewrite.id] = Unrecognized(f"{_(STUMBLED)}: {type(error).__name__}: {error}")
            continue
        if not found or (rewrite.places and len(found) != rewrite.places):
            # A transformer that matches nothing must not pass for success.
            number, wanted = len(found), rewrite.places
            reason = (
                _("{number} places found, expected {wanted}", number=number, wanted=wanted)
                if wanted
                else _("{number} places found", number=number)
            )
            where = found[-1].node if found else None
            lost[rewrite.id] = Unrecognized(reason, where)
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
    lines = edits.line_numbers(
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
