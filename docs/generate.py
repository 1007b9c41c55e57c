"""Writes ``docs/patches.md`` from the patches' own data, and the manual page beside it.

``python -m docs.generate``
"""

from __future__ import annotations

from pathlib import Path

from docs import manual
from patcher.patch import Behaviour, Patch, load_patches
from tests.matrix import table
from tests.matrix.table import Table

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
mends it. *fixed*: upstream's form, which glmpatch recognises as right. *not-applicable*: no such
file, or nothing there that the patch could mend. A release that is not here is judged by the
structure of its files.
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
    rewrites = "\n".join(f"- `{each.id}`: {each.title}" for each in patch.rewrites)
    return f"""\
## {patch.id}

**{patch.title}**

{patch.why}

{patch.how}

{rewrites}

| | |
|---|---|
| vLLM | `{patch.versions}` |
| file | `{patch.file}` |
| counts on | {", ".join(f"`{each.file}`" for each in patch.neighbours) or "nothing else"} |
| proof | {_proof(patch)} |
| upstream | <{patch.upstream}> |
| removal | {patch.removal} |
"""


def _proof(patch: Patch) -> str:
    proof = patch.proof
    if isinstance(proof, Behaviour):
        return f"{len(proof.cases)} questions to the configuration in `{proof.module}`"
    return (
        f"the numbers of `{proof.architecture}` against Transformers {proof.transformers} or newer"
    )


def _table(patches: tuple[Patch, ...], known: Table) -> str:
    lines = [
        "| vLLM | " + " | ".join(patch.id for patch in patches) + " |",
        "|---" * (len(patches) + 1) + "|",
    ]
    for release in known.releases:
        cells = [known.row(release, patch.id).cell for patch in patches]
        cells = [f"**{cell}**" if cell == "needed" else cell for cell in cells]
        lines.append(f"| {release} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _reasons(patch: Patch, known: Table) -> str:
    lines = [f"`{patch.id}`", ""]
    for row in known.rows:
        if row.patch == patch.id:
            span = row.first if row.first == row.last else f"{row.first} to {row.last}"
            lines.append(f"- {span}, {row.cell}: {row.why}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    manual.PAGE.write_text(manual.page(), "utf-8")
