"""Whether a patch module declares something that makes sense, before anything relies on it."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from patcher.patch import Patch, PatchState
from patcher.versions import some_version

TEXTS = ("title", "why", "how", "upstream", "removal")


def fault(declared: object, name: str) -> str:
    """What is wrong with what ``patches/NAME.py`` declares as PATCH; empty where nothing is."""
    wanted = name.replace("_", "-")
    if not isinstance(declared, Patch):
        return "defines no PATCH that is a Patch"
    patch = declared
    if patch.id != wanted:
        return f"has the id {patch.id!r}; the name of the file makes it {wanted!r}"
    empty = [text for text in TEXTS if not str(getattr(patch, text)).strip()]
    if empty:
        return f"says nothing under {empty[0]}"
    if "\n" in patch.title:
        return "has a title of more than one line"
    for file in (patch.file, *(neighbour.file for neighbour in patch.neighbours)):
        parts = PurePosixPath(file).parts
        if parts[:1] != ("vllm",) or ".." in parts or not file.endswith(".py"):
            return f"names {file!r}, which is no Python file of the package vllm"
    ids = [rewrite.id for rewrite in patch.rewrites]
    if not ids:
        return "has no rewrites"
    if len(set(ids)) != len(ids):
        return f"has two rewrites of one id: {', '.join(ids)}"
    if any(rewrite.places < 1 for rewrite in patch.rewrites):
        return "has a rewrite that accounts for no place"
    for digest, state in patch.known.items():
        if not re.fullmatch("[0-9a-f]{64}", digest):
            return f"knows {digest!r}, which is no sha256"
        if state not in (PatchState.NEEDED, PatchState.FIXED):
            return f"knows {digest[:8]}... as {state}; a whole file is needed or fixed"
    try:
        some = some_version(patch.versions)
    except ValueError:
        return f"is for the versions {patch.versions!r}, which is no PEP 440 specifier"
    return "" if some else f"is for the versions {patch.versions!r}, which no version is"
