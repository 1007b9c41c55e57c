"""What ``explain`` prints: what a text is about, what that means here, and what to type next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from glmpatch.command.console import wrapped
from glmpatch.command.report import Report, describe
from glmpatch.errors import Exit
from glmpatch.language import _
from glmpatch.patch import Patch
from glmpatch.width import padded

if TYPE_CHECKING:
    from glmpatch.actions.explain import Explained
    from glmpatch.symptoms import Match
    from glmpatch.unpatched import Unpatched

NAMES = 9
"""Columns of the names of what is said."""


def show(report: Report, explained: Explained) -> Exit:
    """All that a text is about; one line each for a perhaps that is for other releases."""
    short = [m for m in explained.matches if not m.sure and explained.is_for_others(m)]
    for number, match in enumerate(m for m in explained.matches if m not in short):
        if number:
            report.data()
        _show_match(report, explained, match)
    if 0 < len(short) < len(explained.matches):
        report.data()
    for match in short:
        _add(report, explained, match)
        name = click.style(match.about.id, bold=True)
        here = _here(report, explained, match.about)
        report.data(_("{patch}: perhaps; {here}", patch=name, here=here))
    if len(short) == len(explained.matches):
        report.hint(report.words.shows_defects())
    return Exit.OK


def _show_match(report: Report, explained: Explained, match: Match) -> None:
    """One of them, and what to type next."""
    if not match.sure:
        report.data(_("perhaps, by the words that it shares: {symptom}", symptom=_(match.symptom)))
    about = match.about
    if isinstance(about, Patch):
        _show_patch(report, about)
    else:
        _show_unpatched(report, about)
    _add(report, explained, match)
    here = _here(report, explained, about)
    if here:
        _column(report, _("here"), here, whole=True)
    if not isinstance(about, Patch):
        return
    found = explained.found.get(about.id)
    if not match.sure:
        report.hint(report.words.next(f"status {about.id}"))
    elif found is not None:
        for line in report.words.after_explaining(found, explained.named):
            report.hint(line)
    elif not explained.named:
        report.hint(report.words.next(f"apply {about.id} --verify"))


def _add(report: Report, explained: Explained, match: Match) -> None:
    """Put a match into the JSON object."""
    about = match.about
    if isinstance(about, Patch):
        found = explained.found.get(about.id)
        state = {} if found is None else {"state": found.state.value}
        report.patches.append({**describe(about), "sure": match.sure, **state})
        return
    report.patches.append(
        {
            "id": about.id,
            "title": about.what,
            "helps": about.helps,
            "releases": about.releases,
            "sure": match.sure,
        }
    )


def _here(report: Report, explained: Explained, about: Patch | Unpatched) -> str:
    """What it means for the vLLM that is here; nothing where that is not known."""
    if isinstance(about, Patch):
        found = explained.found.get(about.id)
        said = "" if found is None else report.words.state(found)
    elif about.covers(explained.release):
        said = ""
    else:
        said = _("this is about vLLM {versions}", versions=about.releases)
    return f"{report.words.version()}: {said}" if said else ""


def _show_unpatched(report: Report, about: Unpatched) -> None:
    """What is known and not mended by any patch."""
    name = click.style(about.id, bold=True)
    report.data(_("{name}: no patch of glmpatch mends this", name=name))
    _column(report, _("what"), _(about.what))
    _column(report, _("helps"), _(about.helps))


def _show_patch(report: Report, patch: Patch) -> None:
    """Everything a patch says of itself."""
    report.data(f"{click.style(patch.id, bold=True)}: {_(patch.title)}")
    files = [patch.file] if isinstance(patch.file, str) else list(patch.file.values())
    _column(report, _("symptoms"), *(_(each) for each in patch.symptoms))
    _column(report, _("why"), _(patch.why))
    _column(report, _("how"), _(patch.how))
    _column(report, _("caution"), *([_(patch.caution)] if patch.caution else []))
    _column(report, _("rewrites"), *(f"{r.id}: {_(r.title)}" for r in patch.rewrites))
    _column(report, _("file"), *files)
    _column(report, "vLLM", patch.versions)
    _column(report, _("upstream"), patch.upstream)
    _column(report, _("removal"), _(patch.removal))


def _column(report: Report, name: str, *paragraphs: str, whole: bool = False) -> None:
    """Paragraphs beside the name of what they are about."""
    for line in (line for each in paragraphs for line in ([each] if whole else wrapped(each))):
        report.data(f"  {padded(name, NAMES)} {line}")
        name = ""
