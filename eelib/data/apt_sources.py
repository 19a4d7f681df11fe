"""Options under which `apt-get source` finds source packages, without a change to the system's own configuration."""

import atexit
import functools
import re
import shlex
import subprocess
import tempfile
from pathlib import Path


@functools.cache
def source_options() -> list[str]:
    """Options of apt-get for source packages from wherever the system takes its binary ones.

    The system's entries are copied with the type deb-src into a folder of this process, whose lists are fetched once.
    """
    temporary = tempfile.TemporaryDirectory(prefix="apt-sources-")
    atexit.register(temporary.cleanup)
    folder = Path(temporary.name)
    folder.chmod(0o755)  # apt fetches as a user of its own
    for part in ("entries", "state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    for file in _entry_files():
        (folder / "entries" / file.name).write_text(as_source_entries(file.read_text(encoding="utf-8")))
    settings = {
        "Dir::State": folder / "state",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": folder / "entries",
        "APT::Sandbox::User": "root",  # the download goes to a folder that only its owner may enter
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    # A list that cannot be fetched is a warning here: what it would have held is missed where it is asked for.
    subprocess.run(["apt-get", *options, "update"], check=False, capture_output=True)
    return options


def as_source_entries(entries: str) -> str:
    """Entries of a `.list` or `.sources` file with their types made deb-src."""
    entries = re.sub(r"^deb(?=[ \t])", "deb-src", entries, flags=re.MULTILINE)
    return re.sub(r"^Types:.*$", "Types: deb-src", entries, flags=re.MULTILINE)


def _entry_files() -> list[Path]:
    names = ["LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"]
    shell = subprocess.run(["apt-config", "shell", *names], check=True, capture_output=True, text=True).stdout
    places = dict(word.split("=", 1) for word in shlex.split(shell))
    parts = Path(places.get("PARTS", "/nonexistent"))
    files = [Path(places["LIST"])] if "LIST" in places else []
    files += [*sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]
    return [file for file in files if file.is_file()]
