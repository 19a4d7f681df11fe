"""Source files, and what is known of their authors, read from every kind of archive."""

import io
import os
import tarfile
import zipfile

import pytest
from test_packages import ARCHIVE, deb_bytes, tar_bytes, zip_bytes

from eelib.data import archives
from eelib.data.archives import package_author, source_files
from eelib.errors import InputError

SOURCES = {
    "demo/b.py": b"b = 2\n",
    "demo/a.py": b"a = 1\n",
    "demo/C.java": b"class C {}\n",
    "demo/x.txt": b"x",
}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip"])
def test_sources_come_sorted_from_every_kind_of_archive(tmp_path, suffix):
    mode = {".tar": "w", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}.get(suffix, "w:gz")
    archive = tmp_path / f"demo{suffix}"
    archive.write_bytes(zip_bytes(SOURCES) if suffix == ".zip" else tar_bytes(SOURCES, mode))
    assert list(source_files(archive, "python")) == [("demo/a.py", "a = 1\n"), ("demo/b.py", "b = 2\n")]
    assert list(source_files(archive, "java")) == [("demo/C.java", "class C {}\n")]
    assert os.listdir(tmp_path) == [archive.name]  # nothing unpacked


def test_a_deb_and_the_src_zip_inside_it(tmp_path):
    inner = zip_bytes({"java.base/B.java": b"class B {}", "jdk.compiler/C.java": b"class C {}"})
    data = tar_bytes({"./usr/lib/src.zip": inner, "./usr/lib/A.java": b"class A {}"}, "w:xz")
    archive = tmp_path / "demo.deb"
    archive.write_bytes(deb_bytes({"debian-binary": b"2.0", "control.tar.xz": b"odd", "data.tar.xz": data}))
    assert list(source_files(archive, "java", exclude=("jdk.compiler",))) == [
        ("./usr/lib/A.java", "class A {}"),
        ("java.base/B.java", "class B {}"),
    ]


def test_what_is_left_out(tmp_path):
    files = {
        "demo/kept.py": b"x = 1",
        "demo/vendor/copy.py": b"x = 2",
        "demo/six.py": b"x = 3",
        "demo/vendors.py": b"x = 4",
        "demo/._kept.py": b"\x00\x05\x16\x07",
        "demo/utf16.py": "x = 5".encode("utf-16"),
        "demo/limit.py": b"#" * archives.LARGEST_FILE,
        "demo/large.py": b"#" * (archives.LARGEST_FILE + 1),
    }
    stream = io.BytesIO(tar_bytes(files, "w"))
    with tarfile.open(fileobj=stream, mode="a") as tar:
        link = tarfile.TarInfo("demo/link.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    (tmp_path / "demo.tar").write_bytes(stream.getvalue())
    link = zipfile.ZipInfo("demo/link.py")
    link.external_attr = 0o120777 << 16
    stream = io.BytesIO(zip_bytes(files))
    with zipfile.ZipFile(stream, "a") as target:
        target.writestr(link, "/etc/hostname")
    (tmp_path / "demo.zip").write_bytes(stream.getvalue())
    for name in ("demo.tar", "demo.zip"):
        found = [path for path, _ in source_files(tmp_path / name, "python", exclude=("vendor", "six.py"))]
        assert found == ["demo/kept.py", "demo/limit.py", "demo/vendors.py"]


def test_utf8_else_latin1(tmp_path):
    files = {"1.py": "é = 'ü'".encode(), "2.py": "é = 'ü'".encode("latin-1"), "3.py": "\ufeffx = 1".encode()}
    archive = tmp_path / "demo.tar"
    archive.write_bytes(tar_bytes(files, "w"))
    assert [text for _, text in source_files(archive, "python")] == ["é = 'ü'", "é = 'ü'", "x = 1"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("demo.tar.gz", ARCHIVE[: len(ARCHIVE) // 2]),
        ("demo.tar.gz", b"no archive at all"),
        ("demo.tar.xz", tar_bytes(SOURCES, "w:xz")[:100]),
        ("demo.zip", zip_bytes(SOURCES)[:-30]),
        ("demo.deb", b"no deb"),
        ("demo.deb", deb_bytes({"debian-binary": b"2.0\n"})),
        ("demo.deb", deb_bytes({"data.tar.xz": tar_bytes(SOURCES, "w:xz")})[:168]),
    ],  # the bytes hold the time they were made, which no test's name may
    ids=["half a tar.gz", "no archive", "cut tar.xz", "cut zip", "no deb", "empty deb", "cut deb"],
)
def test_a_damaged_archive_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} cannot be read as an archive"):
        list(source_files(tmp_path / name, "python"))


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(InputError, match="gone.zip cannot be read"):
        list(source_files(tmp_path / "gone.zip", "java"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("PKG-INFO", b"Metadata-Version: 1.0\nName: demo\nAuthor: Ann Other\n", "Ann Other"),
        ("PKG-INFO", b"Metadata-Version: 2.4\nAuthor-email: Ann <a@b.c>\n", "Ann <a@b.c>"),
        ("package.json", b'{"author": {"name": "Ann"}}', "Ann"),
        ("package.json", b'{"author": "Ann"}', "Ann"),
        ("package.json", b"{}", ""),
        ("demo.py", b"", ""),
    ],
)
def test_authors(tmp_path, name, content, expected):
    (tmp_path / "demo.tgz").write_bytes(
        tar_bytes(
            {f"demo/{name}": content, "demo/a/package.json": b'{"author": "X"}'}
            if name != "demo.py"
            else {"demo/demo.py": content}
        )
    )
    assert package_author(tmp_path / "demo.tgz") == expected
