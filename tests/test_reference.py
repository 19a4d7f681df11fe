"""What is kept of a run: pages without code, data as declared, and findings that are the data's."""

import re
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from eelib.errors import InputError
from eelib.report.findings import findings
from eelib.study.datasets import DATASETS

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import keep_reference

KEPT = sorted(path for path in (ROOT / "reference").glob("*") if path.is_dir())


def executed() -> nbformat.NotebookNode:
    """A notebook as papermill leaves it: shown code, progress, a table, a picture, a sentence."""
    table = '<style type="text/css">\n</style>\n<table id="T_">\n <tr><td id="c" class="data">0.5</td></tr>\n</table>'
    code = '<style>pre {}</style><div class="highlight">def secret(): ...</div>'
    data = [
        {"text/html": code},
        {"text/html": table},
        {"image/png": "aGVsbG8="},
        {"text/markdown": "It is **0.5**."},
    ]
    outputs = [new_output("stream", name="stderr", text="progress")]
    outputs += [new_output("display_data", data=item) for item in data]
    return new_notebook(
        cells=[new_markdown_cell("# 1 · A title"), new_code_cell("secret()", outputs=outputs)],
        metadata={"language_info": {"name": "python"}},
    )


def test_a_page_has_text_tables_pictures_and_sentences_and_no_code():
    text, pictures = keep_reference.page(executed())
    assert text.startswith("# 1 · A title\n") and "It is **0.5**." in text
    assert "<table><tr><td>0.5</td></tr></table>" in text
    assert list(pictures.values()) == [b"hello"] and f"]({next(iter(pictures))})" in text
    for left_out in ("secret", "progress", "style", "highlight"):
        assert left_out not in text


def test_a_profile_that_has_not_run_is_refused_and_what_was_kept_stays(tmp_path):
    (tmp_path / "kept").mkdir()
    with pytest.raises(InputError, match="There is no run of the profile 'laptop' to keep"):
        keep_reference.keep("laptop", tmp_path, tmp_path / "kept")
    assert (tmp_path / "kept").exists()


def test_findings_stand_between_the_markers():
    start, end = keep_reference.MARKERS
    assert keep_reference.with_findings(f"a\n{start}old\n{end}\nb", "- new") == f"a\n{start}- new\n{end}\nb"


def test_findings_by_hand():
    methods = ["stopping", "probe", "agent", "confidence", "coin", "fixed", "oracle"]
    cost = pd.DataFrame({"model": "m", "language": "java", "method": methods})
    cost["agreement_at_0.7"] = [0.95, 0.9, 0.8, 0.5, 0.7, 0.6, 1.0]
    cost["share"], cost["low"], cost["high"] = (
        [start + place / 100 for place in range(4)] + [None] * 3 for start in (0.2, 0.1, 0.3)
    )
    for rival, low in {"agent": 0.1, "probe": -0.01, "confidence": -0.1}.items():
        cost[f"over_{rival}_low"] = [low, *[0] * 3, *[None] * 3]
    data = pd.DataFrame(
        {"model": "m", "language": "java", "learnt_from": ["completions", "real text", "real text", "both"]}
    )
    data["tokens"], data["share"], data["low"], data["high"] = (
        [10, 2000, 4000, 4010],
        [0.1, 0.2, 0.3, 0.4],
        0.0,
        1.0,
    )
    kept = pd.DataFrame({"model": "m", "language": "java", "tolerated": [0.02, 0.1] * 2, "prompts": 200})
    kept["method"] = ["naive"] * 2 + ["Learn-then-Test, betting"] * 2
    kept["broken"], kept["depth"] = [0.3, 0.4, 0.01, 0.02], [0.5, 0.6, 0.9, 0.8]
    found = findings(cost, data, kept)
    kept_at = (
        "optimal stopping 0.95, probe 0.90, PPO agent 0.80, confidence 0.50, coin 0.70, fixed exit 0.60."
    )
    assert f"m on Java: {kept_at}" in found[0]
    assert "optimal stopping 0.20 [0.10, 0.30], probe 0.21 [0.11, 0.31], PPO agent 0.22" in found[1]
    assert (
        "above PPO's in 1 of 1 settings, above the probe's, a classifier of right and wrong, in 0" in found[2]
    )
    assert found[2].endswith("whole vocabulary, in 0.")
    assert (
        "10 tokens of the full model's completions give a share of 0.10 [0.00, 1.00], 4,000 of real text 0.30"
        in found[3]
    )
    assert (
        "at most 2.0% of promises" in found[4]
        and "naively, up to 40%" in found[4]
        and "m on Java 0.90." in found[4]
    )


@pytest.mark.parametrize("reference", KEPT, ids=lambda path: path.name)
def test_what_is_kept_is_whole(reference):
    """Every link leads somewhere, every dataset has its declared columns, the findings are those of the data."""
    for page in reference.glob("*.md"):
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (reference / link).exists(), f"{page.name}: {link}"
    for path in (reference / "results").glob("*.parquet"):
        assert set(pd.read_parquet(path).columns) <= set(DATASETS[path.stem])
    assert keep_reference.found(reference) in (reference / "README.md").read_text()
    if reference.name == "laptop":
        readme = (ROOT / "README.md").read_text()
        assert keep_reference.found(reference) in readme
        for link in re.findall(r"\]\((reference/[^)]+)\)", readme):
            assert (ROOT / link).exists(), link
