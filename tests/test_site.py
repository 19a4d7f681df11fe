"""The site: asked for by a flag, refused in one sentence, each page with its notebook's code folded where it ran."""

import importlib.util
import json
import subprocess
import sys

import pytest

from eelib import paths
from eelib.study import run

# Not by its name, which is one of the standard library's.
SPEC = importlib.util.spec_from_file_location("study_site", paths.ROOT / "scripts" / "site.py")
site = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(site)


def test_the_flag_builds_the_profiles_site(monkeypatch):
    asked = []

    def built(command, check):
        asked.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(run.subprocess, "run", built)
    with pytest.raises(SystemExit) as ended:
        run.run(run.parse(["--site", "--profile", "laptop"]))
    assert ended.value.code == 3
    assert asked == [[sys.executable, str(paths.ROOT / "scripts" / "site.py"), "laptop"]]


@pytest.mark.parametrize(
    ("profile", "sentence"),
    [
        ("laptop", "is not installed: {python} -m pip install --editable .[site] brings it."),
        ("nowhere", "nothing is kept of the profile 'nowhere': allowed are laptop"),
    ],
)
def test_what_is_missing_is_one_sentence(monkeypatch, capsys, profile, sentence):
    monkeypatch.setattr(site.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["site.py", profile])
    with pytest.raises(SystemExit) as ended:
        site.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert sentence.format(python=sys.executable) in said and said.count("\n") == 1


def test_code_is_folded_below_the_text_that_it_follows(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# 1 · A title\n", "\n", "A **question?**"]},
        {"cell_type": "code", "source": ["first()"]},
        {"cell_type": "code", "source": ["second()"]},
        {"cell_type": "markdown", "source": ["## Next"]},
        {"cell_type": "code", "source": ["third()"]},
        {"cell_type": "markdown", "source": ["## Not on the page"]},
        {"cell_type": "code", "source": ["fourth()"]},
    ]
    (tmp_path / "01_a.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "01_a.md").write_text("# 1 · A title\n\nA **question?**\n\nIt is 1.\n\n## Next\n\nIt is 2.\n")
    text = site.page(tmp_path / "01_a.md", tmp_path / "01_a.ipynb", [])
    parts = ["question", "first()", "second()", "It is 1", "## Next", "third()", "fourth()", "It is 2"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert text.count("<details") == text.count("</details>") == 2
