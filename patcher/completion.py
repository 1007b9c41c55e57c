"""What a shell is told when it asks how a line may go on; Click does the asking."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from patcher.errors import Exit

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

VARIABLE = "_GLMPATCH_COMPLETE"
"""Where Click looks for ``bash_source``, ``zsh_complete`` and the like."""

folder = click.Path(file_okay=False).shell_complete
anything = click.Path().shell_complete


def is_asked() -> bool:
    return bool(os.environ.get(VARIABLE))


def answer(cli: click.Command) -> None:
    """Answer the shell and exit.

    Whatever goes wrong is no answer: the user sits in the middle of a line, where neither an
    error nor a traceback helps.
    """
    try:
        cli.main(prog_name="glmpatch")
    except (Exception, KeyboardInterrupt):
        sys.exit(Exit.INTERNAL)


def patches(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The patches that the line does not name yet."""
    from click.shell_completion import CompletionItem

    from patcher.patch import load_patches

    named = context.params.get(str(parameter.name)) or ()
    return [
        CompletionItem(patch.id, help=patch.title)
        for patch in load_patches(lambda *_: None)
        if patch.id.startswith(incomplete) and patch.id not in named
    ]
