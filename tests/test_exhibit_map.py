"""docs/map.md: true to the notebooks, and traced as one would by hand."""

import json
import re
import sys

from eelib.provenance import PACKAGE

sys.path.insert(0, str(PACKAGE.parent / "scripts"))
import exhibit_map
from exhibit_map import Exhibit, exhibits

CODE = """
from eelib.evaluation.results import evaluation_frame, savings
from eelib.report import chapter6_agent as figures
from eelib.report.naming import short
from eelib.rl import trained
from eelib.server import measure
made = ("agent", "rollouts")
kept = []
for place in study.contexts:
    frame = evaluation_frame(study.table_of("full_predictions", **place))
    frame["x"] = savings(frame)
    if len(frame):
        kept.append(frame.mean())
number = {"java": "fig_1", "python": "fig_2"}[key]
display(study.figure(figures.reward_curves(trained.rewards(log)), f"{number}_{short(name)}", *made, model=name))
study.table(kept, "table_1", "full_predictions", *made, floats={})
study.table(pd.DataFrame(), "table_2", measure.SERVING)
study.table(pd.DataFrame(), "table_3")
"""


def test_an_exhibit_is_traced_to_its_functions(tmp_path):
    notebook = tmp_path / "01_x.ipynb"
    notebook.write_text(json.dumps({"cells": [{"cell_type": "code", "source": [CODE]}]}))
    drawn, computed = ("eelib.report.chapter6_agent.reward_curves",), ("eelib.rl.trained.rewards",)
    results = "eelib.evaluation.results"
    *figures, first, second, third = exhibits(notebook)
    assert figures == [
        Exhibit(f"{number}_{{short(name)}}", "01_x", ("agent", "rollouts"), computed, drawn)
        for number in ("fig_1", "fig_2")
    ]
    assert first.name == "table_1" and first.nodes == ("full_predictions", "agent", "rollouts")
    assert set(first.computed) == {f"{results}.evaluation_frame", f"{results}.savings"} and first.drawn == ()
    assert second == Exhibit("table_2", "01_x", ("serving",), (), ())
    assert third == Exhibit("table_3", "01_x", (), (), ())


def test_the_map_is_that_of_the_notebooks():
    text = (PACKAGE.parent / "docs/map.md").read_text()
    assert text == exhibit_map.page(), "run .venv/bin/python scripts/exhibit_map.py"
    text = (PACKAGE.parent / "docs/graph.md").read_text()
    assert text == exhibit_map.graph_page(), "run .venv/bin/python scripts/exhibit_map.py"
    text = (PACKAGE.parent / "docs/data.md").read_text()
    assert text == exhibit_map.data_page(), "run .venv/bin/python scripts/exhibit_map.py"


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
