"""A wheel of vLLM: its name, RECORD and metadata, and whether its files are those of RECORD."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from glmpatch.errors import Exit, Failure
from glmpatch.fleet.archive import Archive, Member, Unsound
from glmpatch.language import _

PROJECT = "vllm"
HASHES = ("sha256", "sha384", "sha512")
SIGNATURES = ("RECORD.jws", "RECORD.p7s")
_VERSION = re.compile(rb"^Version:[ \t]*([^\r\n]*?)[ \t]*(?=\r?$)", re.MULTILINE | re.IGNORECASE)
_NAME = re.compile(rb"^Name:[ \t]*([^\r\n]*?)[ \t]*(?=\r?$)", re.MULTILINE | re.IGNORECASE)
_BODY = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True)
class Name:
    """The name of a wheel's file, taken apart."""

    distribution: str
    version: str
    tags: str
    """Build tag, if any, and what it is for, as the name has them."""


def name_of(path: Path) -> Name:
    """Take a wheel's name apart.

    Raises:
        Failure: no name of a wheel, or not of vLLM.
    """
    try:
        project, version, _build, _for = parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        raise Failure(
            Exit.USAGE,
            _("{name} is no name of a wheel", name=path.name),
            _("a wheel keeps the name under which it was downloaded: vllm-VERSION-TAGS.whl"),
        ) from error
    if project != PROJECT:
        raise Failure(
            Exit.USAGE,
            _(
                "{name} is a wheel of {project}, not of {wanted}",
                name=path.name,
                project=project,
                wanted=PROJECT,
            ),
            _("glmpatch repairs vLLM alone"),
        )
    distribution, _version, tags = path.name.removesuffix(".whl").split("-", 2)
    return Name(distribution, str(version), tags)


class Wheel:
    """An open archive as a wheel.

    Raises:
        Unsound: no wheel, or one whose lists do not agree; words that follow its name.
    """

    def __init__(self, archive: Archive, name: Name) -> None:
        self.archive, self.name = archive, name
        self.info = self._find_info()
        self._expected: dict[str, tuple[str, str]] = {}
        self.record = self._read_record()
        self.metadata = self.read(f"{self.info}/METADATA")
        self._check_metadata()

    @property
    def files(self) -> Mapping[str, Member]:
        return {n: m for n, m in self.archive.members.items() if not m.is_folder}

    def read(self, path: str) -> bytes:
        """A file of the wheel, whole, with the hash that RECORD has for it."""
        data = self.archive.read(self.archive.members[path])
        kind, _equals, wanted = self._expected[path][0].partition("=")
        if _text(hashlib.new(kind, data).digest()) != wanted:
            raise _unlike(path)
        return data

    def check_files(self) -> int:
        """Unpack every file, in memory and by blocks, and compare it with RECORD.

        Returns how many they are.
        """
        for path, (digest, _size) in self._expected.items():
            kind, _equals, wanted = digest.partition("=")
            found = hashlib.new(kind)
            for block in self.archive.content(self.archive.members[path]):
                found.update(block)
            if _text(found.digest()) != wanted:
                raise _unlike(path)
        return len(self._expected)

    def _find_info(self) -> str:
        tops = {name.split("/")[0] for name in self.archive.members if "/" in name}
        infos = sorted(top for top in tops if top.endswith(".dist-info"))
        if len(infos) != 1:
            raise Unsound(_("has {count} folders named .dist-info, expected one", count=len(infos)))
        (info,) = infos
        project, _dash, version = info.removesuffix(".dist-info").partition("-")
        if canonicalize_name(project) != PROJECT or not _same(version, self.name.version):
            raise Unsound(_("has the metadata of another wheel: {name}", name=info))
        for file in (f"{info}/{each}" for each in ("METADATA", "WHEEL", "RECORD")):
            if file not in self.archive.members:
                raise Unsound(_("has no {name}", name=file))
        for file in (f"{info}/{each}" for each in SIGNATURES):
            if file in self.archive.members:
                raise Unsound(
                    _(
                        "is signed ({name}), which nobody has given for a repaired wheel",
                        name=file,
                    ),
                    _(
                        "repair a wheel without a signature, such as the registry's; or take this "
                        "one out with its owner's consent: {command}",
                        command="zip -d FILE.whl " + file,
                    ),
                )
        return info

    def _read_record(self) -> tuple[tuple[str, str, str], ...]:
        """The rows of RECORD: path, hash, size. Each file must have one, and no other may."""
        own = f"{self.info}/RECORD"
        try:
            text = self.archive.read(self.archive.members[own]).decode("utf-8")
            rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
        except (UnicodeDecodeError, csv.Error) as error:
            raise Unsound(_("has a RECORD that cannot be read: {error}", error=error)) from error
        found = []
        for row in rows:
            if len(row) != 3:
                raise Unsound(
                    _(
                        "has a line of {count} fields in RECORD, for {name}",
                        count=len(row),
                        name=row[0],
                    )
                )
            path, digest, size = row
            if path in self._expected:
                raise Unsound(_("has two lines for {name} in RECORD", name=path))
            found.append((path, digest, size))
            if path == own:
                continue
            member = self.archive.members.get(path)
            if member is None or member.is_folder:
                raise Unsound(_("has a line for {name} in RECORD, and no such file", name=path))
            if digest.partition("=")[0] not in HASHES:
                raise Unsound(
                    _("has no hash for {name} in RECORD that can be relied on", name=path)
                )
            if size != str(member.size):
                raise Unsound(
                    _(
                        "has a {name} of {size} bytes, RECORD says {said}",
                        name=path,
                        size=member.size,
                        said=size or _("none"),
                    )
                )
            self._expected[path] = (digest, size)
        unlisted = sorted(set(self.files) - set(self._expected) - {own})
        if unlisted:
            raise Unsound(_("has no line for {name} in RECORD", name=unlisted[0]))
        return tuple(found)

    def _check_metadata(self) -> None:
        head = _BODY.split(self.metadata, maxsplit=1)[0]
        names, versions = _NAME.findall(head), _VERSION.findall(head)
        if len(names) != 1 or len(versions) != 1:
            raise Unsound(_("has no METADATA with one name and one version"))
        name, version = names[0].decode("latin-1"), versions[0].decode("latin-1")
        if canonicalize_name(name) != PROJECT or not _same(version, self.name.version):
            raise Unsound(
                _(
                    "is {name} {version} by its METADATA, and something else by its name",
                    name=name,
                    version=version,
                )
            )

    def metadata_as(self, version: str) -> bytes:
        """METADATA with another version, and no other byte changed."""
        found = _VERSION.search(self.metadata)
        assert found is not None
        return self.metadata[: found.start(1)] + version.encode() + self.metadata[found.end(1) :]


def record_with(rows: list[tuple[str, str, str]]) -> bytes:
    """RECORD with these rows."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def row(path: str, data: bytes) -> tuple[str, str, str]:
    """The row of a file in RECORD."""
    return path, f"sha256={_text(hashlib.sha256(data).digest())}", str(len(data))


def _text(digest: bytes) -> str:
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def _unlike(path: str) -> Unsound:
    return Unsound(_("has a {name} that is not the one of its RECORD", name=path))


def _same(version: str, wanted: str) -> bool:
    try:
        return Version(version) == Version(wanted)
    except InvalidVersion:
        return False
