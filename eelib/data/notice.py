"""`NOTICE.md` of the shipped corpora: every project with version, licence, origin and size, and whose copyright it is."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from eelib.data.archives import SUFFIX, licence_files, package_author
from eelib.data.packages import SourcePackage, fetch
from eelib.data.shipped import shipped_records

MOST_LINES = 8  # statements quoted from a project's licence files
MOST_HEADERS = 3  # from the heads of its files, where it has no licence file that says whose it is
_HEAD = 1500  # characters of a file in which its header stands
_COPYRIGHT = re.compile(r"^\W*((portions )?copyright\b.*(\d{4}|\(c\)|©).*|©.*)$", re.IGNORECASE)
_PRODUCT = re.compile(r"This product includes software[^.]*?(?:\.\s|\(http\S+\))", re.IGNORECASE | re.DOTALL)
# Lines of a licence's own text, and of its template for other people's.
_TEMPLATE = re.compile(
    r"\[yyyy\]|<year>|\{yyyy\}|copyright (notice|owner|holder|license|law|statement)|19yy", re.IGNORECASE
)
_REGISTRY = {"pypi": "PyPI", "debian-source": "Debian", "npm": "npm"}
_ABOUT = """# Sources of the shipped corpora

`java.parquet` and `python.parquet` hold files of the projects below, unchanged in the column `source` and as tokens in
the column `code`. Each file remains under its project's licence; the texts are in `licences/`. Versions, archives and
hashes are in `eelib/data/sources.csv`; `python -m eelib.data.build` makes the corpora and this file from them.
"""


def copyright_lines(text: str) -> list[str]:
    """The copyright statements in a text, a line each, as they stand there but for comment signs and blanks."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    found = [line for line in lines if len(line) <= 200 and _COPYRIGHT.match(line)]
    found += [" ".join(product.split()) for product in _PRODUCT.findall(text)]
    return [line.strip("*#/; ") for line in found if not _TEMPLATE.search(line)]


def archive_statements(archive: Path) -> list[str]:
    """The statements in the licence and notice files nearest to an archive's top, at most eight."""
    found: dict[str, None] = {}
    for path, text in licence_files(archive):
        if PurePosixPath(path).suffix not in SUFFIX.values() and path.count("/") <= 2:
            found |= dict.fromkeys(copyright_lines(text))
    return list(found)[:MOST_LINES]


def header_statements(sources: Iterable[str]) -> list[str]:
    """The most frequent statements in the heads of source files, at most three."""
    counts = Counter(line for source in sources for line in set(copyright_lines(source[:_HEAD])))
    return [line for line, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_HEADERS]]


def write_notice(packages: list[SourcePackage], cache_dir: Path, out: Path) -> None:
    """Write `out / "NOTICE.md"` for the corpora that lie in `out`."""
    lines = [_ABOUT]
    for language in SUFFIX:
        frame = pd.DataFrame(list(shipped_records(language, out)))
        projects = dict(list(frame.assign(tokens=frame["code"].map(len)).groupby("project")))
        lines += [
            f"\n## {language.capitalize()}\n",
            "| project | version | licence | origin | era | split | files | tokens |",
            "|---|---|---|---|---|---|---|---|",
        ]
        chosen = [package for package in packages if package.project in projects]
        for package in chosen:
            files = projects[package.project]
            lines.append(
                f"| {package.project} | {package.version} | {package.licence} | {_REGISTRY[package.registry]} "
                f"| {package.era} | {package.split} | {len(files)} | {files['tokens'].sum()} |"
            )
        lines.append(f"\n### Copyright statements of the {language.capitalize()} projects\n")
        for package in chosen:
            archive = fetch(package, cache_dir)
            statements = archive_statements(archive) or header_statements(projects[package.project]["source"])
            said = (
                "; ".join(statements)
                or f"no statement; its author is {package_author(archive) or 'not named'}"
            )
            lines.append(f"- **{package.project}**: {said}")
    (out / "NOTICE.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
