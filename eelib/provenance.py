"""Where a result comes from: commit, code, packages, machine."""

import ast
import hashlib
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import pandas as pd
import psutil
import torch

from eelib.paths import PACKAGE

# What these decide stands in a key by its value, or decides no result.
APART = tuple(PACKAGE / file for file in ("profile.py", "provenance.py", "errors.py", "paths.py"))
PACKAGES = (  # of Table 6.4
    "accelerate",
    "codebleu",
    "datasets",
    "gymnasium",
    "numpy",
    "pandas",
    "rapidfuzz",
    "rouge_score",
    "sacrebleu",
    "safetensors",
    "scipy",
    "stable-baselines3",
    "tokenizers",
    "torch",
    "transformers",
    "tree-sitter",
    "zeus",
)


@cache
def commit() -> str:
    """Short hash of the checked-out commit, with `+` when tracked files were changed; "no git" outside a repository."""
    try:
        head = _git("rev-parse", "--short=7", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "no git"
    return head + ("+" if changed else "")


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=PACKAGE, check=True, capture_output=True, text=True
    ).stdout.strip()


@cache
def code_hash(module: str) -> str:
    """Hash of the code that a module of eelib reaches by its imports, itself included; comments and docstrings aside.

    JSON and CSV files beside a module that is reached, such as the lists of frequent literals, count as code.
    """
    digest = hashlib.sha256()
    files = sorted(_reached(module))
    beside = {other for file in files for kind in ("*.json", "*.csv") for other in file.parent.glob(kind)}
    for file in files:
        digest.update(file.relative_to(PACKAGE).as_posix().encode())
        digest.update(_without_docstrings(file.read_text(encoding="utf-8")).encode())
    for file in sorted(beside):
        digest.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _reached(module: str) -> set[Path]:
    """Files of the modules of eelib that one reaches by imports, wherever in a file these stand."""
    reached, waiting = set(), [module]
    while waiting:
        file = _file_of(waiting.pop())
        if file is not None and file not in (*reached, *APART):
            reached.add(file)
            waiting += _imports(file)
    return reached


@cache
def _imports(file: Path) -> list[str]:
    """Dotted names that a file imports; of `from a import b` both `a` and `a.b`, for b may be a module."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *[f"{node.module}.{alias.name}" for alias in node.names]]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name.startswith(f"{PACKAGE.name}.")]


def _file_of(module: str) -> Path | None:
    """The file of a module of eelib; None for what is none, as a function, or a package without code of its own."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def folder_hash(folder: Path) -> str:
    """Hash of all files in a folder, by name and content."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").digest()
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + content)
    return digest.hexdigest()


def _without_docstrings(source: str) -> str:
    """The syntax tree of a file as text: the same for any comment, docstring or layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


def machine() -> dict:
    """What measures, as every stage's record keeps it: `hardware`, `software`, `packages`, `threads`."""
    return {
        "hardware": hardware(),
        "software": software(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "threads": torch.get_num_threads(),
    }


def hardware() -> dict[str, str]:
    """GPU ("none" without one), processor, cores, memory, operating system."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "GPU": gpu,
        "CPU": _processor(),
        "CPU cores": str(psutil.cpu_count(logical=False) or psutil.cpu_count()),
        "RAM": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "OS": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def software() -> dict[str, str]:
    """Python, CUDA and its driver; "none" without a GPU."""
    driver = "none"
    if torch.cuda.is_available():
        import pynvml

        pynvml.nvmlInit()
        driver = pynvml.nvmlSystemGetDriverVersion()
    return {
        "Python": platform.python_version(),
        "CUDA": torch.version.cuda or "none",
        "NVIDIA driver": driver,
    }


def machines(records: list[dict]) -> pd.DataFrame:
    """Table 6.2 of what was measured: a row a machine and commit, with the `stages` that were made there.

    Parameters
    ----------
    records: of stages, each with what `machine` says and its `commit`.
    """
    rows = pd.DataFrame([record["hardware"] | {"commit": record["commit"]} for record in records])
    return rows.value_counts(sort=False).rename("stages").reset_index()


def versions(records: list[dict], what: str) -> pd.DataFrame:
    """Tables 6.3 ("software") and 6.4 ("packages") of what was measured: `name`, `version`; all versions that took part."""
    taken: dict[str, set[str]] = {}
    for record in records:
        for name, version in record[what].items():
            taken.setdefault(name, set()).add(version)
    rows = [(name, ", ".join(sorted(found))) for name, found in taken.items()]
    return pd.DataFrame(rows, columns=["name", "version"])
