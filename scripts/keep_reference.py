"""Keep what a run found, to be read without running it: `reference/<profile>/`.

    .venv/bin/python scripts/keep_reference.py laptop

Writes a page a notebook, its text, figures, tables and computed sentences without its code, the page that lists them, and the tidy
datasets in compressed parquet, and the hashes of all of it. What was kept before of that profile is replaced. The laptop profile's findings also go into README.md,
between two markers, and its files into codecheck.yml.
"""

import argparse
import json
import re
import shutil
from pathlib import Path

import codecheck
import nbformat
import pandas as pd
from nbconvert import MarkdownExporter
from nbformat import NotebookNode

from eelib import paths
from eelib.errors import InputError
from eelib.report.findings import findings
from eelib.study.datasets import DATASETS
from eelib.study.exhibits import hashes_of
from eelib.study.store import RECORD
from eelib.study.verify.check import MANIFEST

HEADER = """# What the {profile} profile found

{found}

Below are every figure, table and computed sentence of one run of `./run_all.sh --profile {profile}`, kept by `scripts/keep_reference.py`;
made at commit {commits}. The notebooks hold the code; [docs/map.md](../../docs/map.md) names the
function behind each exhibit. `results/` holds the tidy data, explained in [docs/data.md](../../docs/data.md).

"""
MARKERS = ("<!-- found by the laptop profile -->\n", "<!-- end -->")


def page(notebook: NotebookNode) -> tuple[str, dict[str, bytes]]:
    """An executed notebook without code, as Markdown, and its pictures by name."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [_bare(output) for output in cell.outputs if _is_finding(output)]
    exporter = MarkdownExporter(exclude_input=True)
    text, resources = exporter.from_notebook_node(notebook)
    return re.sub(r"\s*\n\s*\n", "\n\n", text).strip() + "\n", resources["outputs"]


def _is_finding(output: NotebookNode) -> bool:
    """Not the code that a notebook shows, nor progress and warnings."""
    return "data" in output and 'class="highlight"' not in output["data"].get("text/html", "")


def _bare(output: NotebookNode) -> NotebookNode:
    """A table without its style, which a page of a repository does not show."""
    if "text/html" in output["data"]:
        table = re.sub(r"<style.*?</style>", "", output["data"]["text/html"], flags=re.DOTALL)
        table = re.sub(r' (class|id|scope|border|style)="[^"]*"', "", table)
        output["data"]["text/html"] = re.sub(r"\n\s*", "", table)
    return output


def keep(profile: str, results: Path, target: Path) -> None:
    """Write the pages and datasets of a finished run; InputError if there is none."""
    executed = sorted((results / "notebooks").glob("*.ipynb"))
    if not executed:
        raise InputError(
            f"There is no run of the profile {profile!r} to keep: {results} has no executed notebooks."
        )
    shutil.rmtree(target, ignore_errors=True)
    (target / "results").mkdir(parents=True)
    lines = []
    for path in executed:
        text, pictures = page(nbformat.read(path, as_version=4))
        folder = target / path.stem
        folder.mkdir()
        for name, picture in pictures.items():
            (folder / name).write_bytes(picture)
            text = text.replace(f"]({name})", f"]({path.stem}/{name})")
        (target / f"{path.stem}.md").write_text(text)
        lines.append(f"- [{text.splitlines()[0].lstrip('# ')}]({path.stem}.md)")
    for dataset in DATASETS:
        if (results / dataset).exists():
            rows = pd.read_parquet(results / dataset)
            rows.to_parquet(target / "results" / f"{dataset}.parquet", index=False, compression="zstd")
    commits = {json.loads(path.read_text())["commit"] for path in (results / "stages").rglob(RECORD)}
    header = HEADER.format(profile=profile, found=found(target), commits=", ".join(sorted(commits)))
    (target / "README.md").write_text(header + "\n".join(lines) + "\n")
    (target / MANIFEST).write_text(json.dumps(hashes_of(target, leave_out=(MANIFEST,)), indent=1) + "\n")


def found(reference: Path) -> str:
    """The findings of what is kept, as a list."""
    names = ("equal_cost", "probe_data", "promises")
    datasets = [pd.read_parquet(reference / "results" / f"{name}.parquet") for name in names]
    return "\n".join(f"- {sentence}" for sentence in findings(*datasets))


def with_findings(readme: str, sentences: str) -> str:
    """The text with what stands between its markers replaced."""
    before, rest = readme.split(MARKERS[0])
    return before + MARKERS[0] + sentences + "\n" + MARKERS[1] + rest.split(MARKERS[1], 1)[1]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", help="whose run to keep, e.g. laptop")
    profile = parser.parse_args().profile
    try:
        keep(profile, paths.results() / profile, target := paths.REFERENCE / profile)
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    if profile == "laptop":
        readme = paths.ROOT / "README.md"
        readme.write_text(with_findings(readme.read_text(), found(target)))
        codecheck.write(paths.results() / profile)


if __name__ == "__main__":
    main()
