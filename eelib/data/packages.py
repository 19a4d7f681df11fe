"""Pinned source packages: the tables and the verified download.

Nothing is built, run or unpacked to disk: an archive is checked (size, sha256) and then read in memory (`archives.py`).
"""

import ast
import atexit
import csv
import dataclasses
import errno
import functools
import hashlib
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unearth import PackageFinder
from unearth.auth import MultiDomainBasicAuth
from unearth.errors import UnpackError
from unearth.fetchers import PyPIClient
from unearth.preparer import HTTPErrors

from eelib.data.apt_sources import source_options
from eelib.data.archives import SUFFIX
from eelib.errors import InputError

REGISTRIES = ("pypi", "debian", "debian-source", "npm")
SPLITS = ("train", "validation", "test", "pretrain")


@dataclass(frozen=True)
class SourcePackage:
    """One archive of one project, as pinned in a table.

    `bytes` is the archive's size, `sha256` its lower-case hex digest, `language` in {"java", "python"},
    `split` in {"train", "validation", "test", "pretrain"} and `registry` one of `REGISTRIES`.
    `exclude` names folders and files to pass to `source_files`: copies of other projects, tables, and
    (OpenJDK) the compiler and its kin. `era` is the year of a release of PY150's years, or "today".
    """

    project: str
    version: str
    file: str
    sha256: str
    bytes: int
    licence: str
    language: str
    split: str
    exclude: tuple[str, ...] = ()
    registry: str = "pypi"
    era: str = ""


def read_table(path: Path) -> list[SourcePackage]:
    """The rows of `sources.csv` or `pretraining_packages.csv`, in their order.

    `exclude` is a list separated by blanks; it, `registry` and `era` may be missing as columns (nothing, pypi, nothing).
    Raises InputError for a missing file, missing or unknown columns, and values outside their sets.
    """
    if not Path(path).is_file():
        raise InputError(f"the table of packages {path} does not exist")
    fields = [field.name for field in dataclasses.fields(SourcePackage)]
    with open(path, encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        columns = reader.fieldnames or []
        if not set(fields[:-3]) <= set(columns) <= set(fields):
            raise InputError(
                f"{path} has the columns {columns}; allowed are {fields}, the last three optional"
            )
        return [_package(row, f"{path}, line {reader.line_num}") for row in reader]


def _package(row: dict[str, str], place: str) -> SourcePackage:
    allowed = {"language": SUFFIX, "split": SPLITS, "registry": REGISTRIES}
    for column, values in allowed.items():
        if column in row and row[column] not in values:
            raise InputError(f"{place}: {column} is {row[column]!r}; allowed are {', '.join(values)}")
    if None in row or None in row.values() or not row["bytes"].isdecimal():
        raise InputError(f"{place}: every column needs a value, and `bytes` a whole number, not {row}")
    if len(row["sha256"]) != 64 or set(row["sha256"]) - set("0123456789abcdef"):
        raise InputError(f"{place}: sha256 is {row['sha256']!r}; allowed are 64 lower-case hex digits")
    if PurePosixPath(row["file"]).name != row["file"]:
        raise InputError(f"{place}: file is {row['file']!r}; allowed is a file name without folders")
    parsed = {"bytes": int(row["bytes"]), "exclude": tuple(row.get("exclude", "").split())}
    return SourcePackage(**(row | parsed))


def fetch(package: SourcePackage, cache_dir: Path) -> Path:
    """The verified archive `cache_dir / package.file`, downloaded when it is absent or not the pinned one.

    Raises InputError when the registry cannot be reached, does not hold the file or serves other bytes than
    the pinned ones, and when the folder cannot take it (a full disk, say). The download goes to a temporary
    folder beside its target and is renamed only once verified: a broken one never takes the place of a file.
    """
    cache_dir = Path(cache_dir)
    target = cache_dir / package.file
    if target.is_file() and _difference(target, package) is None:
        return target
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".download-") as folder:
            download = DOWNLOADERS[package.registry](package, Path(folder))
            difference = _difference(download, package)
            if difference is not None:
                raise InputError(f"{package.file} as downloaded is not the pinned file: {difference}")
            download.replace(target)
    except OSError as error:
        raise InputError(
            f"{package.file} ({package.bytes / 1e6:.1f} MB) cannot be stored in {cache_dir} "
            f"({error.strerror}): make room there, or choose another cache folder"
        ) from error
    return target


def _difference(path: Path, package: SourcePackage) -> str | None:
    """What distinguishes a file from the pinned one, or None."""
    size = path.stat().st_size
    with open(path, "rb") as archive:
        found = hashlib.file_digest(archive, "sha256").hexdigest()
    if found != package.sha256:
        return f"sha256 {found} ({size} bytes), expected {package.sha256} ({package.bytes} bytes)"
    if size != package.bytes:
        return (
            f"{size} bytes, expected {package.bytes}, although the sha256 {found} agrees: correct the table"
        )
    return None


def _unreachable(package: SourcePackage, reason: str) -> InputError:
    return InputError(
        f"{package.project} {package.version} is not in the cache as pinned and cannot be downloaded "
        f"({reason}): connect to a {package.registry} registry, or "
        f"put {package.file} into the cache folder by hand"
    )


def _pip_settings() -> dict[str, str]:
    """pip's own configuration (files and PIP_* variables) by key; the most specific wins, as in pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, check=False, capture_output=True, text=True)
    if listing.returncode != 0:
        reason = listing.stderr.strip()
        raise InputError(f"pip, whose configuration says where packages come from, does not run: {reason}")
    lines = [line.partition("=") for line in listing.stdout.splitlines()]
    entries = [(*name.rsplit(".", 1), ast.literal_eval(value)) for name, _, value in lines]
    settings = {}
    for wanted in ("global", "download", ":env:"):
        settings |= {key: value for section, key, value in entries if section == wanted}
    return settings


@functools.cache
def _finders() -> list[PackageFinder]:
    """One finder a place where pip would look, folders before indexes; the default index is unearth's."""
    settings = _pip_settings()
    links = [os.path.expanduser(link) for link in settings.get("find-links", "").split()]
    # Like pip, pass over folders that do not exist: unearth refuses them.
    links = [link for link in links if "://" in link or os.path.exists(link)]
    indexes = settings.get("index-url", "").split() or [PackageFinder().sources[0]["url"]]
    indexes += settings.get("extra-index-url", "").split()
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        indexes = []
    session = PyPIClient(
        trusted_hosts=settings.get("trusted-host", "").split(),
        verify=ssl.create_default_context(cafile=settings["cert"]) if "cert" in settings else True,
        timeout=float(settings.get("timeout", settings.get("default-timeout", "60"))),
        follow_redirects=True,
    )
    session.auth = MultiDomainBasicAuth(index_urls=indexes)
    atexit.register(session.close)
    places = [{"find_links": [link]} for link in links] + [{"index_urls": [index]} for index in indexes]
    return [PackageFinder(session, ignore_compatibility=True, **place) for place in places]


def _from_pypi(package: SourcePackage, folder: Path) -> Path:
    failures = []
    for finder in _finders():
        try:
            for candidate in finder.find_all_packages(package.project, allow_yanked=True):
                if candidate.link.filename == package.file:
                    found = finder.download(candidate.link, folder, hashes={})
                    # A local file is used in place by unearth: copy it, the caller renames what it gets.
                    return found if found.parent == folder else Path(shutil.copy(found, folder))
        except (*HTTPErrors, UnpackError) as error:
            failures.append(str(error))
    raise _unreachable(package, "; ".join(failures) or "no place in pip's configuration offers it")


def _from_debian(package: SourcePackage, folder: Path) -> Path:
    command = ["apt-get", "download", f"{package.project}={package.version}"]
    return _by_command(package, folder, command, "*.deb")


def _from_debian_source(package: SourcePackage, folder: Path) -> Path:
    version = f"{package.project}={package.version}"
    command = ["apt-get", *source_options(), "source", "--download-only", "--tar-only", version]
    return _by_command(package, folder, command, "*.tar.*")


def _from_npm(package: SourcePackage, folder: Path) -> Path:
    command = ["npm", "pack", "--ignore-scripts", f"{package.project}@{package.version}"]
    return _by_command(package, folder, command, "*.tgz")


def _by_command(package: SourcePackage, folder: Path, command: list[str], pattern: str) -> Path:
    if shutil.which(command[0]) is None:
        raise _unreachable(package, f"the program {command[0]} is not installed")
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)
    if "no space left on device" in done.stderr.lower():
        raise OSError(errno.ENOSPC, done.stderr)
    if done.returncode != 0:
        raise _unreachable(package, " ".join(done.stderr.split())[-300:])
    (download,) = folder.glob(pattern)
    return download


DOWNLOADERS: dict[str, Callable[[SourcePackage, Path], Path]] = {
    "pypi": _from_pypi,
    "debian": _from_debian,
    "debian-source": _from_debian_source,
    "npm": _from_npm,
}
