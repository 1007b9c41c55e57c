"""``python -m tests.translations``: bring the catalogues up to date with the source.

New messages are added without a translation, and those that are gone are dropped.
``tests/test_language.py`` fails while a message has no translation.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages import extract, pofile
from babel.messages.catalog import Catalog

from glmpatch.command.cli import cli
from glmpatch.language import entries
from glmpatch.symptoms import SILENT

ROOT = Path(__file__).resolve().parents[1]
LOCALES = ROOT / "patcher" / "glmpatch" / "locale"
"""Of this checkout, wherever the tool that is imported stands."""
FOLDERS = ("patcher/glmpatch", "patches")
UNPATCHED = ROOT / "patches" / "unpatched.json"
COMMANDS = "patcher/glmpatch/command/cli.py"
KEYWORDS = {"_": None, "N_": None}


def messages() -> dict[str, list[str]]:
    """Every message in the source, and the files that have it."""
    found: dict[str, list[str]] = {}
    for file in sources():
        with file.open("rb") as stream:
            for _line, message, _comments, _context in extract.extract(
                "python", stream, keywords=KEYWORDS
            ):
                text = message if isinstance(message, str) else message[0]
                places = found.setdefault(text, [])
                name = str(file.relative_to(ROOT))
                if name not in places:
                    places.append(name)
    for text in docstrings():
        found.setdefault(text, [COMMANDS])
    for text in data():
        found.setdefault(text, []).append(str(UNPATCHED.relative_to(ROOT)))
    return found


def docstrings() -> Iterator[str]:
    """The paragraphs of the commands' own help, which Click takes from their docstrings."""
    for command in (cli, *cli.commands.values()):
        for paragraph in str(command.help).split("\n\n"):
            yield " ".join(paragraph.split())


def data() -> Iterator[str]:
    """The messages that stand in no program: what is known and not mended by any patch."""
    for each in json.loads(UNPATCHED.read_text("utf-8")):
        yield from (each["what"], each["helps"])
        yield from (text for text in each["symptoms"] if text.startswith(SILENT))


def sources() -> Iterator[Path]:
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            if "patches" not in file.relative_to(ROOT / folder).parts:
                yield file


def catalogues() -> list[Path]:
    return sorted(LOCALES.glob("*/LC_MESSAGES/glmpatch.po"))


def update(file: Path, others: list[Path]) -> None:
    """Write a catalogue anew: what it has, and what other files of its format have more."""
    known = {}
    for each in (*others, file):
        known.update({m: t for m, t in entries(each.read_text("utf-8")) if t})
    catalog = Catalog(locale=file.parts[-3], project="glmpatch", fuzzy=False)
    for message, places in messages().items():
        catalog.add(message, known.get(message, ""), locations=[(place, 0) for place in places])
    with file.open("wb") as stream:
        # Neither lines nor times: they would change with every commit.
        pofile.write_po(stream, catalog, width=100, omit_header=True, include_lineno=False)


def main() -> None:
    for file in catalogues():
        update(file, [Path(each) for each in sys.argv[1:]])
        missing = [m for m, text in entries(file.read_text("utf-8")) if m and not text]
        print(f"{file.relative_to(ROOT)}: {len(missing)} without a translation")


if __name__ == "__main__":
    main()
