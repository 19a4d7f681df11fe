"""Build the static site of what a profile found: `build/site/<profile>/html/index.html`.

    .venv/bin/python -m pip install --editable .[site]
    ./run_all.sh --site

It needs no network. The pages are those of `reference/<profile>/`, each with its notebook's code folded where it ran and a table of its
exhibits, every one linked to the functions that made it. Any warning of Sphinx, a broken link among them, is an error.
"""

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEDGER = "11"  # stands first where it is there
FUNCTION = re.compile(r"`([\w/]+)\.py: (\w+)`")
CONFIGURATION = """project = "Dynamic early exits for code generation"
html_title = project
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
"""
STYLE = """article table { display: block; overflow-x: auto; font-size: 80%; border-collapse: collapse; }
article td, article th { padding: 0.2rem 0.5rem; border-bottom: 1px solid var(--color-background-border); white-space: nowrap; }
article td { font-variant-numeric: tabular-nums; }
article .map td { white-space: normal; }
article img { background: white; }
details.code { margin: 1rem 0; }
details.code summary { cursor: pointer; color: var(--color-foreground-secondary); }
"""


def source_link(text: str, depth: str) -> str:
    """Functions as `docs/map.md` names them, linked to their code on the site."""
    return FUNCTION.sub(rf"[`\1.py: \2`]({depth}code/\1.md#\2)", text)


def page(kept: Path, notebook: Path, rows: list[str]) -> str:
    """A kept page, its exhibits, and its notebook's code folded."""
    text = re.sub(
        r"!\[png\]\(([^)]+)\)",
        lambda found: f"![{_heading(kept, found.start())}]({found[1]})",
        kept.read_text(),
    )
    if notebook.exists():
        text = with_code(text, json.loads(notebook.read_text(encoding="utf-8"))["cells"])
    parts = [text.rstrip()]
    if rows:
        head = "| Exhibit | Nodes | Aggregated by | Drawn by |\n|---|---|---|---|"
        body = "\n".join(_without(row, 1) for row in rows)
        table = source_link(f"{head}\n{body}", "../")
        parts.append(f"## What made these exhibits\n\n:::{{container}} map\n\n{table}\n\n:::")
    return "\n\n".join(parts) + "\n"


def with_code(text: str, cells: list[dict]) -> str:
    """A page with the code of its notebook, folded, after the text that stands before it there.

    Text that the page lacks, for the notebook has changed since, is passed over: its code joins that of the text before.
    """
    end, code, places = 0, [], []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            code.append(source)
            continue
        prose = re.sub(r"\s*\n\s*\n", "\n\n", source).strip()  # as a page is kept
        if (found := text.find(prose, end)) >= 0:
            places.append((end, code))
            end, code = found + len(prose), []
    for place, sources in reversed([*places, (end, code)]):
        text = text[:place] + _folded(sources) + text[place:]
    return text


def _folded(sources: list[str]) -> str:
    if not sources:
        return ""
    blocks = "\n\n".join(f"```python\n{source}\n```" for source in sources)
    return f'\n\n<details class="code"><summary>Code</summary>\n\n{blocks}\n\n</details>\n\n'


def _heading(kept: Path, position: int) -> str:
    """The last heading before a picture, which is what it shows."""
    before = kept.read_text()[:position]
    headings = re.findall(r"^#+ (.+)$", before, re.MULTILINE)
    return re.sub(r"[\[\]$\\]", "", headings[-1]) if headings else "figure"


def _without(row: str, column: int) -> str:
    """A row of a Markdown table without one of its cells."""
    cells = row.strip("|").split("|")
    return "|" + "|".join(cells[:column] + cells[column + 1 :]) + "|"


def code_pages(table: str) -> dict[str, str]:
    """A page a file of eelib that `docs/map.md` names, with its functions."""
    named: dict[str, dict[str, None]] = {}
    for file, function in FUNCTION.findall(table):
        named.setdefault(file, {})[function] = None
    pages = {}
    for file, functions in sorted(named.items()):
        place = "../" * (file.count("/") + 1)
        shown = [
            f"## {name}\n\n```{{literalinclude}} {place}eelib/{file}.py\n:pyobject: {name}\n:language: python\n```"
            for name in functions
        ]
        pages[file] = f"# eelib/{file}.py\n\n" + "\n\n".join(shown) + "\n"
    return pages


def write_sources(profile: str, target: Path) -> None:
    """Write what Sphinx builds the site from."""
    kept = ROOT / "reference" / profile
    shutil.rmtree(target, ignore_errors=True)
    (target / "pages").mkdir(parents=True)
    (target / "_static").mkdir()
    (target / "conf.py").write_text(CONFIGURATION)
    (target / "_static" / "site.css").write_text(STYLE)
    table = (ROOT / "docs" / "map.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    stems = sorted(
        (path.stem for path in kept.glob("[0-9]*.md")), key=lambda stem: (not stem.startswith(LEDGER), stem)
    )
    for stem in stems:
        own = [row for row in rows if row.split("|")[2].strip() == stem[:2]]
        text = page(kept / f"{stem}.md", ROOT / "notebooks" / f"{stem}.ipynb", own)
        (target / "pages" / f"{stem}.md").write_text(text)
        shutil.copytree(kept / stem, target / "pages" / stem)
    shutil.copytree(
        ROOT / "eelib",
        target / "eelib",
        ignore=lambda folder, names: [
            name for name in names if not (name.endswith(".py") or (Path(folder) / name).is_dir())
        ],
    )
    for file, text in code_pages(table).items():
        path = target / "code" / f"{file}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    files = "\n".join(sorted(code_pages(table)))
    listed = f"# Code\n\nThe functions that exhibits are made by.\n\n```{{toctree}}\n:titlesonly:\n\n{files}\n```\n"
    (target / "code" / "index.md").write_text(listed)
    for name in ("map", "graph", "data", "decisions"):
        (target / f"{name}.md").write_text(
            _of_site(source_link((ROOT / "docs" / f"{name}.md").read_text(), ""))
        )
    (target / "index.md").write_text(_index(kept, stems))


def _of_site(text: str) -> str:
    """A page of the repository: what is no page of the site is named and not linked."""
    text = re.sub(r"\]\((?:\.\./)*docs/(map|graph|data|decisions)\.md", r"](\1.md", text)
    text = re.sub(
        r"\[([^\]]+)\]\((?!http|#|code/|pages/|(?:map|graph|data|decisions)\.md)[^)]+\)", r"\1", text
    )
    return text.replace("```mermaid", "```text")


def _index(kept: Path, stems: list[str]) -> str:
    """The first page: what was found, and the pages."""
    found = re.sub(r"\]\((\d\d_\w+)\.md\)", r"](pages/\1.md)", (kept / "README.md").read_text())
    pages = "\n".join(f"pages/{stem}" for stem in stems)
    return (
        f"{_of_site(found)}\n```{{toctree}}\n:hidden:\n:caption: Findings\n\n{pages}\n```\n\n"
        "```{toctree}\n:hidden:\n:caption: How\n\nmap\ngraph\ndata\ndecisions\ncode/index\n```\n"
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", nargs="?", default="laptop", help="whose kept pages, e.g. laptop")
    profile = parser.parse_args().profile
    if not (ROOT / "reference" / profile / "README.md").exists():
        known = ", ".join(sorted(path.name for path in (ROOT / "reference").glob("*") if path.is_dir()))
        parser.exit(2, f"error: nothing is kept of the profile {profile!r}: allowed are {known}.\n")
    if missing := [
        name for name in ("sphinx", "myst_parser", "furo") if importlib.util.find_spec(name) is None
    ]:
        parser.exit(
            2,
            f"error: {', '.join(missing)} is not installed: {sys.executable} -m pip install --editable .[site] brings it.\n",
        )
    folder = ROOT / "build" / "site" / profile
    write_sources(profile, folder / "source")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-E",
        "-W",
        "--keep-going",
        "-b",
        "html",
        folder / "source",
        folder / "html",
    ]
    if (code := subprocess.run(command, check=False).returncode) != 0:
        parser.exit(1, f"error: Sphinx ended with {code}; its warnings stand above.\n")
    print(f"{folder / 'html' / 'index.html'}")


if __name__ == "__main__":
    main()
