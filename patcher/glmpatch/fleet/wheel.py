"""A repaired wheel out of a released one.

Such a wheel outlives a reinstall, shows in every inventory, and its RECORD fits. Its members are
the released ones, compressed as they were; nothing of vLLM is run. Its version is the released one
with a local part, so that whoever asks for ``vllm==0.8.4`` gets it where both are offered.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import hashlib
import os
import secrets
import shlex
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmpatch import catalogue
from glmpatch.errors import Exit, Failure
from glmpatch.fleet.archive import BLOCK, Archive, Unsound, Writer
from glmpatch.fleet.contents import Name, Wheel, name_of, record_with, row
from glmpatch.fleet.released import is_released
from glmpatch.language import N_, _
from glmpatch.patch import Patch, paths_of
from glmpatch.site import wheel_receipt as receipt
from glmpatch.site.wheel_receipt import Repair
from glmpatch.source import sha256

if TYPE_CHECKING:
    from glmpatch.source.plan import Plan

MARK = "glmpatch"
"""Begins what is added to the version."""
HINTS = {
    errno.ENOSPC: N_("make room on that disk, or name another folder with -o"),
    errno.EDQUOT: N_("make room in that quota, or name another folder with -o"),
}
OTHERWISE = N_("name a folder that you may write to with -o")

Prove = Callable[[str, Sequence[tuple[Patch, "Plan"]]], Mapping[str, Mapping[str, Any]]]
"""Proves what is about to be written: version of vLLM, patches with their plans. Returns the kind
of proof by the patch's id, with nothing in it that differs from run to run, or raises Failure."""


@dataclass(frozen=True)
class Repaired:
    """What has become of a wheel."""

    source: Path
    path: Path | None
    """The repaired wheel; None where there was nothing to repair, and nothing was written."""
    version: str
    """Of the repaired wheel; of the source, where there is none."""
    repaired: tuple[Repair, ...]
    right: tuple[str, ...]
    """Patches whose file is right already."""
    skipped: tuple[str, ...]
    """Patches that are not for this release."""
    released: bool = False
    """Whether the whole source is one of the registry's; else each file was compared with RECORD.
    Where nothing was written, only the files of the patches were looked at."""
    written: bool = False
    """False where the very same wheel was there already."""


def wheel(
    source: Path,
    folder: Path,
    names: Sequence[str] = (),
    prove: Prove | None = None,
    warn: Callable[[str, str], None] | None = None,
) -> Repaired:
    """``glmpatch wheel SOURCE -o FOLDER [NAME]...``

    Without names, every patch but those that are applied only by name.

    Raises:
        Failure: as ``repair_wheel``; or a name is wrong.
    """
    patches = catalogue.select_patches(names, warn)
    return repair_wheel(source, folder, [p for p in patches if names or p.advised], prove)


def repair_wheel(
    source: Path, folder: Path, patches: Sequence[Patch], prove: Prove | None = None
) -> Repaired:
    """Write the wheel ``source`` with these patches into ``folder``.

    Args:
        source: a wheel of vLLM, under its own name.
        folder: where the repaired wheel goes; must be there.
        patches: those to make. One that is not for this release is skipped.
        prove: what judges the repaired files before anything is written.

    Raises:
        Failure: 2, not a wheel of vLLM; 3, one that is damaged or refused, or cannot be read or
            written; 4, a release that is not covered has the defect; 5, a file is not the released
            one; 70, the result is not the recorded one; whatever ``prove`` raises. Nothing is
            written then, and nothing left behind.
    """
    name = name_of(source)
    with _as_failure(source, name), Archive(source) as archive, _Hashing(archive) as hashing:
        found = Wheel(archive, name)
        plans, right, skipped = _plan(found, patches)
        if not plans:
            return Repaired(source, None, name.version, (), right, skipped)
        if _is_ours(found):
            raise Failure(
                Exit.USAGE,
                _(
                    "{wheel} is a repaired wheel already, and lacks {patches}",
                    wheel=source.name,
                    patches=", ".join(patch.id for patch, _plan in plans),
                ),
                _("repair the released wheel with all the patches that are wanted"),
            )
        _check_folder(folder)
        digest = hashing.result()
        released = is_released(digest)
        if not released:
            found.check_files()
        proofs = prove(name.version, plans) if prove else {}
        repairs = tuple(_repair(patch, plan, name, proofs.get(patch.id)) for patch, plan in plans)
        version = repaired_version(name.version, repairs)
        path = folder / f"{name.distribution}-{version}-{name.tags}.whl"
        changed = {
            repair.file: plan.after for repair, (_patch, plan) in zip(repairs, plans, strict=True)
        }
        note = receipt.write(source.name, digest, version, repairs)
        written = _write(path, found, version, changed, note)
    return Repaired(source, path, version, repairs, right, skipped, released, written)


def repaired_version(version: str, repairs: Sequence[Repair]) -> str:
    """The version of a repaired wheel: ``0.8.4+glmpatch.2.x5c1f2a0``.

    The number counts the repairs, so that of two wheels the one with more is the newer one for
    pip and uv. What follows is of a digest over patches, files and results: another set, or
    another result, is another version. The ``x`` keeps it from being read as a number; and vLLM,
    which looks for words such as ``cpu`` in its version, finds none in a hexadecimal number.
    """
    lines = sorted(f"{each.patch} {each.file} {each.after}\n" for each in repairs)
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()[:7]
    return f"{version}{'.' if '+' in version else '+'}{MARK}.{len(lines)}.x{digest}"


# -- what is to be done -------------------------------------------------------------------------


def _plan(
    found: Wheel, patches: Sequence[Patch]
) -> tuple[list[tuple[Patch, Plan]], tuple[str, ...], tuple[str, ...]]:
    """The plans, the ids of patches whose file is right, and of those that do not apply."""
    version = found.name.version
    needed: list[tuple[Patch, bytes, str]] = []
    right, skipped, unknown, outside = [], [], {}, {}
    for patch in patches:
        table = catalogue.table(patch)
        if not patch.covers(version):
            there = [path for path in paths_of(patch.file) if path in found.files]
            if any(table.defect(sha256(found.read(path)), version) for path in there):
                outside[patch.id] = there[0]
            skipped.append(patch.id)
            continue
        strange = _strange(found, patch, table)
        file = patch.path(version)
        if strange:
            unknown[patch.id] = strange
            continue
        data = found.read(file)
        (after,) = {r.mended for r in _rows(table, patch, version) if sha256(data) in _ends(r)}
        if after == sha256(data):
            right.append(patch.id)
        else:
            needed.append((patch, data, after))
    _refuse(found, unknown, outside, [each[0].id for each in needed])
    return [_made(*each, version) for each in needed], tuple(right), tuple(skipped)


def _rows(table: catalogue.Table, patch: Patch, version: str) -> list[catalogue.Row]:
    return [each for each in table.of(version) if each.file == patch.path(version)]


def _ends(known: catalogue.Row) -> tuple[str, str]:
    return known.sha256, known.mended


def _strange(found: Wheel, patch: Patch, table: catalogue.Table) -> str:
    """The first file of a patch that is not as released, nor as repaired; empty if there is none.

    A wheel of whose files one is unknown is not the released one; only a proof where it is
    installed could tell whether the repair is right there.
    """
    version = found.name.version
    known = {patch.path(version): {d for r in _rows(table, patch, version) for d in _ends(r)}}
    for file in patch.beside(version):
        known[file] = {each.sha256 for each in table.beside(file, version)}
    for file, digests in known.items():
        if file not in found.files or sha256(found.read(file)) not in digests:
            return file
    return ""


def _refuse(
    found: Wheel, unknown: Mapping[str, str], outside: Mapping[str, str], others: Sequence[str]
) -> None:
    name = found.name
    if unknown:
        patch, file = next(iter(unknown.items()))
        if file in found.files:
            message = _(
                "{patch}: {file} is not the one of the released vLLM {version}; nothing was "
                "written",
                patch=patch,
                file=file,
                version=name.version,
            )
        else:
            message = _(
                "{patch}: {file} is not in this vLLM {version}; nothing was written",
                patch=patch,
                file=file,
                version=name.version,
            )
        command = f"glmpatch apply --verify {patch}"
        if others:
            hint = _(
                "{patches} can be made by name; install this wheel, then: {command}",
                patches=", ".join(others),
                command=command,
            )
        else:
            hint = _("install this wheel, then: {command}", command=command)
        raise Failure(Exit.DRIFT, message, hint)
    if outside:
        patch, file = next(iter(outside.items()))
        command = f"glmpatch apply --any-version --verify {patch}"
        raise Failure(
            Exit.VERSION,
            _(
                "{patch}: {file} has the defect, but vLLM {version} is not one of the releases "
                "that this patch is for; nothing was written",
                patch=patch,
                file=file,
                version=name.version,
            ),
            _("install this wheel, then: {command}", command=command),
        )


def _made(patch: Patch, data: bytes, after: str, version: str) -> tuple[Patch, Plan]:
    from glmpatch.source.plan import make_plan  # imports LibCST

    plan = make_plan(patch, data, version, right={after})
    if sha256(plan.after) != after:
        raise Failure(
            Exit.INTERNAL,
            _(
                "{patch}: the repaired {file} is not the one that was recorded; nothing was "
                "written",
                patch=patch.id,
                file=patch.path(version),
            ),
            _("please report this, with the output of: glmpatch --version"),
        )
    return patch, plan


def _repair(patch: Patch, plan: Plan, name: Name, proof: Mapping[str, Any] | None) -> Repair:
    before, after = sha256(plan.before), sha256(plan.after)
    return Repair(patch.id, patch.path(name.version), plan.broken, before, after, proof)


def _is_ours(found: Wheel) -> bool:
    local = found.name.version.partition("+")[2].split(".")
    return MARK in local or f"{found.info}/{receipt.NAME}" in found.files


# -- the sha256 of the source -------------------------------------------------------------------


class _Hashing:
    """The sha256 of a file, made by a thread while something else is done."""

    def __init__(self, archive: Archive) -> None:
        self._handle, self._hash = archive.file.fileno(), hashlib.sha256()
        self._stop = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Hashing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def result(self) -> str:
        """The sha256, in hexadecimal."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._hash.hexdigest()

    def _run(self) -> None:
        at = 0
        try:
            while not self._stop.is_set() and (block := os.pread(self._handle, BLOCK, at)):
                self._hash.update(block)
                at += len(block)
        except OSError as error:
            self._error = error


# -- writing ------------------------------------------------------------------------------------


def _write(
    path: Path, found: Wheel, version: str, changed: Mapping[str, bytes], note: bytes
) -> bool:
    """Write the repaired wheel; whether it was not there already, with the very same bytes."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with aside.open("xb") as file:
            writer = Writer(file)
            _fill(writer, found, version, changed, note)
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        if not found.archive.is_unchanged():
            raise Unsound(_("was changed while it was read"), _("run glmpatch again"))
        if os.path.lexists(path):
            if path.is_file() and filecmp.cmp(aside, path, shallow=False):
                return False
            raise Failure(
                Exit.TARGET,
                _("{path} is there already, and is another file; nothing was written", path=path),
                _("move it away, or name another folder with -o"),
            )
        os.replace(aside, path)
        _sync(path.parent)
        return True
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()


def _fill(
    writer: Writer, found: Wheel, version: str, changed: Mapping[str, bytes], note: bytes
) -> None:
    """Every member of the source in its order, then the receipt and RECORD."""
    rename = _renaming(found, version)
    info = rename(found.info + "/")
    own, record = f"{info}{receipt.NAME}", f"{found.info}/RECORD"
    changed = {**changed, f"{found.info}/METADATA": found.metadata_as(version)}
    rows = []
    for path, digest, size in found.record:
        if path in changed:
            rows.append(row(rename(path), changed[path]))
        elif path != record:
            rows.append((rename(path), digest, size))
    rows += [row(own, note), (rename(record), "", "")]
    members = found.archive.members
    for path, member in members.items():
        if path in changed:
            writer.add(rename(path), changed[path], member)
        elif path != record:
            writer.copy(found.archive, member, rename(path))
    writer.add(own, note, members[record])
    writer.add(rename(record), record_with(rows), members[record])


def _renaming(found: Wheel, version: str) -> Callable[[str], str]:
    """What a member is called in the repaired wheel: two folders have the version in their name."""
    old = found.info.removesuffix(".dist-info")
    new = f"{old.partition('-')[0]}-{version}"
    folders = {f"{old}{kind}/": f"{new}{kind}/" for kind in (".dist-info", ".data")}

    def rename(path: str) -> str:
        top, slash, rest = path.partition("/")
        return folders.get(top + slash, top + slash) + rest

    return rename


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- errors -------------------------------------------------------------------------------------


def _check_folder(folder: Path) -> None:
    """Before a long proof, rather than after it."""
    try:
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(folder, os.W_OK | os.X_OK):
            read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
            code = errno.EROFS if read_only else errno.EACCES
            raise OSError(code, os.strerror(code))
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> Failure:
    hint = _(HINTS.get(error.errno or 0, OTHERWISE))
    if error.errno == errno.ENOENT:
        hint = _(
            "make that folder first: {command}", command=shlex.join(["mkdir", "-p", str(folder)])
        )
    return Failure(
        Exit.TARGET,
        _(
            "cannot write to {folder}: {error}; nothing was written",
            folder=folder,
            error=error.strerror,
        ),
        hint,
    )


@contextlib.contextmanager
def _as_failure(source: Path, name: Name) -> Iterator[None]:
    """What is wrong with the source as a message."""
    command = f"pip download --no-deps --only-binary=:all: vllm=={name.version}"
    again = _("download it again: {command}", command=command)
    if "+" in name.version:
        again = _("download or build it again")
    try:
        yield
    except Unsound as error:
        raise Failure(
            Exit.TARGET,
            _("{wheel} {problem}; nothing was written", wheel=source.name, problem=error.words),
            error.hint or again,
        ) from error
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        message = _("{path} is no file", path=source)
        raise Failure(Exit.USAGE, message, _("name the wheel itself")) from error
    except OSError as error:
        raise Failure(
            Exit.TARGET,
            _("cannot read {path}: {error}", path=source, error=error.strerror),
            _("run as a user who may read it, from a disk that is whole"),
        ) from error
