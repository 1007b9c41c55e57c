"""``python -m tests.known [PATCH]...``: writes the table of known files of each patch.

Made from the released wheels, all of them, and checked in as ``patches/NAME/known.json``. With
``--check`` nothing is written, and a table that is not what it would be made is an error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from glmpatch import catalogue
from glmpatch.catalogue import SCHEMA, TABLE
from glmpatch.patch import Patch, PatchState, path_in, paths_of
from glmpatch.source import form, sha256
from glmpatch.source.plan import make_plan
from tests.support import releases

Release = tuple[str, Callable[[str], bytes | None]]
"""A release, and what reads one of its files."""


def make(patch: Patch, every: Sequence[Release]) -> dict[str, Any]:
    """The table of a patch, from the files of all releases, oldest first."""
    rows: dict[str, dict[str, Any]] = {}
    beside: dict[str, dict[str, Any]] = {}
    elsewhere: dict[str, list[str]] = {}
    for name, read in every:
        if not patch.covers(name):
            for data in filter(None, map(read, paths_of(patch.file))):
                elsewhere.setdefault(sha256(data), []).append(name)
            continue
        file = patch.path(name)
        row = row_of(patch, name, file, content(patch, name, file, read))
        kept = rows.setdefault(f"{file} {row['sha256']}", row)
        kept["releases"].append(name)
        assert {**kept, "releases": 0} == {**row, "releases": 0}, (patch.id, name)
        for file in (path_in(each.file, name) for each in patch.neighbours):
            data = content(patch, name, file, read)
            digest = sha256(data)
            if f"{file} {digest}" not in beside:
                found = {"file": file, "sha256": digest, "releases": [], "form": ""}
                beside[f"{file} {digest}"] = {**found, "form": form.read(data).digest}
            beside[f"{file} {digest}"]["releases"].append(name)
    return {
        "schema": SCHEMA,
        "files": list(rows.values()),
        "neighbours": list(beside.values()),
        "elsewhere": elsewhere,
    }


def content(patch: Patch, name: str, file: str, read: Callable[[str], bytes | None]) -> bytes:
    data = read(file)
    assert data is not None, f"{patch.id}: vLLM {name} has no {file}"
    return data


def row_of(patch: Patch, name: str, file: str, data: bytes) -> dict[str, Any]:
    plan = make_plan(patch, data, name)
    assert plan.state in (PatchState.NEEDED, PatchState.FIXED), (patch.id, name, plan.findings)
    again = make_plan(patch, plan.after, name)
    assert again.state is PatchState.FIXED, (patch.id, name, again.findings)
    right = form.read(plan.after)
    return {
        "file": file,
        "sha256": sha256(data),
        "releases": [],
        "state": plan.state.value,
        "findings": [[f.rewrite, f.state.value, f.line] for f in plan.findings],
        "mended": sha256(plan.after),
        "form": right.digest,
        "parts": {part.name: part.digest for part in right.parts},
    }


def written(table: dict[str, Any]) -> str:
    """The text of a table: one line for each file."""
    lines = []
    for key, value in table.items():
        if isinstance(value, list) and value:
            rows = ",\n".join(json.dumps(row) for row in value)
            lines.append(f"{json.dumps(key)}: [\n{rows}\n]")
        elif isinstance(value, dict) and value:
            rows = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            lines.append(f"{json.dumps(key)}: {{\n{rows}\n}}")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def path(patch: Patch) -> Path:
    return Path(catalogue.__file__).parent / "patches" / patch.name / TABLE


def released() -> list[Release]:
    """All releases, read from the cache that the tests share."""
    releases.trees()

    def reader(name: str) -> Callable[[str], bytes | None]:
        return lambda file: releases.read(name, file)

    return [(name, reader(name)) for name in releases.names()]


def main(*arguments: str) -> int:
    check = "--check" in arguments
    wanted = [each for each in arguments if not each.startswith("-")]
    every, stale = released(), []
    for patch in catalogue.select_patches(wanted):
        text, file = written(make(patch, every)), path(patch)
        if not file.exists() or file.read_text("utf-8") != text:
            stale.append(patch.id)
            if not check:
                file.write_text(text, "utf-8")
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'none'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
