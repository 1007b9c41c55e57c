"""A patch on a release that it is not for: at best unproven, and only where that is asked for."""

from __future__ import annotations

from dataclasses import replace

from glmpatch import catalogue
from glmpatch.language import _
from glmpatch.patch import Finding, PatchState, RewriteState
from glmpatch.site.examination import Examination, drifted
from glmpatch.site.target import Target
from glmpatch.site.unlike import as_released, unasked, with_reason
from glmpatch.site.vouched import by_proof
from glmpatch.source.unreadable import told


def outside(target: Target, found: Examination, any_version: bool) -> Examination:
    """A release that the patch is not for: at best unproven, and only where that is asked for."""
    table = catalogue.table(found.patch)
    assert found.data is not None
    receipt = found.receipt
    if receipt is not None and receipt.after == found.sha256 != receipt.before:
        known = any(row.mended == found.sha256 for row in table.rows)
        if known or receipt.proves(found.sha256, found.neighbours, target):
            return replace(found, state=PatchState.APPLIED, proven=not known)
    row = table.defect(found.sha256, target.version)
    if row is not None:
        listed = tuple(Finding(r, RewriteState(s), n) for r, s, n in row.findings)
        found = replace(found, row=row, findings=listed)
        if not any_version:
            return found
        return replace(found, state=PatchState.UNPROVEN, problem=_not_for(target))
    if not any_version:
        return replace(found, problem=_("not examined"))
    from glmpatch.source import form
    from glmpatch.source.plan import make_plan

    released = as_released(target, found.file, found.sha256)
    assert found.data is not None
    try:
        own = form.read(found.data)
    except form.Unreadable as error:
        return found if released else drifted(found, target, told(error.reason), error.line)
    plan = make_plan(found.patch, found.data)
    found = replace(found, plan=plan, findings=plan.findings)
    if released and plan.state is not PatchState.NEEDED:
        return replace(found, problem=_("as released, and without the defect"))
    if plan.state is PatchState.DRIFTED:
        return by_proof(target, with_reason(target, found, (), own))
    try:
        result = form.read(plan.after) if plan.after != plan.before else own
    except form.Unreadable as error:
        problem = _("mended, it is no Python: {reason}", reason=told(error.reason))
        return drifted(found, target, problem, error.line)
    unproven = replace(
        found,
        state=PatchState.UNPROVEN,
        problem=_not_for(target),
        unasked=unasked(target, found, (), result),
        unasked_now=unasked(target, found, (), own),
    )
    return by_proof(target, unproven)


def _not_for(target: Target) -> str:
    if target.version is None:
        return _("the patch is for some releases, and the version of this vLLM is unknown")
    return _("the patch is not for vLLM {version}", version=target.version)
