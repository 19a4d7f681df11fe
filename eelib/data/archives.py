"""The source files inside an archive, read in memory: tar, zip, and deb with the `src.zip` inside it."""

import email
import io
import json
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from eelib.errors import InputError

SUFFIX = {"java": ".java", "python": ".py"}
LARGEST_FILE = 1_000_000  # bytes; longer files are generated tables, not code that somebody wrote
_LICENCE_NAMES = ("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE")


def source_files(archive: Path, language: str, exclude: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """(path inside the archive, text) of every source file of `language`, by path.

    Reads tar (any compression), zip, and deb with the `src.zip` inside it. Only regular files of at most 1 MB
    without NUL bytes count. A file is utf-8, or else latin-1 (which decodes everything, as old sources need).
    `exclude` names folders and files: a path is left out when one of them is a component of it.
    Raises InputError when the archive is missing or damaged.
    """
    for path, content in sorted(
        dict(_members(Path(archive), lambda path: path.suffix == SUFFIX[language])).items()
    ):
        parts = PurePosixPath(path).parts
        is_resource_fork = parts[-1].startswith("._")  # what macOS adds to a tar beside each file
        if set(parts).isdisjoint(exclude) and not is_resource_fork and b"\0" not in content:
            yield path, _decode(content)


def licence_files(archive: Path) -> Iterator[tuple[str, str]]:
    """(path, text) of the licence, copyright and notice files of an archive, those nearest its top first."""
    found = dict(_members(Path(archive), lambda path: path.name.upper().startswith(_LICENCE_NAMES)))
    for path in sorted(found, key=lambda path: (path.count("/"), path)):
        yield path, _decode(found[path])


def package_author(archive: Path) -> str:
    """Who made a package, as its PKG-INFO or package.json says; empty when neither does."""
    found = dict(_members(Path(archive), lambda path: path.name in ("PKG-INFO", "package.json")))
    for path in sorted(found, key=lambda path: (path.count("/"), path))[:1]:
        text = _decode(found[path])
        if path.endswith("PKG-INFO"):
            parsed = email.message_from_string(text)
            return parsed["Author"] or parsed["Author-email"] or parsed["Maintainer"] or ""
        author = json.loads(text).get("author") or ""
        return author.get("name", "") if isinstance(author, dict) else author
    return ""


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _members(archive: Path, wanted: Callable[[PurePosixPath], bool]) -> Iterator[tuple[str, bytes]]:
    try:
        if archive.suffix == ".deb":
            yield from _members_of_deb(archive, wanted)
        elif zipfile.is_zipfile(archive):
            yield from _members_of_zip(archive, wanted)
        else:
            with tarfile.open(archive) as tar:
                yield from _members_of_tar(tar, wanted)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        raise InputError(f"{archive} cannot be read as an archive: {error}") from error


def _members_of_tar(
    tar: tarfile.TarFile, wanted: Callable[[PurePosixPath], bool]
) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        if member.isreg() and wanted(PurePosixPath(member.name)) and member.size <= LARGEST_FILE:
            yield member.name, tar.extractfile(member).read()


def _members_of_zip(
    archive: Path | io.BytesIO, wanted: Callable[[PurePosixPath], bool]
) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as source:
        for member in source.infolist():
            is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
            if wanted(PurePosixPath(member.filename)) and member.file_size <= LARGEST_FILE and not is_link:
                yield member.filename, source.read(member)


def _members_of_deb(archive: Path, wanted: Callable[[PurePosixPath], bool]) -> Iterator[tuple[str, bytes]]:
    """A deb is an `ar` archive: 8 bytes of magic, then 60-byte headers, then an even count of bytes each."""
    with open(archive, "rb") as stream:
        if stream.read(8) != b"!<arch>\n":
            raise tarfile.ReadError("no deb: the ar magic is missing")
        while len(header := stream.read(60)) == 60:
            name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
            if name.startswith("data.tar"):
                with tarfile.open(fileobj=io.BytesIO(stream.read(size))) as tar:
                    yield from _members_of_tar(tar, wanted)
                    for member in tar.getmembers():
                        if member.isreg() and PurePosixPath(member.name).name == "src.zip":
                            inner = io.BytesIO(tar.extractfile(member).read())
                            yield from _members_of_zip(inner, wanted)
                return
            stream.seek(size + size % 2, io.SEEK_CUR)
    raise tarfile.ReadError("no data.tar in the deb")
