"""What runs on a node of a cluster: an order in, an answer out, both plain data.

It is to a node what ``command`` is to one machine, and stands above ``actions`` as that does. The
vLLM is that of the interpreter in which it runs. Errors travel as data: the other side may have
no class of that name, and an answer must come through whatever happened. Whoever gives an order
names the language of its answer, which is printed there and not here.
"""

from __future__ import annotations

import json
import socket
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from glmpatch.actions import prepare as preparing
from glmpatch.actions import revert as reverting
from glmpatch.actions import status as looking
from glmpatch.actions.outcome import Outcome
from glmpatch.catalogue import select_patches
from glmpatch.errors import Exit, Failure
from glmpatch.language import _, speaking
from glmpatch.site import install, plugins, undo
from glmpatch.site import receipt as receipts
from glmpatch.site.examine import examine_all
from glmpatch.site.target import Target, find_target
from glmpatch.source import sha256
from glmpatch.words import Words

if TYPE_CHECKING:
    from glmpatch.patch import Patch
    from glmpatch.proof.driver import Candidate, Verification
    from glmpatch.site.examination import Examination

Order = Mapping[str, Any]
Answer = dict[str, Any]


def obey(order: Order) -> Answer:
    """Do what ``order["do"]`` says; an error is part of the answer.

    What an answer has may be part of the next order, and a worker that starts for that one cannot
    read a class of ours: no glmpatch is importable before ``Worker.obey`` has begun.
    """
    with speaking(order.get("language", "en")):
        plain: Answer = json.loads(json.dumps(_answer(order)))
        return plain


def _answer(order: Order) -> Answer:
    try:
        return {"failures": [], **ORDERS[order["do"]](order)}
    except Failure as failure:
        return {"failures": [_failure(failure)]}
    except Exception as error:
        message = _(
            "a fault of glmpatch itself: {kind}: {error}", kind=type(error).__name__, error=error
        )
        fault = Failure(Exit.INTERNAL, message, _("report it, with the words of the error"))
        return {"failures": [_failure(fault)]}


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        "code": int(failure.code),
        "message": failure.message,
        "hint": failure.hint,
    }


class _Words(Words):
    """What is said of a node. That nothing was written need not hold for all: whoever has heard
    them says so."""

    def refused(
        self,
        unsure: Sequence[Examination],
        others: Sequence[Examination],
        writing: bool = False,
    ) -> Failure:
        return super().refused(unsure, others)


def _open(order: Order) -> tuple[Target, tuple[Patch, ...], Words]:
    # A folder in patches/ that is no good is named by whoever gives the orders.
    patches = select_patches(order["names"], lambda problem, hint: None)
    target = find_target(python=sys.executable)
    return target, patches, _Words(order["start"], order["on"], target)


def _about(target: Target, found: Sequence[Examination]) -> Answer:
    return {
        "host": socket.gethostname(),
        "vllm": target.to_dict(),
        "patches": [each.to_dict() for each in found],
        "plugins": [each.to_dict() for each in plugins.find(target)],
    }


def _told(outcome: Outcome) -> Answer:
    return {
        "failures": [_failure(each) for each in outcome.failures],
        "warnings": [list(each) for each in outcome.warnings],
        "messages": outcome.messages,
        "hints": outcome.hints,
        "exit": int(outcome.exit),
    }


def status(order: Order) -> Answer:
    """What is installed."""
    target, patches, words = _open(order)
    named = bool(order["names"])
    outcome = looking.status(target, patches, words, named=named, check=order["check"])
    return {**_about(target, [step.found for step in outcome.steps]), **_told(outcome)}


def prepare(order: Order) -> Answer:
    """What apply would write here, proven where that is asked for; writes nothing."""
    target, patches, words = _open(order)
    proofs: list[Verification] = []

    def prove(candidates: Sequence[Candidate]) -> Verification:
        from glmpatch.proof import driver

        assert target.python is not None  # it is this interpreter
        proofs.append(
            driver.verify(target.python, target.root, target.paths, candidates, via=order["via"])
        )
        return proofs[-1]

    named = bool(order["names"])
    prepared = preparing.prepare(
        target,
        patches,
        words,
        named=named,
        prove=prove if order["verify"] else None,
        dry_run=order["dry_run"],
        any_version=order["any_version"],
        allow_editable=order["allow_editable"],
    )
    left = preparing.left_over(target, prepared.found, words, named)
    outcome = prepared.outcome
    outcome.warnings += left.warnings
    changes = []
    for each in prepared.found if not outcome.failures else ():
        verdict = prepared.verdicts.get(each.patch.id)
        writing = preparing.to_write(target, each, verdict) if verdict else None
        if writing is not None:
            changes.append(_packed(*writing, each.patch.afterwards))
    return {
        **_about(target, prepared.found),
        **_told(outcome),
        "left": [_failure(each) for each in left.failures],
        "changes": changes,
        "verify": proofs[-1].to_dict() if proofs else None,
    }


def _packed(
    change: install.Change, proof: install.Proof | None, afterwards: Sequence[str]
) -> dict[str, Any]:
    return {
        "patch": change.patch,
        "file": change.file,
        "before": b64encode(change.before).decode(),
        "after": b64encode(change.after).decode(),
        "rewrites": list(change.rewrites),
        "released": list(change.released),
        "afterwards": list(afterwards),
        "proof": proof
        and {
            "verification": dict(proof.verification),
            "neighbours": dict(proof.neighbours),
            "full": proof.full,
        },
    }


def _unpacked(packed: Mapping[str, Any]) -> tuple[install.Change, install.Proof | None]:
    return (
        install.Change(
            packed["patch"],
            packed["file"],
            b64decode(packed["before"]),
            b64decode(packed["after"]),
            tuple(packed["rewrites"]),
            tuple(packed["released"]),
        ),
        install.Proof(**packed["proof"]) if packed["proof"] else None,
    )


def swap(order: Order) -> Answer:
    """Write what was prepared. ``changed`` are the patches whose files this call has changed.

    A file that is as planned already is right: nodes share file systems, and another glmpatch
    may have been first.
    """
    target, patches, _words = _open(order)
    changed: list[str] = []
    failures = []
    try:
        for change, proof in map(_unpacked, order["changes"]):
            if install.install(target, change, proof).ours:
                changed.append(change.patch)
        version = target.version
        for patch in patches:
            if patch.id not in {each["patch"] for each in order["changes"]}:
                undo.tidy(target, patch.id, patch.path(version))
    except (Failure, OSError) as error:
        failure = error
        if isinstance(error, OSError):
            failure = Failure(
                Exit.TARGET,
                _("cannot read {path}: {error}", path=error.filename, error=error.strerror),
                _("run Ray as a user who may read the environment of vLLM"),
            )
        assert isinstance(failure, Failure)
        failures.append(_failure(failure))
    return {"changed": changed, "failures": failures}


def back(order: Order) -> Answer:
    """Take back what ``swap`` may have written: ``changed`` are the patches of which it has."""
    target, *_rest = _open(order)
    changed, failures = [], []
    for change, _proof in reversed([_unpacked(each) for each in order["changes"]]):
        before, after = sha256(change.before), sha256(change.after)
        try:
            receipt = receipts.read(target, change.patch, change.file)
            if receipt is None:
                undo.tidy(target, change.patch, change.file)
            elif before == after or receipt.after != after:
                continue
            elif receipt.before != before:
                # It was ours before, and was mended further: its original stays.
                further = replace(change, before=change.after, after=change.before, rewrites=())
                if install.install(target, further).ours:
                    changed.append(change.patch)
            elif undo.revert(target, change.patch, change.file, [before]):
                changed.append(change.patch)
        except Failure as failure:
            failures.append(_failure(failure))
    return {"changed": changed, "failures": failures}


def revert(order: Order) -> Answer:
    """Take the patches back, as on one machine."""
    target, patches, words = _open(order)
    outcome = reverting.revert(target, patches, words, order["force"], order["allow_editable"])
    answer = _told(outcome)
    changed = [step.found.patch.id for step in outcome.steps if step.changed]
    return {**_about(target, examine_all(target, patches)), **answer, "changed": changed}


ORDERS: dict[str, Callable[[Order], Answer]] = {
    "status": status,
    "prepare": prepare,
    "swap": swap,
    "back": back,
    "revert": revert,
}
