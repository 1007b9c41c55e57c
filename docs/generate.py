"""Writes ``docs/patches.md`` from the patches' own data, and the manual page beside it.

``python -m docs.generate``
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from docs import manual
from glmpatch.catalogue import load_patches
from glmpatch.patch import Answers, Patch, paths_of
from glmpatch.proof.kinds.answers import questions
from glmpatch.symptoms import SILENT
from tests.matrix import table
from tests.matrix.table import Table

SHOWN = {"needed": "**needed**", "not-applicable": "-"}
PAGE = Path(__file__).with_name("patches.md")
HEAD = """\
# Patches

<!-- Written by `python -m docs.generate` from patches/ and tests/matrix/table.json. -->

`glmpatch explain PATCH` prints the same. Which release needs which patch stands
[below](#releases).
"""
RELEASES = """\
## Releases

Every release on the registry from 0.6.0 on, as a plain reading of its sources says; glmpatch is
held against it with `python -m tests.matrix`. *needed*: the release has the defect and the patch
mends it. *fixed*: upstream has mended it. A dash: no such file, or nothing there that the patch
could mend. Releases that are alike stand in one line. In a release that is not here no file is
known, and only a proof vouches for one.
"""
TELL = """\
### How one can tell

The lines that each of these rests on are in `tests/matrix/table.json`.
"""


def page() -> str:
    patches = load_patches()
    known = table.load()
    parts = [HEAD, *map(_patch, patches), RELEASES, _table(patches, known), TELL]
    parts += [_reasons(patch, known) for patch in patches]
    return "\n".join(parts)


def _patch(patch: Patch) -> str:
    rewrites = "\n".join(
        f"- `{each.id}`: {each.title}" + (f" (vLLM {each.versions})" if each.versions else "")
        for each in patch.rewrites
    )
    files = "<br>".join(f"`{path}`" for path in paths_of(patch.file))
    beside = [path for each in patch.neighbours for path in paths_of(each.file)]
    caution = (
        f"\n**Not advised**, and applied only by name: {' '.join(patch.caution.split())}\n"
        if patch.caution
        else ""
    )
    symptoms = "\n".join(f"- {_symptom(each)}" for each in patch.symptoms)
    return f"""\
## {patch.id}

**{patch.title}**

{symptoms}

{patch.why}
{caution}

{patch.how}

{rewrites}

| | |
|---|---|
| vLLM | `{patch.versions}` |
| file | {files} |
| counts on | {", ".join(f"`{each}`" for each in beside) or "nothing else"} |
| proof | {_proof(patch)} |
| upstream | <{patch.upstream}> |
| removal | {patch.removal} |
"""


def _symptom(text: str) -> str:
    silent = text.startswith(SILENT)
    return text.removeprefix(SILENT).strip() if silent else f"`{text}`"


def _proof(patch: Patch) -> str:
    proof = patch.proof
    if isinstance(proof, Answers):
        count = len(questions(proof))
        return f"{count} questions with known answers, put to {proof.about}"
    return (
        f"the numbers of `{proof.architecture}` against Transformers {proof.transformers} or newer"
    )


def _table(patches: tuple[Patch, ...], known: Table) -> str:
    lines = [
        "| vLLM | " + " | ".join(patch.id for patch in patches) + " |",
        "|---" * (len(patches) + 1) + "|",
    ]
    for cells, alike in groupby(known.releases, lambda r: _cells(r, patches, known)):
        span = list(alike)
        lines.append(f"| {_span(span[0], span[-1])} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cells(release: str, patches: tuple[Patch, ...], known: Table) -> tuple[str, ...]:
    cells = [known.row(release, patch.id).cell for patch in patches]
    return tuple(SHOWN.get(cell, cell) for cell in cells)


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"


def _reasons(patch: Patch, known: Table) -> str:
    lines = [f"`{patch.id}`", ""]
    for row in known.rows:
        if row.patch == patch.id:
            lines.append(f"- {_span(row.first, row.last)}, {row.cell}: {row.why}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    manual.PAGE.write_text(manual.page(), "utf-8")
