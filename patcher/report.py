"""What a command says: text, unified diff, JSON. Data goes to stdout, messages to stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from patcher.errors import Exit, Failure

if TYPE_CHECKING:
    from patcher.examine import Examination
    from patcher.patch import Patch
    from patcher.rewriting import Plan
    from patcher.target import Target
    from patcher.verify.driver import Behaved, Verification

STATE_COLORS = {
    "needed": "yellow",
    "applied": "green",
    "fixed": "green",
    "drifted": "red",
    "not-applicable": None,
    "broken": "yellow",
    "unrecognized": "red",
}


class Report:
    """Collects what a command found; prints it as it goes, or as one JSON object at the end."""

    def __init__(
        self,
        command: str | None,
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        on: Sequence[str] = (),
    ) -> None:
        """``on``: the options that named the target, for the commands that hints name."""
        self.command = command
        self.as_json, self.quiet, self.verbose = as_json, quiet, verbose
        self.on = on
        self.target: Target | None = None
        self.patches: list[dict[str, Any]] = []
        self.verification: Mapping[str, Any] | None = None
        self.warnings: list[str] = []
        self.left_out: list[str] = []
        self._step = ""

    def next(self, arguments: str) -> str:
        """A command to type next, on the same vLLM as this one."""
        return " ".join(["glmpatch", arguments, *self.on])

    # -- lines --------------------------------------------------------------------------------

    def data(self, line: str = "") -> None:
        """A line of what was asked for."""
        if not self.as_json and not self.quiet:
            _echo(line)

    def message(self, line: str) -> None:
        """A line about what was done."""
        if not self.as_json and not self.quiet:
            _echo(line, err=True)

    def detail(self, line: str) -> None:
        """A line of what was asked for, that -v adds."""
        if self.verbose:
            self.data(line)

    def warn(self, text: str, hint: str) -> None:
        self.warnings.append(f"{text}; {hint}")
        self.message(f"{click.style('warning', fg='yellow')}: {text}")
        self.hint(hint)

    def leave_out(self, text: str, hint: str) -> None:
        """Warn of a patch that could not be loaded; the command then fails in the end."""
        self.warn(text, hint)
        self.left_out.append(text)

    def hint(self, text: str) -> None:
        self.message(f"{click.style('hint', fg='cyan')}: {text}")

    def step(self, text: str) -> None:
        """Progress, on one line that the next one overwrites; shown only on a terminal."""
        if text != self._step:
            _echo(f"\r\x1b[2K{text}", err=True, nl=False)
        self._step = text

    @property
    def shows_steps(self) -> bool:
        return sys.stderr.isatty() and not self.as_json and not self.quiet

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
            _echo(f"{click.style('error', fg='red')}: {failure.message}", err=True)
            if failure.hint:
                _echo(f"{click.style('hint', fg='cyan')}: {failure.hint}", err=True)
        return int(failure.code)

    def _print_json(self, code: Exit, failure: Failure | None = None) -> None:
        import json

        try:
            _echo(json.dumps(self.to_dict(code, failure), indent=2))
        except Failure:
            self.as_json = False  # nothing can be said there; the error goes to stderr
            raise

    def to_dict(self, code: Exit, failure: Failure | None = None) -> dict[str, Any]:
        vllm = None
        if self.target is not None:
            vllm = {
                "version": self.target.version,
                "path": str(self.target.package),
                "python": str(self.target.python) if self.target.python else None,
                "install": self.target.install,
                "transformers": self.target.transformers,
            }
        error = None
        if failure is not None:
            error = {"code": int(code), "message": failure.message, "hint": failure.hint}
        return {
            "schema": 1,
            "command": self.command,
            "exit_code": int(code),
            "vllm": vllm,
            "patches": self.patches,
            "verify": self.verification,
            "warnings": self.warnings,
            "error": error,
        }

    # -- what is in it ------------------------------------------------------------------------

    def show_target(self, target: Target) -> None:
        self.target = target
        version = target.version or "of unknown version"
        kind = {"source": "source tree"}.get(target.install, target.install)
        self.data(f"vLLM {version} ({kind}) in {target.package}")
        self.detail(f"  interpreter   {target.python or 'unknown: name it with --python'}")
        self.detail(f"  transformers  {target.transformers or 'not found'}")
        self.detail(f"  receipts in   {target.records}")

    def add(self, examination: Examination, **more: Any) -> None:
        """Put an examination into the JSON object."""
        plan = examination.plan
        self.patches.append(
            {
                "id": examination.patch.id,
                "state": examination.state.value,
                "file": str(examination.path),
                "rewrites": rewrites(plan) if plan else [],
                "known_defect": examination.defect,
                "problem": examination.problem,
                **more,
            }
        )

    def show(self, examination: Examination) -> None:
        state = examination.state.value
        styled = click.style(state, fg=STATE_COLORS[state], bold=state == "needed")
        self.data(f"{examination.patch.id}: {styled}{_because(examination)}")
        plan = examination.plan
        if plan is None or plan.problem:
            if state == "drifted":
                self.data(f"  {examination.place}: {examination.problem}")
            else:
                self.detail(f"  {examination.path}: {examination.problem}")
            return
        if examination.defect or state in ("needed", "drifted"):
            self.data(f"  {examination.path}")
            for each in rewrites(plan):
                found = click.style(f"{each['state']:<12}", fg=STATE_COLORS.get(each["state"]))
                where = f"line {each['line']}" if each["line"] else ""
                what = "  ".join(part for part in (where, each["reason"]) if part)
                self.data(f"    {each['id']:<21} {found} {what}".rstrip())
        else:
            self.detail(f"  {examination.path}")
        receipt = examination.receipt
        if receipt is not None and state == "applied":
            self.detail(f"  by glmpatch {receipt.glmpatch} on {receipt.time}")
            self.detail(f"  sha256 before {receipt.before}")
        self.detail(f"  sha256 {plan.sha256}")

    def show_diff(self, examination: Examination) -> str:
        """The plan as a unified diff that ``patch -p1`` takes, printed and returned."""
        assert examination.plan is not None
        text = unified_diff(examination.patch, examination.plan)
        for line in text.split("\n")[:-1]:
            color = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
            self.data(click.style(line, fg=color) if color else line)
        return text

    def show_verification(self, verification: Verification) -> None:
        from patcher.verify import table

        self.verification = verification.to_dict()
        for line in table.heading(verification):
            self.data(line)
        self.detail("  " + ", ".join(f"{k} {v}" for k, v in verification.versions.items()))
        for part in (table.verdicts, table.witnesses, table.throughput):
            for line in part(verification):
                self.data(line)
        for result in verification.results:
            if result.crash is not None:
                self.detail(result.crash["traceback"])
        for each in verification.behaviours:
            self._show_behaviour(each)

    def _show_behaviour(self, result: Behaved) -> None:
        from patcher.verify import table

        for line in table.verdict(result):
            self.data(line)
        if result.crash is None:
            right = sum(answer.right for answer in result.answers)
            self.data(
                f"  right answers of the configuration  {right} of {len(result.answers)} questions"
            )
        else:
            self.detail(result.crash["traceback"])
        for answer in result.answers:
            show = self.detail if answer.right else self.data
            show(f"  {answer.question}: {answer.answer}" + ("" if answer.right else "  (wrong)"))

    def show_patch(self, patch: Patch) -> None:
        """Everything a patch says of itself."""
        self.patches.append(describe(patch))
        self.data(f"{click.style(patch.id, bold=True)}: {patch.title}")
        for title, *paragraphs in (
            ("why", patch.why),
            ("how", patch.how),
            ("rewrites", *(f"{r.id}: {r.title}" for r in patch.rewrites)),
            ("file", patch.file),
            ("vLLM", patch.versions),
            ("upstream", patch.upstream),
            ("removal", patch.removal),
        ):
            lines = [line for each in paragraphs for line in _wrap(each)]
            for head, line in zip([title, *[""] * len(lines)], lines, strict=False):
                self.data(f"  {head:<9} {line}")


def _wrap(paragraph: str) -> list[str]:
    import shutil
    import textwrap

    width = 80
    if sys.stdout.isatty():
        width = min(max(shutil.get_terminal_size().columns, 40), 100)
    return textwrap.wrap(paragraph, width - 12, break_long_words=False, break_on_hyphens=False)


def _because(examination: Examination) -> str:
    """Why a patch is not applicable, for the line that says so."""
    if examination.state.value != "not-applicable":
        return ""
    if examination.defect:
        return ", but the file has exactly the known defect"
    if not examination.covered:
        return f" (the patch is for vLLM {examination.patch.versions})"
    return f" ({examination.problem})"


def rewrites(plan: Plan) -> list[dict[str, Any]]:
    return [
        {"id": f.rewrite, "state": f.state.value, "line": f.line, "reason": f.reason}
        for f in plan.findings
    ]


def describe(patch: Patch) -> dict[str, Any]:
    return {
        "id": patch.id,
        "title": patch.title,
        "why": patch.why,
        "how": patch.how,
        "rewrites": [{"id": r.id, "title": r.title} for r in patch.rewrites],
        "file": patch.file,
        "versions": patch.versions,
        "upstream": patch.upstream,
        "removal": patch.removal,
    }


def unified_diff(patch: Patch, plan: Plan) -> str:
    import difflib

    before, after = (_lines(data) for data in (plan.before, plan.after))
    lines = difflib.unified_diff(before, after, f"a/{patch.file}", f"b/{patch.file}")
    unended = "\n\\ No newline at end of file\n"
    return "".join(line if line.endswith("\n") else line + unended for line in lines)


def _lines(data: bytes) -> list[str]:
    """Lines as diff and patch count them: str.splitlines would split at other characters too."""
    import io

    return list(io.StringIO(data.decode("utf-8", errors="replace"), newline="\n"))


def _echo(text: str, err: bool = False, nl: bool = True) -> None:
    """Print; colour on terminals only, and never with NO_COLOR (Click does not know it).

    A reader that went away (``glmpatch diff | head``) changes nothing about the exit code.

    Raises:
        Failure: the output cannot be written: what was to be read there is incomplete.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # closed by the caller: >&-
        return
    color = stream.isatty() and not os.environ.get("NO_COLOR")
    try:
        try:
            click.echo(text, file=stream, nl=nl, color=color)
        except UnicodeEncodeError:
            # A path or line that this terminal's encoding cannot show is shown escaped.
            text = text.encode(stream.encoding, "backslashreplace").decode(stream.encoding)
            click.echo(text, file=stream, nl=nl, color=color)
    except BrokenPipeError:
        drop(stream)
    except OSError as error:
        drop(stream)
        raise Failure(
            Exit.INTERNAL,
            f"cannot write the output: {error.strerror}",
            "see what was done with glmpatch status",
        ) from error


def drop(stream: TextIO) -> None:
    """What is still to be written there goes nowhere, also when Python flushes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
