"""Pinned packages: the tables, the verified download (folders, local server, stub commands)."""

import dataclasses
import errno
import hashlib
import http.server
import io
import os
import shutil
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from eelib.data import apt_sources, packages
from eelib.data.packages import SourcePackage, fetch, read_table
from eelib.errors import InputError

DATA = Path(packages.__file__).parent
HEADER = "project,version,file,sha256,bytes,licence,language,split"


def tar_bytes(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zip_bytes(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    return stream.getvalue()


def deb_bytes(members: dict[str, bytes]) -> bytes:
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
        parts.append(content + b"\n" * (len(content) % 2))
    return b"".join(parts)


ARCHIVE = tar_bytes({"demo-1.0/demo.py": b"x = 1\n"})
DEMO = SourcePackage(
    "demo",
    "1.0",
    "demo-1.0.tar.gz",
    hashlib.sha256(ARCHIVE).hexdigest(),
    len(ARCHIVE),
    "MIT",
    "python",
    "train",
)


@pytest.fixture
def pip(monkeypatch):
    """Sets pip's configuration to exactly the given options; nothing outside this machine is asked."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def configure(**options: str) -> None:
        for name, value in options.items():
            monkeypatch.setenv(f"PIP_{name.upper()}", value)

    packages._finders.cache_clear()
    yield configure
    if packages._finders.cache_info().currsize and (finders := packages._finders()):
        finders[0].session.close()
    packages._finders.cache_clear()


@pytest.fixture
def links(tmp_path, pip):
    """A find-links folder that holds the demo archive, and no index."""
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / DEMO.file).write_bytes(ARCHIVE)
    pip(no_index="1", find_links=folder.as_uri())
    return folder


@pytest.fixture
def server(pip):
    """A local index: `pages` maps a path to (announced length, body); None announces the true length."""
    pages: dict[str, tuple[int | None, bytes]] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            length, body = pages.get(self.path, (None, b""))
            self.send_response(200 if self.path in pages else 404)
            self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/gzip")
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        pip(index_url=f"http://127.0.0.1:{httpd.server_port}/simple")
        pages["/simple/demo/"] = (None, f'<a href="/files/{DEMO.file}">{DEMO.file}</a>'.encode())
        pages[f"/files/{DEMO.file}"] = (None, ARCHIVE)
        yield pages
        httpd.shutdown()
        thread.join()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


# --- the tables ---


def write_table(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_a_row_becomes_a_package(tmp_path):
    row = f"demo,1.0,demo-1.0.tar.gz,{'a' * 64},12,MIT,java,test"
    expected = SourcePackage("demo", "1.0", "demo-1.0.tar.gz", "a" * 64, 12, "MIT", "java", "test")
    assert read_table(write_table(tmp_path / "short.csv", row)) == [expected]
    long = write_table(tmp_path / "long.csv", row + ",tests six.py,npm", header=HEADER + ",exclude,registry")
    assert read_table(long) == [dataclasses.replace(expected, exclude=("tests", "six.py"), registry="npm")]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (f"demo,1.0,demo.tgz,{'a' * 64},12,MIT,cobol,test", "'cobol'"),
        (f"demo,1.0,demo.tgz,{'a' * 64},12,MIT,java,dev", "'dev'"),
        (f"demo,1.0,demo.tgz,{'A' * 64},12,MIT,java,test", "'AAA"),
        (f"demo,1.0,demo.tgz,{'a' * 63},12,MIT,java,test", "64 lower-case hex digits"),
        (f"demo,1.0,demo.tgz,{'a' * 64},twelve,MIT,java,test", "twelve"),
        (f"demo,1.0,../demo.tgz,{'a' * 64},12,MIT,java,test", "'../demo.tgz'"),
        (f"demo,1.0,demo.tgz,{'a' * 64},12,MIT,java", "split is None"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path, row, found):
    with pytest.raises(InputError, match="line 2") as error:
        read_table(write_table(tmp_path / "table.csv", row))
    assert found in str(error.value)


def test_missing_table_and_wrong_columns(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="sha1"):
        read_table(write_table(tmp_path / "table.csv", header=HEADER.replace("sha256", "sha1")))


def test_the_tables_split_by_project():
    study, further = (read_table(DATA / name) for name in ("sources.csv", "pretraining_packages.csv"))
    assert {(package.language, package.split) for package in study} == {
        (language, split) for language in ("java", "python") for split in ("train", "validation", "test")
    }
    assert {package.split for package in further} == {"pretrain"}
    rows = study + further
    assert len({package.file for package in rows}) == len(rows)
    splits: dict[str, set[str]] = {}
    for package in rows:
        splits.setdefault(package.project.lower(), set()).add(package.split)
    assert all(len(found) == 1 for found in splits.values())
    assert all(bool(package.era) == (package.language == "python") for package in study)
    assert not any("GPL" in package.licence or "EPL" in package.licence for package in study)


# --- the download ---


def test_fetch_takes_the_file_from_find_links_and_then_from_the_cache(links, tmp_path):
    cache = tmp_path / "a" / "cache"
    assert fetch(DEMO, cache) == cache / DEMO.file
    assert contents(cache) == {DEMO.file: ARCHIVE}
    assert contents(links) == {DEMO.file: ARCHIVE}  # the source stays
    shutil.rmtree(links)
    assert fetch(DEMO, cache) == cache / DEMO.file


def test_fetch_downloads_from_an_index(server, tmp_path):
    assert fetch(DEMO, tmp_path / "cache").read_bytes() == ARCHIVE


def test_folders_are_asked_before_indexes(links, pip, tmp_path):
    pip(no_index="0", index_url="http://127.0.0.1:9/simple")  # nothing listens there
    assert fetch(DEMO, tmp_path / "cache").read_bytes() == ARCHIVE


def test_another_hash_names_file_found_and_expected_and_keeps_nothing(links, tmp_path):
    wrong = ARCHIVE + b"\0"
    (links / DEMO.file).write_bytes(wrong)
    with pytest.raises(InputError) as error:
        fetch(DEMO, tmp_path / "cache")
    for part in (DEMO.file, DEMO.sha256, hashlib.sha256(wrong).hexdigest()):
        assert part in str(error.value)
    assert contents(tmp_path / "cache") == {}


def test_a_wrong_size_in_the_table_is_said(links, tmp_path):
    with pytest.raises(InputError, match=f"{len(ARCHIVE)} bytes, expected {len(ARCHIVE) + 1}"):
        fetch(dataclasses.replace(DEMO, bytes=DEMO.bytes + 1), tmp_path / "cache")


def test_a_truncated_cached_file_is_replaced(links, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / DEMO.file).write_bytes(ARCHIVE[:-5])
    assert fetch(DEMO, cache).read_bytes() == ARCHIVE


def test_a_wrong_download_does_not_take_the_place_of_an_older_file(links, tmp_path):
    cache = tmp_path / "cache"
    fetch(DEMO, cache)
    (links / DEMO.file).write_bytes(b"served later")
    with pytest.raises(InputError, match="not the pinned file"):
        fetch(dataclasses.replace(DEMO, sha256="0" * 64), cache)
    assert contents(cache) == {DEMO.file: ARCHIVE}


def test_a_download_that_breaks_off_keeps_nothing(server, tmp_path):
    server[f"/files/{DEMO.file}"] = (len(ARCHIVE), ARCHIVE[:-5])
    with pytest.raises(InputError, match="cannot be downloaded"):
        fetch(DEMO, tmp_path / "cache")
    assert contents(tmp_path / "cache") == {}


def test_without_network_the_error_names_the_package_and_the_way_out(pip, tmp_path):
    pip(index_url="http://127.0.0.1:9/simple")
    with pytest.raises(
        InputError, match=r"demo 1\.0 .*put demo-1\.0\.tar\.gz into the cache folder"
    ) as error:
        fetch(DEMO, tmp_path / "cache")
    assert "\n" not in str(error.value)
    (tmp_path / "cache" / DEMO.file).write_bytes(ARCHIVE)  # the way out
    assert fetch(DEMO, tmp_path / "cache").read_bytes() == ARCHIVE


def test_a_place_without_the_file(links, tmp_path):
    with pytest.raises(InputError, match="no place in pip's configuration offers it"):
        fetch(dataclasses.replace(DEMO, file="demo-2.0.tar.gz"), tmp_path / "cache")


def test_a_full_disk(links, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(packages.shutil, "copy", full)
    with pytest.raises(InputError, match=r"cannot be stored in .*cache .*space"):
        fetch(DEMO, tmp_path / "cache")
    assert contents(tmp_path / "cache") == {}


def test_pip_settings_of_the_environment_win_over_the_file(pip, tmp_path):
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = file:///one\nextra-index-url = file:///two\n    file:///three\n"
    )
    pip(config_file=str(tmp_path / "pip.conf"), index_url="file:///four")
    sources = [finder.sources[0]["url"] for finder in packages._finders()]
    assert sources == ["file:///four", "file:///two", "file:///three"]


def stub_command(folder: Path, name: str, script: str, monkeypatch) -> None:
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("registry", "command", "argument", "written"),
    [
        ("debian", "apt-get", "demo=1.0", "demo_1.0_all.deb"),
        ("debian-source", "apt-get", "--tar-only demo=1.0", "demo_1.0.orig.tar.gz"),
        ("npm", "npm", "demo@1.0", "demo-1.0.tgz"),
    ],
)
def test_debian_and_npm_come_by_their_commands(tmp_path, monkeypatch, registry, command, argument, written):
    (tmp_path / "served").write_bytes(ARCHIVE)
    monkeypatch.setattr(packages, "source_options", lambda: ["-o", "Dir::State=elsewhere"])
    script = f'case "$*" in *"{argument}") cp {tmp_path}/served {written};; *) exit 9;; esac'
    stub_command(tmp_path / "bin", command, script, monkeypatch)
    package = dataclasses.replace(DEMO, file=written, registry=registry)
    assert fetch(package, tmp_path / "cache").read_bytes() == ARCHIVE
    assert contents(tmp_path / "cache") == {written: ARCHIVE}
    with pytest.raises(InputError, match="not the pinned file"):
        fetch(dataclasses.replace(package, sha256="0" * 64), tmp_path / "cache")
    with pytest.raises(InputError, match="demo 2.0 is not in the cache"):
        fetch(dataclasses.replace(package, version="2.0", file="other"), tmp_path / "cache")


def test_a_command_that_finds_the_disk_full_or_is_missing(tmp_path, monkeypatch):
    stub_command(tmp_path / "bin", "npm", "echo 'ENOSPC: no space left on device' >&2; exit 1", monkeypatch)
    package = dataclasses.replace(DEMO, registry="npm")
    with pytest.raises(InputError, match="cannot be stored"):
        fetch(package, tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="npm is not installed"):
        fetch(package, tmp_path / "cache")


def test_source_entries_are_the_systems_own(tmp_path, monkeypatch):
    """apt's commands are stubs here: entries become deb-src in a folder of ours, and the system's stay."""
    entries = {
        "sources.list": "deb [signed-by=/k] http://a/debian stable main\n# deb http://b x y\ndeb-src http://c x y\n",
        "parts/own.sources": "Types: deb\nURIs: http://d\nSuites: stable\n\nTypes: deb deb-src\nURIs: http://e\n",
    }
    (tmp_path / "parts").mkdir()
    for name, text in entries.items():
        (tmp_path / name).write_text(text)
    config = f"echo \"LIST='{tmp_path}/sources.list'\"; echo \"PARTS='{tmp_path}/parts/'\""
    stub_command(tmp_path / "bin", "apt-config", config, monkeypatch)
    (tmp_path / "bin" / "apt-get").write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n')
    (tmp_path / "bin" / "apt-get").chmod(0o755)
    options = apt_sources.source_options.__wrapped__()
    (parts,) = (Path(word.partition("=")[2]) for word in options if word.startswith("Dir::Etc::sourceparts="))
    assert (parts / "sources.list").read_text() == (
        "deb-src [signed-by=/k] http://a/debian stable main\n# deb http://b x y\ndeb-src http://c x y\n"
    )
    assert (parts / "own.sources").read_text() == (
        "Types: deb-src\nURIs: http://d\nSuites: stable\n\nTypes: deb-src\nURIs: http://e\n"
    )
    assert {name: (tmp_path / name).read_text() for name in entries} == entries
    assert (tmp_path / "calls").read_text() == " ".join([*options, "update"]) + "\n"
