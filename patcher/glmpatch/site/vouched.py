"""What vouches for a file beside the table of known files: receipts of ours, and of a wheel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from glmpatch.patch import PatchState
from glmpatch.site import wheel_receipt
from glmpatch.site.examination import Examination
from glmpatch.site.target import Target


def by_proof(target: Target, found: Examination) -> Examination:
    """A receipt of a full proof vouches for a file that nothing else vouches for."""
    receipt = found.receipt
    if found.state not in (PatchState.UNPROVEN, PatchState.DRIFTED) or receipt is None:
        return ours(target, found)
    if found.unasked_now or not receipt.proves(found.sha256, found.neighbours, target):
        return found
    state = PatchState.FIXED if receipt.before == receipt.after else PatchState.APPLIED
    return replace(found, state=state, proven=True, problem="", line=None, differs=())


def ours(target: Target, found: Examination) -> Examination:
    """Fixed, and by us: applied."""
    receipt = found.receipt
    mine = receipt is not None and receipt.after == found.sha256 != receipt.before
    if found.state is PatchState.FIXED and mine:
        return replace(found, state=PatchState.APPLIED)
    if found.state is PatchState.FIXED and target.dist_info is not None:
        made = _of_wheel(target.dist_info, found)
        if made:
            return replace(found, state=PatchState.APPLIED, wheel=made)
    return found


def _of_wheel(dist_info: Path, found: Examination) -> str:
    """The wheel that the installed one was made from, where it came with this very repair."""
    receipt = wheel_receipt.read_wheel_receipt(dist_info)
    for each in receipt["patches"] if receipt else ():
        if (each["patch"], each["after"]) == (found.patch.id, found.sha256):
            return str(receipt["from"]["name"]) if receipt else ""
    return ""
