"""What ``--help`` and the man page say of each command beyond its options, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import click

from patcher.errors import MEANING, Exit

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
            "glmpatch status": "what is installed, what it needs",
            "glmpatch apply --verify": "prove the repair, then install it",
            "glmpatch apply --python /opt/venv": "the vLLM of another environment",
            "glmpatch revert": "the original, byte for byte",
        },
        tuple(Exit),
    ),
    "status": _told(
        {
            "glmpatch status": "of the vLLM beside glmpatch",
            "glmpatch status --python /opt/venv": "of another environment",
            "glmpatch status --check -q": "for scripts: the exit code alone",
        },
        Exit.NEEDED,
        Exit.TARGET,
        Exit.DRIFT,
    ),
    "list": _told(
        {
            "glmpatch list": "one line for each patch",
            "glmpatch list --json": "all that they say of themselves",
        }
    ),
    "explain": _told(
        {
            "glmpatch explain glm4-residual": "the repair of GLM-4-0414",
            "glmpatch explain glm-rope --json": "the same for programs",
        }
    ),
    "diff": _told(
        {
            "glmpatch diff": "of all patches that are needed",
            "glmpatch diff glm4-residual": "of one patch",
            "glmpatch diff | git apply -p1": "by other means, in site-packages",
        },
        Exit.TARGET,
        Exit.DRIFT,
    ),
    "apply": _told(
        {
            "glmpatch apply --verify": "prove the repair, then install it",
            "glmpatch apply --dry-run": "see what would be done",
            "glmpatch apply glm4-residual": "one patch and no other",
            "glmpatch apply --path /src/vllm": "the vLLM in that folder",
        },
        Exit.TARGET,
        Exit.VERSION,
        Exit.DRIFT,
        Exit.PROOF_FAILED,
        Exit.PROOF_NOT_RUN,
    ),
    "revert": _told(
        {
            "glmpatch revert": "take all patches back",
            "glmpatch revert glm4-residual": "take one back",
            "glmpatch revert --force": "also what was edited since",
        },
        Exit.TARGET,
        Exit.DRIFT,
    ),
    "verify": _told(
        {
            "glmpatch verify": "a GPU's engine, or the CPU",
            "glmpatch verify --device cpu": "without a GPU",
            "glmpatch verify --via engine --tp 2": "vLLM itself on two GPUs",
            "glmpatch verify --report proof.html": "with a page of all figures",
        },
        Exit.TARGET,
        Exit.VERSION,
        Exit.DRIFT,
        Exit.PROOF_FAILED,
        Exit.PROOF_NOT_RUN,
    ),
}


class Command(click.Command):
    """A command whose help ends with its examples and exit codes, wrapped to the width."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        told = TOLD[str(self.name)]
        with formatter.section("Examples"):
            formatter.write_dl(list(told.examples.items()), col_max=formatter.width // 2)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), MEANING[code]) for code in told.exits])

    def get_short_help_str(self, limit: int = 45) -> str:
        """The whole line: a list of commands wraps it, where Click would cut it off."""
        return super().get_short_help_str(1000)


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
            more = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(error.message + more, ctx) from None
