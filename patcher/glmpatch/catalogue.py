"""Finds the patches, checks what they declare, selects them; and the table of known files.

The table of a patch, ``known.json`` beside it, is written by ``python -m tests.known`` from the
released wheels. Whoever asks only for what is in it needs no parser.
"""

from __future__ import annotations

import functools
import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from glmpatch.errors import Exit, Failure
from glmpatch.language import _
from glmpatch.patch import Patch, PatchState, paths_of
from glmpatch.versions import some_version

TEXTS = ("title", "why", "how", "upstream", "removal")
SCHEMA = 1
TABLE = "known.json"

# -- the patches --------------------------------------------------------------------------------


def load_patches(warn: Callable[[str, str], None] | None = None) -> tuple[Patch, ...]:
    """All patches, in the order of their names.

    Args:
        warn: called with problem and hint for each folder in ``patches`` that is no good, the
            others being loaded all the same. Without it the first such folder is a Failure.
    """
    from glmpatch import patches

    loaded: list[Patch] = []
    for name in sorted(info.name for info in pkgutil.iter_modules(patches.__path__)):
        try:
            loaded.append(_load(name, loaded))
        except Failure as failure:
            if warn is None:
                raise
            warn(failure.message, failure.hint)
    return tuple(loaded)


def _load(name: str, loaded: Sequence[Patch]) -> Patch:
    """The patch of one folder, which must get along with those that are loaded already."""
    try:
        declared = getattr(importlib.import_module(f"glmpatch.patches.{name}.patch"), "PATCH", None)
        problem = fault(declared, name)
    except (Exception, SystemExit) as error:
        declared, problem = (
            None,
            _("cannot be imported: {kind}: {error}", kind=type(error).__name__, error=error),
        )
    if isinstance(declared, Patch) and not problem:
        problem = next(filter(None, (_clash(declared, other) for other in loaded)), "")
        if not problem:
            return declared
    raise Failure(
        Exit.INTERNAL,
        _(
            "patches/{folder}/patch.py {problem}; this patch is left out",
            folder=name,
            problem=problem,
        ),
        _("CONTRIBUTING.md tells what a patch has to declare"),
    )


def _clash(one: Patch, other: Patch) -> str:
    """Within one release a file has one patch: each would undo what the other's receipt says."""
    shared = set(paths_of(one.file)) & set(paths_of(other.file))
    if shared and some_version(f"{one.versions},{other.versions}"):
        return _(
            "mends {file}, as {patch} does, in the same releases",
            file=min(shared),
            patch=other.id,
        )
    return ""


def select_patches(
    names: Sequence[str], warn: Callable[[str, str], None] | None = None
) -> tuple[Patch, ...]:
    """The patches with these names, or all of them; a wrong name is wrong usage."""
    every = load_patches(warn)
    by_id = {patch.id: patch for patch in every}
    for name in names:
        if name not in by_id:
            close = near(name, every)
            hint = (
                _("did you mean {patch}?", patch=close)
                if close
                else _("the patches are: {patches}", patches=", ".join(by_id))
            )
            raise Failure(Exit.USAGE, _("there is no patch named {name}", name=repr(name)), hint)
    return tuple(by_id[name] for name in dict.fromkeys(names)) or every


def near(name: str, patches: Sequence[Patch]) -> str:
    """The patch whose name is nearest to one that is none; empty where none is near."""
    import difflib

    return "".join(difflib.get_close_matches(name, [patch.id for patch in patches], n=1))


def fault(declared: object, name: str) -> str:
    """What is wrong with the PATCH that ``patches/NAME/patch.py`` declares; empty if nothing is."""
    wanted = name.replace("_", "-")
    if not isinstance(declared, Patch):
        return _("defines no PATCH that is a Patch")
    patch = declared
    if patch.id != wanted:
        return _(
            "has the id {id}; the name of its folder makes it {wanted}",
            id=repr(patch.id),
            wanted=repr(wanted),
        )
    empty = [text for text in TEXTS if not str(getattr(patch, text)).strip()]
    if not patch.symptoms:
        empty.append("symptoms")
    if not patch.advised and not patch.caution:
        empty.append(_("caution, though it is not advised"))
    if empty:
        return _("says nothing under {field}", field=empty[0])
    if "\n" in patch.title:
        return _("has a title of more than one line")
    files = [patch.file, *(neighbour.file for neighbour in patch.neighbours)]
    for file in (path for each in files for path in paths_of(each)):
        parts = PurePosixPath(file).parts
        if parts[:1] != ("vllm",) or ".." in parts or not file.endswith(".py"):
            return _("names {file}, which is no Python file of the package vllm", file=repr(file))
    ids = [rewrite.id for rewrite in patch.rewrites]
    if not ids:
        return _("has no rewrites")
    if len(set(ids)) != len(ids):
        return _("has two rewrites of one id: {ids}", ids=", ".join(ids))
    specifiers = [patch.versions, *(r.versions for r in patch.rewrites if r.versions)]
    specifiers += [key for file in files if not isinstance(file, str) for key in file]
    for specifier in specifiers:
        try:
            some = some_version(specifier)
        except ValueError:
            return _(
                "is for the versions {versions}, which is no PEP 440 specifier",
                versions=repr(specifier),
            )
        if not some:
            return _(
                "is for the versions {versions}, which no version is", versions=repr(specifier)
            )
    return ""


# -- the table of known files -------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Row:
    """One file as it was released.

    ``findings`` are (rewrite, state, line) of each place. ``mended`` is the sha256 of the file
    with all of the patch's rewrites made, ``form`` the form of that file, which is the right one,
    and ``parts`` map the names of its definitions to their digests.
    """

    file: str
    sha256: str
    releases: tuple[str, ...]
    state: PatchState
    findings: tuple[tuple[str, str, int], ...]
    mended: str
    form: str
    parts: Mapping[str, str]


@dataclass(frozen=True, eq=False, repr=False)
class Beside:
    """A neighbour as it was released."""

    file: str
    sha256: str
    releases: tuple[str, ...]
    form: str


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """What is known of the files of one patch. ``elsewhere`` maps the sha256 of the same file in
    releases that the patch is not for to those releases; one of ``rows`` may be among them."""

    rows: tuple[Row, ...] = ()
    neighbours: tuple[Beside, ...] = ()
    elsewhere: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, version: str | None) -> tuple[Row, ...]:
        """The files of a release; its local part does not matter."""
        name = release(version)
        return tuple(row for row in self.rows if name in row.releases)

    def beside(self, file: str, version: str | None) -> tuple[Beside, ...]:
        """A neighbour in a release."""
        name = release(version)
        return tuple(b for b in self.neighbours if b.file == file and name in b.releases)

    def defect(self, digest: str, version: str | None) -> Row | None:
        """The released file with this sha256 that has the defect, whatever its release.

        Not in a release that came with this very file and is none of the patch's: there it is
        right, or dropping the defect would mend nothing.
        """
        if release(version) in self.elsewhere.get(digest, ()):
            return None
        needed = (row for row in self.rows if row.state is PatchState.NEEDED)
        return next((row for row in needed if row.sha256 == digest), None)

    def origin(self, digest: str) -> tuple[str, ...]:
        """The releases whose file has this sha256."""
        of_rows = (row.releases for row in self.rows if digest == row.sha256)
        return next(of_rows, self.elsewhere.get(digest, ()))


def release(version: str | None) -> str:
    return (version or "").partition("+")[0]


def table(patch: Patch) -> Table:
    """The table of a patch; an empty one where none was written yet."""
    return _table(patch.name)


@functools.cache
def _table(name: str) -> Table:
    path = Path(__file__).parent / "patches" / name / TABLE
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Table()
    except (OSError, ValueError) as error:
        raise Failure(
            Exit.INTERNAL,
            _("the table {path} cannot be read: {error}", path=path, error=error),
            _("reinstall glmpatch"),
        ) from error
    return parse_table(data)


def parse_table(data: Mapping[str, Any]) -> Table:
    return Table(
        rows=tuple(
            Row(
                file=each["file"],
                sha256=each["sha256"],
                releases=tuple(each["releases"]),
                state=PatchState(each["state"]),
                findings=tuple((r, s, n) for r, s, n in each["findings"]),
                mended=each["mended"],
                form=each["form"],
                parts=each["parts"],
            )
            for each in data["files"]
        ),
        neighbours=tuple(
            Beside(each["file"], each["sha256"], tuple(each["releases"]), each["form"])
            for each in data["neighbours"]
        ),
        elsewhere={digest: tuple(names) for digest, names in data["elsewhere"].items()},
    )
