"""docs/map.md: true to the notebooks, and traced as one would by hand."""

import json
import re
import sys

from eelib.study.provenance import PACKAGE

sys.path.insert(0, str(PACKAGE.parent / "scripts"))
import exhibit_map
from exhibit_map import Exhibit, exhibits

CODE = """
from eelib.pipeline import agents, results
from eelib.report import chapter6_agent as figures
from eelib.report.naming import short
study = agents.all_agents(profile)
kept = []
for key in results.contexts_of(study):
    frame = results.evaluation_frame(study, *key)
    frame["x"] = agents.convergence(frame)
    if len(frame):
        kept.append(frame.mean())
number = {"java": "fig_1", "python": "fig_2"}[key]
display(study.figure(figures.reward_curves(agents.reward_frame(study)), f"{number}_{short(name)}"))
study.table(kept, "table_1", *study.made)
study.table(pd.DataFrame(), "table_2")
"""


def test_an_exhibit_is_traced_to_its_functions(tmp_path):
    notebook = tmp_path / "01_x.ipynb"
    notebook.write_text(json.dumps({"cells": [{"cell_type": "code", "source": [CODE]}]}))
    drawn, computed = ("eelib.report.chapter6_agent.reward_curves",), ("eelib.pipeline.agents.reward_frame",)
    results = "eelib.pipeline.results"
    sources = ("eelib.pipeline.agents.convergence", f"{results}.evaluation_frame", f"{results}.contexts_of")
    *figures, first, second = exhibits(notebook)
    assert figures == [
        Exhibit(f"{number}_{{short(name)}}", "01_x", computed, drawn) for number in ("fig_1", "fig_2")
    ]
    assert (first.name, set(first.computed), first.drawn) == ("table_1", set(sources), ())
    assert second == Exhibit("table_2", "01_x", (), ())


def test_the_map_is_that_of_the_notebooks():
    text = (PACKAGE.parent / "docs/map.md").read_text()
    assert text == exhibit_map.page(), "run .venv/bin/python scripts/exhibit_map.py"


def test_the_map_holds_every_exhibit_that_a_notebook_names():
    text = (PACKAGE.parent / "docs/map.md").read_text()
    for notebook in (PACKAGE.parent / "notebooks").glob("*.ipynb"):
        code = "".join(
            line
            for cell in json.loads(notebook.read_text())["cells"]
            if cell["cell_type"] == "code"
            for line in cell["source"]
        )
        for name in set(re.findall(r'"((?:fig|table)_[a-z0-9_]+)', code)):
            assert name in text or f'load("{name}' in code, (notebook.name, name)
