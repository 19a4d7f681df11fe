"""`NOTICE.md` of the shipped corpora: every project with version, licence, origin and size, and whose copyright it is."""

import re
from pathlib import Path, PurePosixPath

import pandas as pd

from eelib.data.archives import licence_files
from eelib.data.packages import SourcePackage, fetch
from eelib.data.shipped import shipped_records

MOST_LINES = 8  # copyright lines quoted from a project
_COPYRIGHT = re.compile(
    r"^\W*((portions )?copyright\b.*(\d{4}|\(c\)|©).*|©.*|this product includes .*)$", re.IGNORECASE
)
# Lines of a licence's own text, and of its template for other people's.
_TEMPLATE = re.compile(
    r"\[yyyy\]|<year>|\{yyyy\}|copyright (notice|owner|holder|license|law|statement)|19yy", re.IGNORECASE
)
_REGISTRY = {
    "pypi": "PyPI",
    "debian": "Debian",
    "debian-source": "Debian (source package)",
    "npm": "npm",
}
_HEAD = """# Sources of the shipped corpora

`java.parquet` and `python.parquet` hold files of the projects below, unchanged in the column `source` and as tokens in
the column `code`. Each file remains under its project's licence; the texts are in `licences/`. Versions, archives and
hashes are in `eelib/data/sources.csv`; `python -m eelib.data.build` makes the corpora and this file from them.
"""


def copyright_lines(archive: Path) -> list[str]:
    """The copyright statements in the licence and notice files nearest to an archive's top, at most eight."""
    found: dict[str, None] = {}
    for path, text in licence_files(archive):
        if PurePosixPath(path).suffix in (".py", ".java") or path.count("/") > 2:
            continue
        for line in text.splitlines():
            line = " ".join(line.split())
            if len(line) <= 200 and _COPYRIGHT.match(line) and not _TEMPLATE.search(line):
                found[line.strip("*#/ ")] = None
    return list(found)[:MOST_LINES]


def write_notice(packages: list[SourcePackage], cache_dir: Path, out: Path) -> None:
    """Write `out / "NOTICE.md"` for the corpora that lie in `out`."""
    lines = [_HEAD]
    for language in ("java", "python"):
        frame = pd.DataFrame(
            {"project": row["project"], "tokens": len(row["code"])} for row in shipped_records(language, out)
        )
        sizes = frame.groupby("project")["tokens"].agg(["size", "sum"])
        lines += [
            f"\n## {language.capitalize()}\n",
            "| project | version | licence | origin | era | split | files | tokens |",
            "|---|---|---|---|---|---|---|---|",
        ]
        chosen = [
            package for package in packages if package.language == language and package.project in sizes.index
        ]
        for package in chosen:
            files, tokens = sizes.loc[package.project]
            lines.append(
                f"| {package.project} | {package.version} | {package.licence} | {_REGISTRY[package.registry]} "
                f"| {package.era} | {package.split} | {files} | {tokens} |"
            )
        lines.append(f"\n### Copyright statements in the {language.capitalize()} projects' licence files\n")
        for package in chosen:
            statements = copyright_lines(fetch(package, cache_dir))
            quoted = "; ".join(statements) or "none in a file of its own: see the headers of its files"
            lines.append(f"- **{package.project}**: {quoted}")
    (out / "NOTICE.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
