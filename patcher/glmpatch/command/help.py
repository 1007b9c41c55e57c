"""What ``--help`` says: of each command beyond its options, as data, and in which language.

Click lays out the help and makes the messages of wrong usage, in English. What it lays out is
looked up as it is written, what it says is told anew. The man page, made of the same, is English.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import click

from glmpatch.errors import MEANING, Exit
from glmpatch.language import N_, _, retold
from glmpatch.width import columns, is_wide, wrap

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

WORDS = (
    N_("Options"),
    N_("Commands"),
    N_("Examples"),
    N_("Exit codes"),
    N_("Show this message and exit."),
    N_("Show the version and exit."),
)
"""Headings, and what Click itself says of options."""
REFUSALS = (
    N_("{message} Did you mean {name}?"),
    N_("{message} (Did you mean one of: {names}?)"),
    N_("{message} (Possible options: {names})"),
    N_("No such option: {name}"),
    N_("No such option {name}."),
    N_("No such command {name}."),
    N_("Missing command."),
    N_("Missing argument {name}."),
    N_("Got unexpected extra argument ({words})"),
    N_("Got unexpected extra arguments ({words})"),
    N_("Option {name} requires an argument."),
    N_("Option {name} does not take a value."),
    N_("Invalid value for {name}: {message}"),
    N_("{value} is not one of {choices}."),
    N_("{value} is not a valid integer."),
    N_("{value} is not a valid integer range."),
    N_("{value} is not in the range {range}."),
    N_("File {name} is a directory."),
    N_("Directory {name} is a file."),
    N_("{value} is not {choice}."),
)
"""What Click's releases say of wrong usage; the first that fits is meant."""
ALWAYS = (Exit.OK, Exit.USAGE, Exit.INTERNAL, Exit.INTERRUPTED)


class Told(NamedTuple):
    """Of one command: lines to type, each with what it does, and how it can end."""

    examples: Mapping[str, str]
    exits: tuple[Exit, ...]


def _told(examples: Mapping[str, str], *exits: Exit) -> Told:
    return Told(examples, tuple(sorted((*ALWAYS, *exits))))


TOLD: Mapping[str, Told] = {
    "glmpatch": Told(
        {
            "glmpatch status": N_("what is installed, what it needs"),
            "glmpatch apply --verify": N_("prove the repair, then install it"),
            "glmpatch apply --python /opt/venv": N_("the vLLM of another environment"),
            "glmpatch revert": N_("the original, byte for byte"),
        },
        tuple(Exit),
    ),
    "status": _told(
        {
            "glmpatch status": N_("of the vLLM beside glmpatch"),
            "glmpatch status --python /opt/venv": N_("of another environment"),
            "glmpatch status --check -q": N_("for scripts: the exit code alone"),
        },
        Exit.NEEDED,
        Exit.TARGET,
        Exit.DRIFT,
    ),
    "list": _told(
        {
            "glmpatch list": N_("one line for each patch"),
            "glmpatch list --json": N_("all that they say of themselves"),
        }
    ),
    "explain": _told(
        {
            "glmpatch explain glm4-residual": N_("the repair of GLM-4-0414"),
            "glmpatch explain 'must be Tensor, not tuple'": N_("what an error is about"),
            "glmpatch explain - < server.log": N_("what a log is about"),
        },
        Exit.TARGET,
        Exit.DRIFT,
    ),
    "diff": _told(
        {
            "glmpatch diff": N_("of all patches that are needed"),
            "glmpatch diff glm4-residual": N_("of one patch"),
            "glmpatch diff | git apply -p1": N_("by other means, in site-packages"),
        },
        Exit.TARGET,
        Exit.DRIFT,
    ),
    "apply": _told(
        {
            "glmpatch apply --verify": N_("prove the repair, then install it"),
            "glmpatch apply --dry-run": N_("see what would be done"),
            "glmpatch apply glm4-residual": N_("one patch and no other"),
            "glmpatch apply --path /src/vllm": N_("the vLLM in that folder"),
        },
        Exit.TARGET,
        Exit.VERSION,
        Exit.DRIFT,
        Exit.PROOF_FAILED,
        Exit.PROOF_NOT_RUN,
    ),
    "revert": _told(
        {
            "glmpatch revert": N_("take all patches back"),
            "glmpatch revert glm4-residual": N_("take one back"),
            "glmpatch revert --force": N_("also what was edited since"),
        },
        Exit.TARGET,
        Exit.DRIFT,
    ),
    "wheel": _told(
        {
            "glmpatch wheel vllm-0.8.4-*.whl": N_("into the working folder"),
            "glmpatch wheel FILE.whl -o links": N_("into another one"),
            "glmpatch wheel FILE.whl glm4-residual": N_("with one patch and no other"),
        },
        Exit.TARGET,
        Exit.VERSION,
        Exit.DRIFT,
        Exit.PROOF_FAILED,
        Exit.PROOF_NOT_RUN,
    ),
    "verify": _told(
        {
            "glmpatch verify": N_("a GPU's engine, or the CPU"),
            "glmpatch verify --device cpu": N_("without a GPU"),
            "glmpatch verify --via engine --tp 2": N_("vLLM itself on two GPUs"),
            "glmpatch verify --report proof.html": N_("with a page of all figures"),
        },
        Exit.TARGET,
        Exit.VERSION,
        Exit.DRIFT,
        Exit.PROOF_FAILED,
        Exit.PROOF_NOT_RUN,
    ),
}


def refusal(error: click.UsageError) -> str:
    """What is wrong with a line, in the language of the user."""
    return retold(error.format_message(), REFUSALS)


class Formatter(click.HelpFormatter):
    """Looks up what it writes; wraps Chinese, for which Click knows neither widths nor breaks."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        label = _("Usage: ")
        blank = " " * columns(label)
        start = len(self.buffer)
        super().write_usage(prog, args, blank)
        self.buffer[start] = self.buffer[start].replace(blank, label, 1)

    def write_heading(self, heading: str) -> None:
        self.write(" " * self.current_indent + _("{heading}:", heading=_(heading)) + "\n")

    def write_text(self, text: str) -> None:
        width = self.width - self.current_indent
        paragraphs = (_(_joined(each)) for each in text.split("\n\n"))
        super().write_text("\n\n".join(_laid_out(each, width) for each in paragraphs))

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        rows = list(rows)
        first = min(max(columns(name) for name, _told in rows), col_max) + col_spacing
        width = max(self.width - first - 2, 10)
        told = []
        for name, text in rows:
            text, mark, more = text.partition("  [")  # what values an option takes
            told.append((name, _laid_out(_(text) + mark + more, width)))
        super().write_dl(told, col_max, col_spacing)


def _joined(paragraph: str) -> str:
    return " ".join(paragraph.split())


def _laid_out(paragraph: str, width: int) -> str:
    """A paragraph that Click leaves as it is, where it cannot wrap it."""
    return "\b\n" + "\n".join(wrap(paragraph, width)) if is_wide(paragraph) else paragraph


class Context(click.Context):
    formatter_class = Formatter


class Command(click.Command):
    """A command whose help ends with its examples and exit codes, wrapped to the width."""

    context_class = Context

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        told = TOLD[str(self.name)]
        with formatter.section("Examples"):
            formatter.write_dl(list(told.examples.items()), col_max=formatter.width // 2)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), MEANING[code]) for code in told.exits])

    def get_short_help_str(self, limit: int = 45) -> str:
        """The whole line: a list of commands wraps it, where Click would cut it off."""
        return super().get_short_help_str(1000)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        items = super().shell_complete(ctx, incomplete)
        for item in items:
            item.help = item.help and _(item.help)
        return items


class Group(Command, click.Group):
    """The command above the others."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if hasattr(error, "possibilities"):  # Click names them itself, for commands from 8.4 on
                raise
            import difflib

            near = difflib.get_close_matches(args[0], self.commands)
            more = f" Did you mean {near[0]!r}?" if near else ""  # as Click words it
            raise click.UsageError(error.message + more, ctx) from None
