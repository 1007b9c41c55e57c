"""What a shell is told when it asks how a line may go on; Click does the asking."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from glmpatch.errors import Exit
from glmpatch.language import _

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
        _mend_fish()
        cli.main(prog_name="glmpatch")
    except (Exception, KeyboardInterrupt):
        sys.exit(Exit.INTERNAL)


def patches(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The patches that the line does not name yet."""
    from click.shell_completion import CompletionItem

    from glmpatch.catalogue import load_patches

    named = context.params.get(str(parameter.name)) or ()
    return [
        CompletionItem(patch.id, help=_(patch.title))
        for patch in load_patches(lambda *_warning: None)
        if patch.id.startswith(incomplete) and patch.id not in named
    ]


def _mend_fish() -> None:
    """Click loses what follows a comma there, and folders with a blank in their name."""
    import re

    from click.shell_completion import FishComplete, add_completion_class

    class Fish(FishComplete):
        source_template = FishComplete.source_template.replace("split ", "split -m 1 ")

        def format_completion(self, item: CompletionItem) -> str:
            if item.type == "dir":
                # fish completes a folder as part of a line: it has to be as one types it.
                item.value = re.sub(r"[^\w/.,~+-]", r"\\\g<0>", item.value)
            return super().format_completion(item)

    add_completion_class(Fish)
