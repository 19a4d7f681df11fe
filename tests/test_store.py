"""The store: stages found again by what they depend on, whole or not there at all, and resumed after a kill."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from eelib import provenance
from eelib.errors import InputError
from eelib.study import store
from eelib.study.store import RECORD, Stage, find, make

STAGE = Stage("agent/tiny-java", code="of today", config={"steps": 10, "rates": [0.5]})


def write(text: str, calls: list[str] | None = None):
    """A stage's function: writes one file."""

    def function(folder: Path) -> None:
        (folder / "result.txt").write_text(text)
        if calls is not None:
            calls.append(text)

    return function


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != RECORD}


# --- finding ---


def test_a_stage_is_made_once_and_found_again(tmp_path):
    calls = []
    assert find(STAGE, tmp_path) is None
    made = make(STAGE, tmp_path, write("first", calls))
    assert made == make(STAGE, tmp_path, write("second", calls)) == find(STAGE, tmp_path)
    assert calls == ["first"]
    assert files(made.path) == {"result.txt": "first"}
    assert made.path == tmp_path / f"agent/tiny-java-{made.key[:12]}"
    assert not made.path.with_name(made.path.name + ".partial").exists()


def test_the_record_says_where_it_comes_from(tmp_path):
    stage = replace(STAGE, inputs={"corpus": "a" * 64})
    record = json.loads((make(stage, tmp_path, write("x")).path / RECORD).read_text())
    assert record["name"] == "agent/tiny-java"
    assert record["key"] == stage.key
    assert record["config"] == STAGE.config
    assert record["inputs"] == {"corpus": "a" * 64}
    assert record["code"] == "of today"
    assert record["commit"] == provenance.commit()
    assert record["packages"] == {name: metadata.version(name) for name in provenance.PACKAGES}
    assert record["hardware"] == provenance.hardware() and record["software"] == provenance.software()
    assert record["threads"] == torch.get_num_threads()
    assert record["seconds"] >= 0


def test_tables_6_2_to_6_4_are_of_the_machines_that_measured():
    """Two stages of one machine, one of another with another torch: three records, whatever this machine is."""
    first = {"hardware": {"CPU": "a"}, "commit": "1", "packages": {"torch": "2.13", "numpy": "2"}}
    other = {"hardware": {"CPU": "b"}, "commit": "1", "packages": {"torch": "2.14", "numpy": "2"}}
    table = provenance.machines([first, first, other])
    assert table.to_dict("list") == {"CPU": ["a", "b"], "commit": ["1", "1"], "stages": [2, 1]}
    versions = provenance.versions([first, first, other], "packages")
    assert versions.to_dict("list") == {"name": ["torch", "numpy"], "version": ["2.13, 2.14", "2"]}


# --- the key ---


def test_name_code_config_and_inputs_change_the_key():
    keys = {
        STAGE.key,
        replace(STAGE, name="agent/tiny-python").key,
        replace(STAGE, code="of tomorrow").key,
        replace(STAGE, config={"steps": 11, "rates": [0.5]}).key,
        replace(STAGE, config={"steps": 10, "rates": [0.6]}).key,
        replace(STAGE, config={"steps": 10}).key,
        replace(STAGE, inputs={"a": "1"}).key,
        replace(STAGE, inputs={"a": "2"}).key,
        replace(STAGE, inputs={"b": "1"}).key,
        replace(STAGE, inputs={"a": "1", "b": "2"}).key,
        replace(STAGE, inputs={"a": "2", "b": "1"}).key,
    }
    assert len(keys) == 11


def test_order_of_settings_and_inputs_does_not():
    assert replace(STAGE, config={"rates": [0.5], "steps": 10}).key == STAGE.key
    one, other = (replace(STAGE, inputs=inputs) for inputs in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}))
    assert one.key == other.key


CODE = '''\
"""A module."""


def double(x):
    """Twice x."""
    return 2 * x  # not x ** 2
'''


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A package whose module `top` imports `low` within a function, and `beside`, which nothing imports.

    Gives a function that rewrites a file and returns the hash of what `top` reaches.
    """
    package = tmp_path / "eelib"
    for folder, content in {
        "rl/top": f"{CODE}\n\ndef use():\n    from eelib.data import low\n",
        "data/low": f"{CODE}\n\nfrom eelib.errors import InputError\n",
        "rl/beside": CODE,
        "errors": CODE,
    }.items():
        (package / folder).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{folder}.py").write_text(content)
    monkeypatch.setattr(provenance, "PACKAGE", package)
    monkeypatch.setattr(provenance, "APART", (package / "errors.py",))

    def key_after(file: str | None = None, change=lambda text: text) -> str:
        if file is not None:
            path = package / file
            path.write_text(change(path.read_text() if path.exists() else ""))
        provenance.code_hash.cache_clear()
        provenance._imports.cache_clear()
        return provenance.code_hash("eelib.rl.top")

    yield key_after
    provenance.code_hash.cache_clear()
    provenance._imports.cache_clear()


@pytest.mark.parametrize(
    ("written", "other"),
    [
        ("# not x ** 2", "# a remark"),
        ("Twice x.", "The double of x."),
        ('    """Twice x."""\n', ""),
        ('"""A module."""\n', ""),
        ("    return 2 * x", "\n    return (\n        2 * x\n    )"),
    ],
)
def test_comments_docstrings_and_layout_leave_the_key(code, written, other):
    before = code()
    for file in ("rl/top.py", "data/low.py"):
        assert code(file, lambda text: text.replace(written, other)) == before


def test_code_that_is_reached_by_imports_changes_the_key(code):
    before = code()
    assert code("rl/beside.py", lambda text: text.replace("2 * x", "3 * x")) == before
    assert code("errors.py", lambda text: text.replace("2 * x", "3 * x")) == before
    keys = [before]
    for file in ("rl/top.py", "data/low.py"):
        keys.append(code(file, lambda text: text.replace("2 * x", "3 * x")))
    assert len(set(keys)) == 3


def test_a_new_import_and_a_list_of_literals_change_the_key(code):
    keys = [code(), code("rl/top.py", lambda text: text + "import eelib.rl.beside\n")]
    keys.append(code("rl/beside.py", lambda text: text.replace("2 * x", "3 * x")))  # it is reached now
    keys += [code("data/list.json", lambda _: '["a"]'), code("data/list.json", lambda _: '["b"]')]
    assert len(set(keys)) == 5


# --- failures ---


def test_a_function_that_raises_leaves_its_partial_folder_and_no_artifact(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        make(STAGE, tmp_path, fail)
    assert find(STAGE, tmp_path) is None
    assert not STAGE.folder(tmp_path).exists()
    partial = STAGE.folder(tmp_path).with_name(STAGE.folder(tmp_path).name + ".partial")
    assert files(partial) == {"half.txt": "half"}
    # The next call goes on in it.
    artifact = make(STAGE, tmp_path, write("rest"))
    assert files(artifact.path) == {"half.txt": "half", "result.txt": "rest"}
    assert not partial.exists()


def test_force_keeps_the_old_artifact_until_the_new_one_is_whole(tmp_path):
    old = make(STAGE, tmp_path, write("old"))

    def renew(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        assert files(find(STAGE, tmp_path).path) == {"result.txt": "old"}
        write("new")(folder)

    assert make(STAGE, tmp_path, renew, force=True) == old
    assert files(old.path) == {"result.txt": "new"}
    assert sorted(path.name for path in old.path.parent.iterdir()) == [old.path.name, old.path.name + ".lock"]


def test_force_keeps_the_old_artifact_when_the_new_one_fails(tmp_path):
    old = make(STAGE, tmp_path, write("old"))

    def fail(folder: Path) -> None:
        write("half")(folder)
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            make(STAGE, tmp_path, fail, force=True)
        assert find(STAGE, tmp_path) == old
        assert files(old.path) == {"result.txt": "old"}
    # A forced stage starts anew, without what the failed one left.
    made = make(STAGE, tmp_path, lambda folder: (folder / "other.txt").write_text("new"), force=True)
    assert files(made.path) == {"other.txt": "new"}


def test_a_kill_while_the_old_artifact_is_deleted_leaves_a_whole_one(tmp_path, monkeypatch):
    make(STAGE, tmp_path, write("old"))

    def killed(folder: Path, **_) -> None:
        if (folder / RECORD).exists():
            (folder / "result.txt").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            make(STAGE, tmp_path, write("new"), force=True)
    assert files(find(STAGE, tmp_path).path) == {"result.txt": "new"}
    newest = make(STAGE, tmp_path, write("newest"), force=True).path
    assert files(newest) == {"result.txt": "newest"}
    assert sorted(path.name for path in newest.parent.iterdir()) == [newest.name, newest.name + ".lock"]


KILLED = """
import os, signal, sys
from pathlib import Path
from eelib.study.store import Stage, make

def count(folder):
    for step in range(5):
        (folder / f"checkpoint-{step}").write_text("killed")
        if step == 2:
            os.kill(os.getpid(), signal.SIGKILL)

make(Stage("agent/tiny-java", "of today", {"steps": 10, "rates": [0.5]}), Path(sys.argv[1]), count)
"""


def test_a_killed_stage_goes_on_from_what_is_there(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert find(STAGE, tmp_path) is None
    found = []

    def go_on(folder: Path) -> None:
        found.extend(sorted(path.name for path in folder.iterdir()))
        (folder / "checkpoint-3").write_text("resumed")

    artifact = make(STAGE, tmp_path, go_on)  # the dead process's lock is free
    assert found == ["checkpoint-0", "checkpoint-1", "checkpoint-2"]
    assert files(artifact.path) == {f"checkpoint-{i}": "killed" for i in range(3)} | {
        "checkpoint-3": "resumed"
    }


def test_two_processes_do_not_make_the_same_stage_at_once(tmp_path):
    started, release, calls = threading.Event(), threading.Event(), []

    def slow(folder: Path) -> None:
        started.set()
        assert release.wait(10)
        write("first", calls)(folder)

    threads = [threading.Thread(target=make, args=(STAGE, tmp_path, slow))]
    threads[0].start()
    assert started.wait(10)
    threads.append(threading.Thread(target=make, args=(STAGE, tmp_path, write("second", calls))))
    threads[1].start()
    threads[1].join(0.1)
    assert threads[1].is_alive() and calls == []  # it waits
    release.set()
    for thread in threads:
        thread.join(10)
    assert calls == ["first"]


# --- no room ---


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path, error):
    def fail(_: Path) -> None:
        raise error

    old = make(STAGE, tmp_path, write("old"))
    with pytest.raises(
        InputError, match=f"The disk has no room for {old.path}: [0-9]+ MiB are free"
    ) as found:
        make(STAGE, tmp_path, fail, force=True)
    assert "\n" not in str(found.value)
    assert files(find(STAGE, tmp_path).path) == {"result.txt": "old"}


def test_whatever_fails_on_a_full_disk_is_for_want_of_room(tmp_path, monkeypatch):
    def fail(_: Path) -> None:
        raise RuntimeError("unexpected pos 576 vs 534")  # what torch says

    with pytest.raises(RuntimeError, match="unexpected pos"):
        make(STAGE, tmp_path, fail)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    with pytest.raises(InputError, match="0 MiB are free"):
        make(STAGE, tmp_path, fail)


def test_a_lock_that_finds_no_room_is_said_too(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.fcntl, "flock", full)
    with pytest.raises(InputError, match="The disk has no room"):
        make(STAGE, tmp_path / "not" / "yet", write("x"))


def test_other_errors_stay_what_they_are(tmp_path):
    def fail(_: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file")

    with pytest.raises(FileNotFoundError):
        make(STAGE, tmp_path, fail)
