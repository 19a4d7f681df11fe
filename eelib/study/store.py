"""The store: what a stage made, kept on disk under the hash of everything that decides it.

A stage's folder is written beside its final place and renamed when whole, so a folder that exists is complete. A killed
stage leaves its unfinished folder, from which the same stage goes on when it can (training finds its checkpoints there).
"""

import errno
import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from eelib.errors import InputError
from eelib.provenance import commit, machine
from eelib.study.exhibits import hashes_of

RECORD = "stage.json"


@dataclass(frozen=True)
class Artifact:
    """What a stage made: a folder, and the key that names its content."""

    path: Path
    key: str

    @property
    def record(self) -> dict:
        """How it came to be: name, configuration, inputs, commit, seconds, and the machine that made it."""
        return json.loads((self.path / RECORD).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Stage:
    """One node of the graph at one place: for one model, language, seed and so on.

    Attributes
    ----------
    name: node and place, e.g. "agent/opt-pico-java-seed0"; becomes the folder's name.
    code: hash of the code that makes it (`provenance.code_hash`).
    config: everything else that decides the result, JSON values only.
    inputs: what it reads, by name, with their keys.
    """

    name: str
    code: str
    config: dict[str, Any]
    inputs: dict[str, str] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """Hash of name, code, configuration and inputs."""
        content = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def folder(self, root: Path) -> Path:
        return root / f"{self.name}-{self.key[:12]}"


def find(stage: Stage, root: Path) -> Artifact | None:
    """The stage's artifact when it has been made already."""
    folder = stage.folder(root)
    return Artifact(folder, stage.key) if (folder / RECORD).exists() else None


def make(stage: Stage, root: Path, function: Callable[[Path], None], force: bool = False) -> Artifact:
    """Find the stage's artifact or make it with `function(folder)`.

    The function writes its files into the folder it is given; what an earlier, killed call left there is still there.
    With `force` it is made anew, and the old artifact stays in place until the new one is whole.
    """
    folder = stage.folder(root)
    partial, replaced = (folder.with_name(folder.name + suffix) for suffix in (".partial", ".replaced"))
    with room_on_disk(folder), lock(folder):
        if not force and (found := find(stage, root)):
            return found
        if force:
            shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(exist_ok=True)
        started = time.perf_counter()
        function(partial)
        record = {
            "name": stage.name,
            "key": stage.key,
            "config": stage.config,
            "inputs": stage.inputs,
            "code": stage.code,
            "files": hashes_of(partial),
            "commit": commit(),
            "seconds": round(time.perf_counter() - started, 1),
        } | machine()
        (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if folder.exists():  # moved first: a kill while it is deleted must not leave half of it in place
            shutil.rmtree(replaced, ignore_errors=True)
            folder.rename(replaced)
        partial.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    return Artifact(folder, stage.key)


@contextmanager
def lock(folder: Path):
    """Keep two processes from working in the same folder at once; a killed process lets go by itself."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(folder.name + ".lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def room_on_disk(target: Path):
    """Turn the failure of a write for want of room into InputError.

    Only Python's own writes say so by their type; torch, numpy and safetensors raise errors of their own, so whatever
    fails on a full disk counts.
    """
    try:
        yield
    except Exception as error:
        free = shutil.disk_usage(next(folder for folder in target.absolute().parents if folder.exists())).free
        by_type = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not by_type and "No space left on device" not in str(error) and free >= 2**20:
            raise
        raise InputError(
            f"The disk has no room for {target}: {free / 2**20:.0f} MiB are free; what was finished is kept, so free some "
            "and run again."
        ) from error
