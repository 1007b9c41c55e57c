"""One sentence for each outcome: everything that a person reads of what was found and done.

A hint is a command that works when pasted: as glmpatch was started, on the vLLM that is meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glmpatch.errors import Exit, Failure
from glmpatch.language import N_, _
from glmpatch.patch import PatchState
from glmpatch.site.target import Kind, Target

if TYPE_CHECKING:
    from glmpatch.site.examination import Examination

SHOWN = 4
"""Places that a message names, of those in which an unproven file differs."""
RESTART = N_("restart every running vLLM server, on every node")
COMPILED = N_(
    "a server with a compilation_config.cache_dir of its own: empty that folder first, its old "
    "graphs are reused without a look at the source"
)
NOTHING_WRITTEN = N_("nothing was written")
PROVEN = {PatchState.FIXED: N_("fixed (proven)"), PatchState.APPLIED: N_("applied (proven)")}


def together(names: Iterable[str]) -> str:
    """Several names in a sentence."""
    return _(" and ").join(names)


@dataclass(eq=False, repr=False)
class Words:
    """What to say, to somebody who typed ``start`` and the options ``on`` that named a vLLM."""

    start: str = "glmpatch"
    on: Sequence[str] = ()
    target: Target | None = None

    def next(self, arguments: str) -> str:
        """A command to type next, on the same vLLM as this one."""
        changes = arguments.split()[0] in ("apply", "revert")
        editable = self.target is not None and self.target.kind is Kind.EDITABLE
        consent = ["--allow-editable"] if changes and editable else []
        return " ".join([self.start, arguments, *self.on, *consent])

    # -- states -----------------------------------------------------------------------------

    def state(self, found: Examination) -> str:
        """The state of a patch, by its name, with what else its line says."""
        if found.state is PatchState.NOT_APPLICABLE:
            if found.defect:
                return _("not-applicable, but the file has exactly the known defect")
            if not found.covered:
                return _(
                    "not-applicable (the patch is for vLLM {versions})",
                    versions=found.patch.versions,
                )
            if found.problem:
                return _("not-applicable ({reason})", reason=found.problem)
        elif found.proven:
            return _(PROVEN[found.state])
        elif found.wheel:
            return _("applied (wheel)")
        elif found.state is PatchState.NEEDED and not found.patch.advised:
            return _("needed (not advised, applied by name only)")
        return _(found.state.value)

    def is_for_others(self, found: Examination) -> bool:
        """Whether a patch has nothing to do with this release."""
        nothing = found.state is PatchState.NOT_APPLICABLE and not found.defect
        return nothing and not found.covered and found.receipt is None

    def _some(self, places: Sequence[str]) -> str:
        """Places of a file, readable also for thousands of them."""
        shown = ", ".join(places[:SHOWN])
        more = len(places) - SHOWN
        return _("{places} and {number} more", places=shown, number=more) if more > 0 else shown

    def unsure(self, found: Examination) -> str:
        """Why a file is drifted or unproven, with its place."""
        where = self._some(found.differs)
        said = f"{found.place}: {found.problem}" + (f" ({where})" if where else "")
        if not found.unasked:
            return said
        return _(
            "{said}; its proof asks nothing of {places}",
            said=said,
            places=self._some(found.unasked),
        )

    def stale(self, found: Examination) -> str:
        """What to do about a receipt of another file."""
        name = found.patch.id
        reinstalled = _(
            "the file was reinstalled, remove its old receipt: {command}",
            command=self.next(f"revert {name}"),
        )
        edited = _(
            "it was edited, put the original in its place: {command}",
            command=self.next(f"revert {name} --force"),
        )
        return f"{reinstalled}\n{edited}"

    def mend(self, found: Examination) -> str:
        """The command that applies one patch."""
        return self.next(f"apply {found.patch.id} --verify{self._any([found])}")

    def shows_defects(self) -> str:
        """Where to look when a defect that was told is not that of this vLLM."""
        return _("{command} shows the defects that this vLLM has", command=self.next("status"))

    def after_explaining(self, found: Examination, named: bool) -> list[str]:
        """What to do about a patch that an error leads to, or (``named``) that was named."""
        if found.state is PatchState.NEEDED or found.defect:
            return [self.mend(found)]
        if found.state in (PatchState.UNPROVEN, PatchState.DRIFTED):
            return self.refused([found], ()).hint.split("\n")
        if named:
            return []  # nobody saw an error
        if found.state is PatchState.APPLIED:
            return [
                _(
                    "if a server still shows this since it was applied: {restart}",
                    restart=_(RESTART),
                )
            ]
        return [_("this vLLM does not have this defect"), self.shows_defects()]

    # -- what was done ----------------------------------------------------------------------

    def repaired(self, found: Examination, dry_run: bool) -> str:
        rewrites = ", ".join(found.broken)
        if dry_run:
            return _(
                "{patch}: would repair {path} ({rewrites})",
                patch=found.patch.id,
                path=found.path,
                rewrites=rewrites,
            )
        return _(
            "{patch}: repaired {path} ({rewrites})",
            patch=found.patch.id,
            path=found.path,
            rewrites=rewrites,
        )

    def nothing_to_do(self, found: Examination) -> str:
        name = found.patch.id
        if found.state is PatchState.APPLIED:
            if found.wheel:
                return _(
                    "{patch}: nothing to do, applied already, in the wheel made from {wheel}",
                    patch=name,
                    wheel=found.wheel,
                )
            return _("{patch}: nothing to do, applied already", patch=name)
        if found.state is PatchState.FIXED:
            if found.proven:
                return _("{patch}: nothing to do, already right (proven here)", patch=name)
            return _("{patch}: nothing to do, already right (by upstream or by hand)", patch=name)
        if found.state is PatchState.NEEDED:
            return _(
                "{patch}: left alone, since it is not advised ({start} explain {patch})",
                patch=name,
                start=self.start,
            )
        if found.covered and found.state in (PatchState.UNPROVEN, PatchState.DRIFTED):
            return _(
                "{patch}: left alone, since it is {state} and not advised "
                "({start} explain {patch})",
                patch=name,
                state=_(found.state.value),
                start=self.start,
            )
        return _(
            "{patch}: nothing done, {vllm} is not a release that it is for ({reason})",
            patch=name,
            vllm=self.version(),
            reason=found.problem if found.covered else found.patch.versions,
        )

    def not_advised(self, found: Examination) -> str:
        name = found.patch.id
        return _(
            "{patch}: {caution} To apply it: {command}",
            patch=name,
            caution=" ".join(_(found.patch.caution).split()),
            command=self.next(f"apply {name} --verify"),
        )

    def proven(self, found: Examination, kept: bool) -> str:
        name = found.patch.id
        if kept:
            return _(
                "{patch}: nothing to do, proven right as it stands; the receipt of that proof is "
                "kept",
                patch=name,
            )
        return _("{patch}: nothing to do, proven right as it stands", patch=name)

    def taken_back(self, found: Examination, changed: bool) -> str:
        """One line on what revert did about a patch."""
        name, receipt = found.patch.id, found.receipt
        if changed:
            return _("{patch}: reverted, {path} is the original again", patch=name, path=found.path)
        if found.wheel:
            return _(
                "{patch}: nothing to take back, it came in a wheel made from {wheel}; {restore}",
                patch=name,
                wheel=found.wheel,
                restore=self.restore(found.file),
            )
        if receipt is None:
            return _(
                "{patch}: nothing to take back ({state})", patch=name, state=_(found.state.value)
            )
        if receipt.before == receipt.after:
            return _(
                "{patch}: nothing to take back, but for the record of a proof, which is gone now",
                patch=name,
            )
        return _(
            "{patch}: nothing to take back, but for a receipt of another file, which is gone now",
            patch=name,
        )

    def version(self) -> str:
        version = self.target.version if self.target else None
        return f"vLLM {version}" if version else _("a vLLM of unknown version")

    def release(self) -> str | None:
        """The release of the vLLM that is here, where it is known."""
        return self.target.version if self.target else None

    def chosen(self, target: Target) -> str:
        """Which vLLM was taken where a variable of the environment decided, and no option."""
        if target.chosen_by == "PYTHONPATH":
            return _(
                "PYTHONPATH leads to the vLLM in {package} (a server that is started without it "
                "imports another; --path names that)",
                package=target.package,
            )
        return _(
            "{variable} leads to the vLLM in {package} (--python names another)",
            variable=target.chosen_by,
            package=target.package,
        )

    # -- failures ---------------------------------------------------------------------------

    def refused(
        self,
        unsure: Sequence[Examination],
        others: Sequence[Examination],
        writing: bool = False,
    ) -> Failure:
        """Drifted or unproven files: nothing is written while one of those asked for is."""
        lines = [f"{each.patch.id}: {_(each.state.value)}: {self.unsure(each)}" for each in unsure]
        hints = [self.by_hand(each) for each in unsure if each.unasked]
        provable = [each for each in unsure if not each.unasked]
        names = " ".join(each.patch.id for each in provable)
        mendable = any(each.state is PatchState.UNPROVEN for each in provable)
        readable = [each for each in provable if each.data is not None]
        if mendable:
            prove = self.next(f"apply {names} --verify" + self._any(provable))
            hints.append(_("prove it, and mend it if the proof says so: {command}", command=prove))
        elif readable:
            verify = self.next(f"verify {names}" + self._any(provable))
            hints.append(_("prove it as it stands: {command}", command=verify))
        hints.append(self.restore(unsure[0].file))
        if others:
            apart = " ".join(each.patch.id for each in others)
            hints.append(
                _(
                    "{patches} can be applied by name: {command}",
                    patches=together(each.patch.id for each in others),
                    command=self.next(f"apply {apart}"),
                )
            )
        if writing:
            lines.append(_(NOTHING_WRITTEN))
        return Failure(Exit.DRIFT, "\n".join(lines), "\n".join(hints))

    def by_hand(self, found: Examination) -> str:
        """What is left where no proof can vouch for a file."""
        return _(
            "no proof can vouch for that; {command} shows what the patch would change, to be "
            "changed by hand, once you are sure of the rest",
            command=self.next(f"diff {found.patch.id}{self._any([found])}"),
        )

    def unasked(self, found: Sequence[Examination]) -> Failure:
        """Installed files whose answers were right, and that differ where nothing was asked."""
        lines = [
            _(
                "{patch}: what was asked is answered right, but {place} differs from every known "
                "file where nothing was asked: {places}",
                patch=each.patch.id,
                place=each.path,
                places=self._some(each.unasked_now),
            )
            for each in found
        ]
        return Failure(Exit.DRIFT, "\n".join(lines), self.restore(found[0].file))

    def _any(self, found: Sequence[Examination]) -> str:
        version = self.target.version if self.target else None
        outside = any(version is None or not each.patch.covers(version) for each in found)
        return " --any-version" if outside else ""

    def missing(self, found: Examination) -> Failure:
        return Failure(
            Exit.DRIFT,
            f"{found.patch.id}: {found.place}: {found.problem}",
            self.restore(found.file),
        )

    def has_defect(self, found: Sequence[Examination]) -> Failure:
        """A release that no patch is for, whose file is known to have the defect."""
        lines = [
            _(
                "{patch} is for vLLM {versions}, and this is {vllm}; but {path} has exactly the "
                "known defect",
                patch=each.patch.id,
                versions=each.patch.versions,
                vllm=self.version(),
                path=each.path,
            )
            for each in found
        ]
        names = " ".join(each.patch.id for each in found)
        command = self.next(f"apply {names} --any-version --verify")
        return Failure(
            Exit.VERSION, "\n".join(lines), _("to go by the proof: {command}", command=command)
        )

    def proof_failed(
        self,
        names: Sequence[str],
        planned: bool,
        named: Sequence[str] = (),
        any_version: bool = False,
    ) -> Failure:
        """``named`` and ``any_version``: what the user asked for, and what mends just that."""
        failed = ", ".join(names)
        if planned:
            return Failure(
                Exit.PROOF_FAILED,
                _("the proof failed: {patches}; nothing was written", patches=failed),
                _(
                    "this vLLM computes something else than the patch mends; compare it with a "
                    "fresh install of the same version, or put the released file back: {restore}",
                    restore=self.restore(),
                ),
            )
        return Failure(
            Exit.PROOF_FAILED,
            _("the proof failed: {patches}", patches=failed),
            _(
                "{status} tells whether a patch is needed, and {apply} mends it; else another file "
                "of this vLLM is wrong: {restore}",
                status=self.next("status"),
                apply=self.next(
                    " ".join(["apply", *named, "--verify", *["--any-version"] * any_version])
                ),
                restore=self.restore(),
            ),
        )

    def editable(self) -> Failure:
        assert self.target is not None
        return Failure(
            Exit.TARGET,
            _(
                "this vLLM is an editable install: its files are the source checkout {folder}",
                folder=self.target.root,
            ),
            _("add --allow-editable to change the files of that checkout"),
        )

    def restore(self, file: str = "") -> str:
        """How to get the released file back."""
        from glmpatch.site import surroundings

        return surroundings.restore(self.target, file)
