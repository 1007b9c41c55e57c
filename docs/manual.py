"""The manual page ``docs/glmpatch.1``, from the commands themselves; docs/generate.py writes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click

from glmpatch import __version__
from glmpatch.command.cli import cli
from glmpatch.command.help import TOLD
from glmpatch.errors import MEANING, Exit

PAGE = Path(__file__).with_name("glmpatch.1")
SYNOPSIS = """\
.B glmpatch
.I command
.RI [ option ...]
.RI [ patch ...]
"""
DESCRIPTION = """\
GLM models break on pinned releases of vLLM: with a crash, or silently, with wrong answers or lost
tool calls.
.B glmpatch
repairs the installed vLLM, refuses where it is not sure, proves the repair with numbers or with
questions whose answers are known, and takes it back without a trace.
.PP
The vLLM meant is the one of the Python that runs
.BR glmpatch ,
unless
.B \\-\\-python
or
.B \\-\\-path
names another.
Where no patch is named, all are meant that the vLLM needs and that are advised.
Data goes to the standard output, messages go to the standard error, and nothing ever prompts.
"""
SURROUNDINGS = """\
.TP
.B NO_COLOR
If set and not empty, nothing is coloured.
Without it, colour is for terminals only, and not where TERM is dumb.
.TP
.B COLUMNS
How wide the help is, and on a terminal what
.B glmpatch explain
prints.
.TP
.B LANG, LC_ALL, GLMPATCH_LANG
Messages are in Chinese where the locale is, such as zh_CN.UTF\\-8, or where
.B GLMPATCH_LANG
is zh_CN; with en they are English.
JSON is English always.
.TP
.B _GLMPATCH_COMPLETE
Set by shells that ask how a line may go on; see below.
"""
COMPLETION = """\
To complete commands, options, patches and folders with the TAB key, put one line into the file that
the shell reads at its start.
.PP
bash, in \\(ti/.bashrc:
.PP
.EX
eval "$(_GLMPATCH_COMPLETE=bash_source glmpatch)"
.EE
.PP
zsh, in \\(ti/.zshrc after compinit:
.PP
.EX
eval "$(_GLMPATCH_COMPLETE=zsh_source glmpatch)"
.EE
.PP
fish, in \\(ti/.config/fish/config.fish:
.PP
.EX
_GLMPATCH_COMPLETE=fish_source glmpatch | source
.EE
"""


def page() -> str:
    commands = [cli.commands[name] for name in sorted(cli.commands)]
    common = _common(commands)
    return "".join(
        (
            '.\\" Written by "python -m docs.generate" from patcher/; not to be edited.\n',
            f'.TH GLMPATCH 1 "" "glmpatch {__version__}" "User Commands"\n',
            f".SH NAME\nglmpatch \\- {_text(_sentence(cli))}\n",
            f".SH SYNOPSIS\n{SYNOPSIS}.SH DESCRIPTION\n{DESCRIPTION}.SH COMMANDS\n",
            *(_command(command, common) for command in commands),
            ".SH OPTIONS\nMost commands take these.\n",
            *_options(
                [*common.values(), *cli.get_params(click.Context(cli, **cli.context_settings))]
            ),
            f".SH EXIT STATUS\n{_table((str(int(c)), MEANING[c]) for c in Exit)}",
            f".SH ENVIRONMENT\n{SURROUNDINGS}.SH SHELL COMPLETION\n{COMPLETION}",
            f".SH EXAMPLES\n{_examples('glmpatch')}",
        )
    )


def _common(commands: Iterable[click.Command]) -> dict[str, click.Parameter]:
    """Options of most commands, by name; they are told once."""
    every = [option for command in commands for option in command.params]
    count = Counter(option.name for option in every)
    return {str(o.name): o for o in every if count[o.name] > len(cli.commands) / 2}


def _command(command: click.Command, common: Iterable[str]) -> str:
    name = str(command.name)
    arguments = "".join(
        f"\\ \\fI{_text(p.metavar or str(p.name))}\\fR"
        for p in command.params
        if isinstance(p, click.Argument)
    )
    own = [option for option in command.params if option.name not in common]
    paragraphs = (" ".join(part.split()) for part in str(command.help).split("\n\n"))
    codes = ", ".join(str(int(code)) for code in TOLD[name].exits)
    return "".join(
        (
            f".SS glmpatch {name}{arguments}\n",
            ".PP\n".join(f"{_text(paragraph)}\n" for paragraph in paragraphs),
            *_options(own),
            f".PP\nExit status: {codes}.\n",
            _examples(name),
        )
    )


def _options(options: Iterable[click.Parameter]) -> Iterable[str]:
    for option in options:
        record = option.get_help_record(click.Context(cli, **cli.context_settings))
        if isinstance(option, click.Option) and record is not None:
            names, told = record
            yield f".TP\n.B {_text(names)}\n{_text(told)}\n"


def _examples(name: str) -> str:
    return _table((f"\\fB{_text(line)}\\fR", told) for line, told in TOLD[name].examples.items())


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f".TP\n{head}\n{_text(told)}\n" for head, told in rows)


def _sentence(command: click.Command) -> str:
    """The line that introduces it, as whatis shows it: no capital, no full stop."""
    line = str(command.help).split("\n")[0].rstrip(".")
    return line[0].lower() + line[1:]


def _text(text: str) -> str:
    """Text in which nothing means anything to roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti")
    return text if text[:1] not in (".", "'") else f"\\&{text}"
