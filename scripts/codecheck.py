"""Write codecheck.yml: what a run of the default profile makes, for whoever checks that it can be made again.

    .venv/bin/python scripts/codecheck.py results/laptop

The form is CODECHECK's configuration 1.0 (codecheck.org.uk). The manifest lists every figure and table as the records of a finished
run name them. Who checked, when and with what result is for an outsider to add: a project does not certify itself.
`scripts/keep_reference.py laptop` writes it as well.
"""

import argparse
import json
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
FILE = ROOT / "codecheck.yml"
VERSION = "https://codecheck.org.uk/spec/config/1.0"
COMPARED = (".png", ".csv")  # beside each lies the same as .pdf or .md
HEADER = """# In the form of CODECHECK, made by scripts/codecheck.py from the records of a run; ./run_all.sh makes the files again.
# ./run_all.sh --compare says, cell by cell, where a run differs from what is kept, beyond the noise of times.
"""


def manifest(results: Path, notebooks: Path) -> list[dict[str, str]]:
    """Every figure and table that a run's notebooks wrote, in their order, with the notebook that says what it shows.

    Args:
        results: folder of a profile's run, whose name is the profile's.
        notebooks: folder of the notebooks.
    """
    entries = []
    for record in sorted((results / "notebooks").glob("[0-9][0-9]_*.json")):
        title = title_of(notebooks / f"{record.stem}.ipynb")
        for output in map(Path, json.loads(record.read_text())["outputs"]):
            if output.suffix in COMPARED:
                file = "/".join(output.parts[-3:])  # figures/<profile>/<name>, wherever the run wrote
                entries.append({"file": file, "comment": f"notebook {title}"})
    return entries


def title_of(notebook: Path) -> str:
    """A notebook's heading, such as "1 · The corpora"."""
    first = json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]
    return "".join(first["source"]).splitlines()[0].lstrip("# ")


def page(entries: list[dict[str, str]]) -> str:
    """The text of codecheck.yml; the paper is the one that CITATION.cff names."""
    (thesis,) = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    authors = [{"name": f"{author['given-names']} {author['family-names']}"} for author in thesis["authors"]]
    content = {
        "version": VERSION,
        "paper": {"title": thesis["title"], "authors": authors},
        "manifest": entries,
    }
    return f"---\n{HEADER}{yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=200)}"


def write(results: Path) -> None:
    """Write the repository's codecheck.yml from a run; ValueError if it has no records of notebooks."""
    entries = manifest(results, ROOT / "notebooks")
    if not entries:
        raise ValueError(f"{results} holds no record of a notebook: allowed is the folder of a finished run.")
    FILE.write_text(page(entries), encoding="utf-8")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="folder of the run, e.g. results/laptop")
    try:
        write(parser.parse_args().results)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
