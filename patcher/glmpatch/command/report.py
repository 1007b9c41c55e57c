"""What a command says: text, unified diff, JSON. Data goes to stdout, messages to stderr."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from glmpatch.command.console import Progress, echo, hints, labelled
from glmpatch.errors import Exit, Failure
from glmpatch.language import N_, _
from glmpatch.patch import PatchState, RewriteState
from glmpatch.width import columns, padded
from glmpatch.words import Words

if TYPE_CHECKING:
    from glmpatch.actions.outcome import Outcome
    from glmpatch.fleet.lines import Said
    from glmpatch.fleet.wheel import Repaired
    from glmpatch.patch import Patch
    from glmpatch.proof.driver import Verification
    from glmpatch.site.examination import Examination
    from glmpatch.site.target import Target

SCHEMA = 2
STATE_COLORS = {
    "needed": "yellow",
    "applied": "green",
    "fixed": "green",
    "unproven": "magenta",
    "drifted": "red",
    "not-applicable": None,
    "broken": "yellow",
    "unrecognized": "red",
}
KINDS = {
    "wheel": N_("wheel"),
    "editable": N_("editable"),
    "egg": N_("egg"),
    "source": N_("source tree"),
}


class Report:
    """Collects what a command found; prints it as it goes, or as one JSON object at the end."""

    def __init__(
        self,
        command: str | None,
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        words: Words | None = None,
    ) -> None:
        self.command = command
        self.as_json, self.quiet, self.verbose = as_json, quiet, verbose
        self.words = words or Words()
        self.target: Target | None = None
        self.patches: list[dict[str, Any]] = []
        self.verification: Mapping[str, Any] | None = None
        self.wheel: str | None = None
        self.plugins: list[dict[str, str]] = []
        self.nodes: list[Mapping[str, Any]] | None = None
        self.warnings: list[str] = []
        self.left_out: list[str] = []

    # -- lines --------------------------------------------------------------------------------

    def data(self, line: str = "") -> None:
        """A line of what was asked for."""
        if not self.as_json and not self.quiet:
            echo(line)

    def message(self, line: str) -> None:
        """A line about what was done."""
        if not self.as_json and not self.quiet:
            echo(line, err=True)

    def detail(self, line: str) -> None:
        """A line of what was asked for, that -v adds."""
        if self.verbose:
            self.data(line)

    def warn(self, text: str, hint: str) -> None:
        self.warnings.append(f"{text}; {hint}")
        self.message(labelled(_("warning"), "yellow", text))
        self.hint(hint)

    def leave_out(self, text: str, hint: str) -> None:
        """Warn of a patch that could not be loaded; the command then fails in the end."""
        self.warn(text, hint)
        self.left_out.append(text)

    def hint(self, text: str) -> None:
        for line in hints(text):
            self.message(line)

    def progress(self) -> Progress | None:
        """Where the steps of a proof are shown; nowhere with -q and --json."""
        return None if self.as_json or self.quiet else Progress()

    # -- the end ------------------------------------------------------------------------------

    def finish(self, code: Exit) -> int:
        if self.as_json:
            self._print_json(code)
        return int(code)

    def fail(self, failure: Failure) -> int:
        """The error, its place and the next command; errors are shown with -q too."""
        if self.as_json:
            with contextlib.suppress(Failure):
                self._print_json(failure.code, failure)
                return int(failure.code)
        with contextlib.suppress(Failure):
            echo(labelled(_("error"), "red", failure.message), err=True)
            for line in hints(failure.hint):
                echo(line, err=True)
        return int(failure.code)

    def _print_json(self, code: Exit, failure: Failure | None = None) -> None:
        import json

        try:
            echo(json.dumps(self.to_dict(code, failure), indent=2))
        except Failure:
            self.as_json = False  # nothing can be said there; the error goes to stderr
            raise

    def to_dict(self, code: Exit, failure: Failure | None = None) -> dict[str, Any]:
        error = None
        if failure is not None:
            error = {"code": int(code), "message": failure.message, "hint": failure.hint}
        return {
            "schema": SCHEMA,
            "command": self.command,
            "exit_code": int(code),
            "vllm": self.target.to_dict() if self.target else None,
            "patches": self.patches,
            "plugins": self.plugins,
            **({} if self.nodes is None else {"nodes": self.nodes}),
            "wheel": self.wheel,
            "verify": self.verification,
            "warnings": self.warnings,
            "error": error,
        }

    # -- what is in it ------------------------------------------------------------------------

    def show_target(self, target: Target) -> None:
        self.target = self.words.target = target
        kind = _(KINDS[target.kind.value])
        if target.version:
            self.data(
                _(
                    "vLLM {version} ({kind}) in {package}",
                    version=target.version,
                    kind=kind,
                    package=target.package,
                )
            )
        else:
            self.data(
                _(
                    "vLLM of unknown version ({kind}) in {package}",
                    kind=kind,
                    package=target.package,
                )
            )
        for name, value in (
            (_("interpreter"), target.python or _("unknown: name it with --python")),
            ("torch", target.torch or _("not found")),
            ("transformers", target.transformers or _("not found")),
            (_("receipts in"), target.records),
        ):
            self.detail(f"  {padded(name, 12)}  {value}")

    def show_outcome(self, outcome: Outcome, states: bool = False, changes: bool = False) -> Exit:
        """All of it; ``states`` shows what is there, ``changes`` adds to the JSON what was done.

        Raises:
            Failure: what stopped the command.
        """
        for text, hint in outcome.warnings:
            self.warn(text, hint)
        elsewhere = []
        for step in outcome.steps:
            more: dict[str, Any] = {"changed": step.changed} if changes else {}
            if self.command == "diff":
                more = {"diff": step.diff}
            self.add(step.found, **more)
            if not (outcome.named or self.verbose) and self.words.is_for_others(step.found):
                elsewhere.append(step.found.patch.id)
                continue
            if states:
                self.show(step.found)
            if step.diff:
                self.show_diff(step.diff)
            if step.line:
                (self.message if self.command == "diff" else self.data)(step.line)
        if elsewhere and (states or changes) and self.command != "revert":
            self.data(_("for other releases of vLLM: {patches}", patches=", ".join(elsewhere)))
        for plugin in outcome.plugins:
            self.plugins.append(plugin.to_dict())
            name = f"{plugin.distribution} {plugin.version} ({plugin.group}: {plugin.name})"
            self.data(_("plugin {name}: {told}", name=name, told=plugin.told))
        for line in outcome.messages:
            self.message(line)
        for line in outcome.hints:
            self.hint(line)
        return outcome.end()

    def show_fleet(self, said: Said) -> Exit:
        """What many machines said.

        Raises:
            Failure: what stopped the command, or some of it.
        """
        self.nodes = list(said.nodes)
        self.data(said.title)
        for line in said.table:
            self.data(line)
        for name, lines in said.details.items():
            for line in lines:
                self.detail(f"{name}: {line}")
        for text, hint in said.warnings:
            self.warn(text, hint)
        for line in said.messages:
            self.message(line)
        for line in said.hints:
            self.hint(line)
        if said.failure is not None:
            raise said.failure
        return said.exit

    def add(self, found: Examination, **more: Any) -> None:
        """Put an examination into the JSON object."""
        self.patches.append({**found.to_dict(), **more})

    def show(self, found: Examination) -> None:
        state = found.state.value
        styled = click.style(state, fg=STATE_COLORS[state], bold=found.state is PatchState.NEEDED)
        self.data(f"{found.patch.id}: {self.words.state(found).replace(state, styled, 1)}")
        wide = found.defect or state in ("needed", "unproven", "drifted")
        if state in ("unproven", "drifted"):
            self.data(f"  {self.words.unsure(found)}")
        elif wide:
            self.data(f"  {found.path}")
        elif found.problem:
            self.detail(f"  {found.path}: {found.problem}")
        else:
            self.detail(f"  {found.path}")
        names = max((len(each.rewrite) for each in found.findings), default=0)
        states = max(columns(_(each.value)) for each in RewriteState)
        for each in found.findings if wide and found.data is not None else ():
            color = STATE_COLORS.get(each.state.value)
            said = click.style(padded(_(each.state.value), states), fg=color)
            where = _("line {number}", number=each.line) if each.line else ""
            what = "  ".join(part for part in (where, each.reason) if part)
            self.data(f"    {each.rewrite:<{names}}  {said} {what}".rstrip())
        receipt = found.receipt
        if receipt is not None and state == "applied":
            by = _("by glmpatch {version} on {time}", version=receipt.glmpatch, time=receipt.time)
            self.detail(f"  {by}")
            self.detail("  " + _("sha256 before {digest}", digest=receipt.before))
        if found.data is not None:
            self.detail(f"  sha256 {found.sha256}")

    def show_diff(self, text: str) -> None:
        for line in text.split("\n")[:-1]:
            color = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
            self.data(click.style(line, fg=color) if color else line)

    def show_verification(self, verification: Verification) -> None:
        from glmpatch.proof import lines

        self.verification = verification.to_dict()
        for line in lines.heading(verification):
            self.data(line)
        self.detail("  " + ", ".join(f"{k} {v}" for k, v in verification.versions.items()))
        for part in (lines.verdicts, lines.witnesses, lines.throughput):
            for line in part(verification):
                self.data(line)
        for result in verification.results:
            if result.crash is not None:
                self.detail(result.crash["traceback"])

    def show_wheel(self, made: Repaired) -> None:
        for each in made.repaired:
            self.patches.append(
                {
                    "id": each.patch,
                    "file": each.file,
                    "rewrites": list(each.rewrites),
                    "before": each.before,
                    "after": each.after,
                }
            )
            self.data(
                _(
                    "{patch}: repaired {path} ({rewrites})",
                    patch=each.patch,
                    path=each.file,
                    rewrites=", ".join(each.rewrites),
                )
            )
        for name in made.right:
            self.data(_("{patch}: nothing to do, already right", patch=name))
        if made.path is None:
            self.data(
                _(
                    "nothing to repair in {wheel}; no wheel was written",
                    wheel=made.source.name,
                )
            )
            return
        self.wheel = str(made.path)
        self.data(
            str(made.path)
            if made.written
            else _("{path} (was there already, the same)", path=made.path)
        )
        public = made.version.partition("+")[0]
        folder = shlex.quote(str(made.path.parent))
        self.hint(f"pip install -U --find-links {folder} vllm=={public}")


def describe(patch: Patch) -> dict[str, Any]:
    files = [patch.file] if isinstance(patch.file, str) else list(patch.file.values())
    return {
        "id": patch.id,
        "title": patch.title,
        "symptoms": list(patch.symptoms),
        "why": patch.why,
        "how": patch.how,
        "advised": patch.advised,
        "caution": patch.caution,
        "rewrites": [{"id": r.id, "title": r.title} for r in patch.rewrites],
        "file": files[-1],
        "files": files,
        "versions": patch.versions,
        "upstream": patch.upstream,
        "removal": patch.removal,
    }


def unified_diff(file: str, before: bytes, after: bytes) -> str:
    """A change as a unified diff that ``patch -p1`` takes."""
    import difflib

    lines = difflib.unified_diff(_lines(before), _lines(after), f"a/{file}", f"b/{file}")
    unended = "\n\\ No newline at end of file\n"
    return "".join(line if line.endswith("\n") else line + unended for line in lines)


def _lines(data: bytes) -> list[str]:
    """Lines as diff and patch count them: str.splitlines would split at other characters too."""
    import io

    return list(io.StringIO(data.decode("utf-8", errors="replace"), newline="\n"))
