"""codecheck.yml: in CODECHECK's form, made from a run's records, and of exhibits that the study makes."""

import json
import re
import sys

import pytest
import yaml

from eelib import paths

sys.path.insert(0, str(paths.ROOT / "scripts"))
import codecheck


def entries() -> list[dict[str, str]]:
    return yaml.safe_load(codecheck.FILE.read_text())["manifest"]


def test_the_manifest_is_what_the_records_say(tmp_path):
    records = tmp_path / "laptop" / "notebooks"
    records.mkdir(parents=True)
    outputs = ["results/laptop/notebooks/01_data_analysis.ipynb", "figures/laptop/fig_a.png"]
    outputs += ["figures/laptop/fig_a.pdf", "/elsewhere/tables/laptop/table_b.csv"]
    (records / "01_data_analysis.json").write_text(json.dumps({"outputs": dict.fromkeys(outputs, "hash")}))
    title = "notebook 1 · The corpora"
    assert codecheck.manifest(tmp_path / "laptop", paths.NOTEBOOKS) == [
        {"file": "figures/laptop/fig_a.png", "comment": title},
        {"file": "tables/laptop/table_b.csv", "comment": title},
    ]
    with pytest.raises(ValueError, match="holds no record of a notebook"):
        codecheck.write(tmp_path / "nothing")


def test_the_file_is_in_the_form_and_as_it_is_made():
    content = yaml.safe_load(codecheck.FILE.read_text())
    assert content["version"] == codecheck.VERSION
    assert content["paper"]["title"].startswith("Towards Resource Efficient Code Generation")
    assert not {"codechecker", "certificate", "report"} & set(content), "no project certifies itself"
    assert codecheck.page(content["manifest"]) == codecheck.FILE.read_text()


def test_every_file_is_an_exhibit_of_the_map_and_its_notebook_is_there():
    map_page = (paths.ROOT / "docs" / "map.md").read_text()
    names = [
        re.sub(r"\\\{.*?\\\}", ".+", re.escape(name))
        for name in re.findall(r"^\| `([^`]+)`", map_page, re.MULTILINE)
    ]
    known = re.compile("|".join([*names, "fig_6_results_.+"]))  # settings that the thesis does not show
    titles = {f"notebook {codecheck.title_of(path)}" for path in paths.NOTEBOOKS.glob("*.ipynb")}
    files = [entry["file"] for entry in entries()]
    assert len(files) == len(set(files)) > 80
    for entry in entries():
        folder, profile, file = entry["file"].split("/")
        stem, suffix = file.rsplit(".", 1)
        assert (folder, suffix) in {("figures", "png"), ("tables", "csv")} and profile == "laptop"
        assert known.fullmatch(stem), file
        assert entry["comment"] in titles
