"""A zip file, read distrustfully and written plainly. Knows nothing of wheels.

Members travel as they are compressed, which ``zipfile`` cannot do, and no two readers may see
different files in what is read here: the local headers must say what the central directory says.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from glmpatch.language import N_, _

BLOCK = 1 << 20
"""Bytes that are in memory at a time."""
READ_LIMIT = 16 << 20
"""Bytes of the largest member that is read whole."""
LIMIT = 0xFFFFFFFF
"""Sizes from here on need zip64; vLLM's largest wheels have an eighth of it."""
LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
ENCRYPTED, DESCRIPTOR, UTF8, LEVEL = 0x2041, 0x8, 0x800, 0x6
STORED, DEFLATED = 0, 8
SMALLER = N_("repair the installed vLLM instead: glmpatch apply")


class Unsound(Exception):
    """What is wrong with an archive, in words that follow its name; and what to do, if it is not
    to get it again."""

    def __init__(self, words: str, hint: str = "") -> None:
        super().__init__(words)
        self.words, self.hint = words, hint


@dataclass(frozen=True)
class Member:
    """One file or folder of an archive; ``start`` is where its compressed bytes are."""

    name: str
    flags: int
    method: int
    date: int
    """As DOS has it: date << 16 | time."""
    crc: int
    packed: int
    size: int
    attributes: int
    start: int

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


class Archive:
    """An open zip file whose structure has been checked; the contents have not been.

    Raises:
        Unsound: not a zip file, or one that is refused.
        OSError: cannot be read.
    """

    def __init__(self, path: Path) -> None:
        # What waits for a writer, or never ends, is not even opened.
        if stat.S_IFMT(os.stat(path).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise Unsound(_("is not a zip file"))
        with contextlib.ExitStack() as stack:
            self.file: BinaryIO = stack.enter_context(path.open("rb"))
            self.members = {each.name: each for each in _members(self.file)}
            self._status = os.fstat(self.file.fileno())
            stack.pop_all()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def is_unchanged(self) -> bool:
        """Whether nobody has written to the file since it was opened."""
        now, then = os.fstat(self.file.fileno()), self._status
        return (now.st_size, now.st_mtime_ns) == (then.st_size, then.st_mtime_ns)

    def packed(self, member: Member) -> Iterator[bytes]:
        """The bytes of a member as they are compressed."""
        self.file.seek(member.start)
        left = member.packed
        while left:
            block = self.file.read(min(left, BLOCK))
            if not block:
                raise Unsound(_("ends within its member {name}", name=member.name))
            left -= len(block)
            yield block

    def content(self, member: Member) -> Iterator[bytes]:
        """The bytes of a member in blocks; the last one is there only if size and CRC are right."""
        size, crc = 0, 0
        for block in self._inflated(member):
            size, crc = size + len(block), zlib.crc32(block, crc)
            if size > member.size:
                break
            yield block
        if (size, crc) != (member.size, member.crc):
            raise Unsound(
                _("is damaged: its member {name} is not what its checksum says", name=member.name)
            )

    def _inflated(self, member: Member) -> Iterator[bytes]:
        if member.method == STORED:
            yield from self.packed(member)
            return
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            for block in self.packed(member):
                rest = block
                while rest and not inflate.eof:
                    yield inflate.decompress(rest, BLOCK)
                    rest = inflate.unconsumed_tail
            while not inflate.eof and (more := inflate.decompress(b"", BLOCK)):
                yield more
        except zlib.error as error:
            raise Unsound(
                _("is damaged: its member {name}: {error}", name=member.name, error=error)
            ) from error
        if not inflate.eof:
            raise Unsound(
                _("is damaged: its member {name} does not end where it should", name=member.name)
            )

    def read(self, member: Member) -> bytes:
        """A small member, whole."""
        if member.size > READ_LIMIT:
            raise Unsound(_("has a {name} of {size:,} bytes", name=member.name, size=member.size))
        return b"".join(self.content(member))


# -- reading ------------------------------------------------------------------------------------
def _members(file: BinaryIO) -> list[Member]:
    start = file.read(len(LOCAL))
    try:
        with zipfile.ZipFile(file) as archive:
            entries, end = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, ValueError) as error:
        if start == LOCAL:
            raise Unsound(_("is cut off or damaged: it has no list of its members")) from error
        raise Unsound(_("is not a zip file")) from error
    _check_names(entries)
    return _located(file, entries, end)


def _check_names(entries: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for each in entries:
        name, mode = each.orig_filename, each.external_attr >> 16
        plain = name.removesuffix("/")
        if (
            not all(part not in ("", ".", "..") for part in plain.split("/"))
            or not name.isprintable()
            or "\\" in name
            or name[1:2] == ":"
        ):
            raise Unsound(
                _("has a member named {name!r}, which would be unpacked elsewhere", name=name)
            )
        if plain in seen:
            raise Unsound(_("has its member {name} twice", name=name))
        seen.add(plain)
        if each.flag_bits & ENCRYPTED:
            raise Unsound(_("has an encrypted member: {name}", name=name))
        if stat.S_IFMT(mode) not in (0, stat.S_IFDIR if name.endswith("/") else stat.S_IFREG):
            if stat.S_ISLNK(mode):
                raise Unsound(_("has a member that is a link: {name}", name=name))
            raise Unsound(_("has a member that is neither file nor folder: {name}", name=name))
        if each.compress_type not in (STORED, DEFLATED):
            raise Unsound(
                _(
                    "has a member compressed by method {method}: {name}",
                    method=each.compress_type,
                    name=name,
                )
            )
        if each.compress_type == STORED and each.compress_size != each.file_size:
            raise Unsound(
                _("is damaged: the size of its member {name} is given in two ways", name=name)
            )
    files = {e.orig_filename for e in entries if not e.orig_filename.endswith("/")}
    for name in seen:
        folders = name.split("/")[:-1]
        for count in range(1, len(folders) + 1):
            folder = "/".join(folders[:count])
            if folder in files:
                raise Unsound(_("has {name} both as a file and as a folder", name=folder))


def _located(file: BinaryIO, entries: list[zipfile.ZipInfo], end: int) -> list[Member]:
    """The members in the order of the list, each found where the list says, none over another."""
    found: dict[str, Member] = {}
    free = 0
    for each in sorted(entries, key=lambda each: each.header_offset):
        if max(each.file_size, each.compress_size, each.header_offset) >= LIMIT:
            raise Unsound(
                _("needs zip64 for its member {name}, which glmpatch has not", name=each.filename),
                _(SMALLER),
            )
        file.seek(max(0, each.header_offset))
        header = file.read(30)
        if len(header) < 30 or not header.startswith(LOCAL) or each.header_offset < free:
            raise Unsound(
                _(
                    "is damaged: its member {name} is not where its list says",
                    name=each.filename,
                )
            )
        flags, method, _date, crc, packed, size, length, extra = struct.unpack(
            "<HHIIIIHH", header[6:]
        )
        coding = "utf-8" if flags & UTF8 else "cp437"
        name = file.read(length).decode(coding, "replace")
        start = each.header_offset + 30 + length + extra
        free = start + each.compress_size
        told = (each.CRC, each.compress_size, each.file_size)
        # Whoever writes to a stream tells sizes afterwards; LIMIT stands where zip64 tells them.
        same = (crc, packed, size) == told or flags & DESCRIPTOR or LIMIT in (packed, size)
        if (
            not same
            or name != each.orig_filename
            or method != each.compress_type
            or flags & ENCRYPTED
        ):
            raise Unsound(
                _("is damaged: it says two things of its member {name}", name=each.filename)
            )
        if free > end:
            raise Unsound(_("ends within its member {name}", name=each.filename))
        year, month, day, hour, minute, second = each.date_time
        date = (year - 1980) << 25 | month << 21 | day << 16
        found[name] = Member(
            name=name,
            flags=each.flag_bits,
            method=method,
            date=date | hour << 11 | minute << 5 | second // 2,
            crc=each.CRC,
            packed=each.compress_size,
            size=each.file_size,
            attributes=each.external_attr,
            start=start,
        )
    return [found[each.orig_filename] for each in entries]


# -- writing ------------------------------------------------------------------------------------


class Writer:
    """Writes an archive, the same bytes for the same members on every machine."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._list: list[bytes] = []

    def copy(self, archive: Archive, member: Member, name: str) -> None:
        """A member of another archive, as it is compressed there.

        Of its flags only the level of compression goes with it: a reader may refuse others.
        """
        flags = member.flags & LEVEL
        self._header(name, flags, member.method, member.crc, member.packed, member)
        for block in archive.packed(member):
            self._file.write(block)

    def add(self, name: str, data: bytes, like: Member) -> None:
        """New content, with date and mode of a member.

        It is stored as it is: another zlib would compress it to other bytes.
        """
        self._header(name, 0, STORED, zlib.crc32(data), len(data), like, len(data))
        self._file.write(data)

    def _header(
        self,
        name: str,
        flags: int,
        method: int,
        crc: int,
        packed: int,
        like: Member,
        size: int | None = None,
    ) -> None:
        encoded = name.encode("ascii" if name.isascii() else "utf-8")
        flags = flags & ~UTF8 if name.isascii() else flags | UTF8
        size = like.size if size is None else size
        same = struct.pack(
            "<HHHIIIIH", 20, flags, method, like.date, crc, packed, size, len(encoded)
        )
        at = self._file.tell()
        if at + packed >= LIMIT or len(self._list) >= 0xFFFE:
            raise Unsound(_("would need zip64 once repaired, which glmpatch has not"), _(SMALLER))
        self._list.append(
            CENTRAL
            + struct.pack("<H", 3 << 8 | 20)  # made on Unix
            + same
            + struct.pack("<HHHHII", 0, 0, 0, 0, like.attributes, at)
            + encoded
        )
        self._file.write(LOCAL + same + struct.pack("<H", 0) + encoded)

    def close(self) -> None:
        """Write the list of the members."""
        start, count = self._file.tell(), len(self._list)
        self._file.writelines(self._list)
        size = self._file.tell() - start
        self._file.write(END + struct.pack("<HHHHIIH", 0, 0, count, count, size, start, 0))
