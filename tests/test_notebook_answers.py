"""The Answer of every notebook: numbers known by hand on a made-up run, and the form that all notebooks share."""

import ast
import functools
import importlib
import inspect
import json
import math
import re
import sys
from dataclasses import replace

import pandas as pd
import pytest
from claimed import SETTINGS, world

from eelib import paths
from eelib.evaluation.claims import CLAIMS
from eelib.evaluation.claims.claim import POSITIVE, Reading
from eelib.evaluation.claims.results import Results, where
from eelib.gpu import measured
from eelib.report import notebook_answers as answers
from eelib.study import notebook as shown_by
from eelib.study.graph import NODES
from eelib.study.notebook import closed

sys.path.insert(0, str(paths.ROOT / "scripts"))
import fold_code

WORDS = 400
NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
OPTED = [("opt-pico", "java")]


@functools.cache
def whole() -> Results:
    return world()


def run(settings: list[tuple[str, str]] | None = None) -> Results:
    """The made-up run, of some settings, with what the answers ask of it beside the claims."""
    made = whole()
    frames = dict(made.frames)
    stopping = pd.DataFrame(
        {"model": model, "language": language, "method": "stopping", "share": 0.5, "low": 0.4, "high": 0.6}
        | {"over_agent": 0.2, "over_agent_low": 0.1, "over_agent_high": 0.3}
        for model, language in SETTINGS
    )
    frames["equal_cost"] = pd.concat([frames["equal_cost"], stopping], ignore_index=True)
    promised = {"Learn-then-Test, betting": 0.02, "naive": 0.3}
    frames["promises"] = pd.DataFrame(
        {"model": model, "language": language, "prompts": prompts, "method": method, "broken": broken + worse}
        for model, language in SETTINGS
        for prompts, worse in ((50, 0.4), (200, 0.0))
        for method, broken in promised.items()
    )
    rows = frames["predictions"]
    frames["predictions"] = rows.assign(tokens=[list(range(15))] * len(rows))
    frames["timings"] = pd.concat([frames["timings"], deciding()], ignore_index=True)
    served = frames["serving"]
    frames["serving"] = served.assign(milliseconds=100 * served["threshold"] + served["prompt"])
    chosen = settings or made.settings
    kept = {name: _of(rows, chosen) for name, rows in frames.items()}
    families = {model: made.families[model] for model, _ in chosen}
    return replace(made, frames=kept, settings=chosen, families=families)


def deciding() -> pd.DataFrame:
    """Prompts of opt-pico on Java beside those of the claims: an agent takes 3 s, its exits without it 2 s, the full model 4 s."""
    seconds = {"full": 4.0, "agent": 3.0, "scripted": 2.0}
    rows = [
        {
            "criterion": criterion,
            "seconds": value + 0.1 * sample,
            "sample": f"d{sample}",
            "threshold": threshold,
        }
        for sample in range(2)
        for criterion, value in seconds.items()
        for threshold in ([math.nan] if criterion == "full" else [0.6, 0.9])
    ]
    place = {"model": "opt-pico", "language": "java", "context_fraction": 0.3, "kind": "aggregated"}
    return pd.DataFrame(rows).assign(node="apart", cache="none", **place)


def _of(rows: pd.DataFrame, settings: list[tuple[str, str]]) -> pd.DataFrame:
    names = [name for name in ("model", "language") if name in rows]
    wanted = pd.DataFrame(settings, columns=["model", "language"])[names].drop_duplicates()
    return rows.merge(wanted, on=names)


def losses(settings: list[tuple[str, str]]) -> pd.DataFrame:
    rows = {"layer": [4, 32], "base": [6.0, 2.0], "plain": [5.0, 1.5], "aggregated": [3.0, 1.75]}
    return pd.concat(
        [pd.DataFrame(rows).assign(model=model, language=language) for model, language in settings]
    )


def session() -> pd.DataFrame:
    return pd.DataFrame({"threshold": [0.6, 1.0], "requests": 7, "time_s": [1.0, 4.0], "gflops": [3.0, 4.0]})


ALL = {
    "01": answers.corpora,
    "02": lambda results: answers.fine_tuning(losses(results.settings), results),
    "03": answers.fixed_exits,
    "04": answers.learning,
    "05": answers.evaluation,
    "06": answers.overhead,
    "07": answers.caching,
    "09": lambda results: answers.endpoint(results, session()),
}


@pytest.mark.parametrize("settings", [None, OPTED], ids=str)
@pytest.mark.parametrize("number", [name for name in ALL if name != "09"])
def test_two_to_five_whole_sentences_whatever_ran(number, settings):
    said = ALL[number](run(settings))
    assert 2 <= len(said) <= 5
    for sentence in said:
        assert sentence.endswith(".") and "nan" not in sentence
        assert "  " not in sentence and " ." not in sentence


def test_what_did_not_run_is_said_so():
    one = run(OPTED)
    predictions = where(one["predictions"], context_fraction=0.2)
    said = answers.evaluation(replace(one, frames=one.frames | {"predictions": predictions}))
    assert said[-1] == "“Larger contexts lose more” is not measured here: that needs two contexts."
    assert "opt-pico, Java" in said[0] and "smollm2-135m" not in " ".join(said)


def test_a_single_threshold_is_no_trade_off():
    one = run(OPTED)
    predictions = one["predictions"]
    rows = predictions[predictions["threshold"].isin([0.9]) | predictions["threshold"].isna()]
    said = answers.evaluation(replace(one, frames=one.frames | {"predictions": rows}))
    assert said[0].count("T = ") == 1
    assert said[3].startswith("“The threshold trades depth for quality” is not measured here")


def test_no_oracle_that_wins_leaves_nothing_to_share():
    made = run()
    empty = made["equal_cost"].assign(share=math.nan, over_agent=math.nan)
    said = answers.learning(replace(made, frames=made.frames | {"equal_cost": empty}))
    assert said[2].startswith("How much of what an oracle wins optimal stopping wins is not measured")


def test_numbers_by_hand():
    made = run(OPTED)
    # EARLY: of 15 tokens 5 leave at layer 4 at T = 0.94, the others at 32: 5 * 28 / (15 * 32) are saved.
    assert f"at T = 0.94 {5 * 28 / (15 * 32):.3g} [" in answers.evaluation(made)[0]
    assert "-3.00 nats (1 setting)" in answers.fine_tuning(losses(OPTED), made)[0]
    assert "loss by +0.25 nats" in answers.fine_tuning(losses(OPTED), made)[1]
    said = answers.learning(made)
    assert "it wins 0.5 [0.4, 0.6] (opt-pico, Java)" in said[2] and "that is 0.2 [0.1, 0.3]" in said[2]
    assert (
        "chosen on 200 prompts" in said[3] and "at most 2.0%" in said[3] and "up to 30.0% naively" in said[3]
    )
    alone = replace(made, frames=made.frames | {"timings": deciding()})
    said = answers.overhead(alone)[0]  # the second prompt takes 0.1 s more of each
    exits, agent = ((first + second) / 2 for first, second in ((0.5, 2 / 4.1), (0.25, 1 / 4.1)))
    assert f"decide: {exits:.3g} [" in said and f"it is {agent:.3g} [" in said
    assert "this share of the tokens of a completion at T = 0.9: " in answers.caching(made)[0]
    said = answers.endpoint(run(), session())
    # Prompt 5 at T = 0.6 takes 65 ms of 105, prompt 0 60 of 100.
    assert f"takes {60 / 100:.2f} to {65 / 105:.2f} times as long" in said[0]
    assert "takes 25% of the time of full depth and 75% of its FLOPs" in said[1]


def test_tokens_that_a_cache_changes_are_counted():
    made = run(OPTED)
    rows = made["predictions"].copy()
    cached = (rows["node"] == "cached_predictions") & (rows["threshold"] == 0.9)
    rows.loc[cached, "tokens"] = pd.Series([[99] * 3 + list(range(3, 15))] * cached.sum(), rows.index[cached])
    said = answers.caching(replace(made, frames=made.frames | {"predictions": rows}))[0]
    assert "at T = 0.9: 0.2 [" in said


def test_a_claims_numbers_are_told_or_not():
    def bearing(*values: float, error: float = 0.1) -> str:
        readings = [
            Reading(f"m{place}", value, error, 30, "31 projects", POSITIVE)
            for place, value in enumerate(values)
        ]
        claims = CLAIMS["dips"]
        answers.CLAIMS["dips"] = replace(claims, check=lambda _: readings)
        try:
            return answers.bears_on("dips", Results({}, [], {}))
        finally:
            answers.CLAIMS["dips"] = claims

    assert bearing(1.0).endswith("1 [0.796, 1.2] (m0); within beyond the interval.")
    assert bearing(-1.0).endswith("outside beyond the interval.")
    assert bearing(0.1).endswith("cannot be told at this size.")
    assert bearing(0.1, error=math.nan).endswith(
        "0.1 [no interval: 31 projects] (m0); cannot be told at this size."
    )
    several = bearing(1.0, 0.1, -1.0, 2.0)
    assert "least in favour -1 [-1.2, -0.796] (m2), most 2 [1.8, 2.2] (m3)" in several
    assert several.endswith(
        "of 4 numbers 2 within beyond the interval, 1 outside beyond the interval, 1 cannot be told at this size."
    )
    assert bearing() == "“Untrained layers dip” is not measured here: that needs all layers' accuracy."


def test_the_thesis_sizes_are_answered_without_a_measurement():
    said = measured.answer(pd.DataFrame(), pd.DataFrame())
    assert len(said) == 1 and said[0].startswith("Not measured: nothing of a GPU is kept")
    even = pd.DataFrame(
        {"cache": ["none", "propagate", "recompute"], "break_even_time": [5.0, 16.0, math.nan]}
    )
    beside = pd.DataFrame({"cache": ["none", "propagate"], "of_cached_time_with_agent": [2.0, 0.75]})
    said = measured.answer(even, beside)
    assert "in 1 of 2 settings" in said[0] and "save 25% to 25% of the cached" in said[1] and len(said) == 3


# --- the form of notebooks ---


def code_of(path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def in_view(path) -> int:
    """Words of code, between blanks, that a reader sees without a click: cells that are not folded, and functions that are shown open."""
    words, names = 0, {}
    for cell in code_of(path):
        source = "".join(cell["source"])
        if fold_code.TAG not in cell["metadata"].get("tags", []):
            words += len(source.split())
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("eelib"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    found = getattr(module, alias.name, None)
                    names[alias.asname or alias.name] = found or importlib.import_module(full)
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "show_source":
                shown = eval(f"[{', '.join(map(ast.unparse, node.args))}]", names)
                words += sum(
                    len(inspect.getsource(function).split()) for function in shown_by.in_view(*shown)
                )
    return words


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_asks_and_answers(path):
    cells = json.loads(path.read_text())["cells"]
    first = "".join(cells[0]["source"])
    assert re.search(r"\*\*[A-Z][^*]+\?\*\*", first), "it opens with its question"
    heads = [
        line
        for cell in cells
        if cell["cell_type"] == "markdown"
        for line in "".join(cell["source"]).splitlines()
        if line.startswith("## ")
    ]
    assert heads[-1] == "## Answer"
    assert "say(" in "".join(cells[-1]["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_little_code_is_in_view(path):
    assert in_view(path) <= WORDS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_code_is_folded_as_the_script_folds_it(path):
    content = json.loads(path.read_text())
    assert fold_code.folded(content) == content


@pytest.mark.parametrize("number", [name for name in ALL if name not in ("01", "09")])
def test_an_answer_needs_no_later_notebook(number):
    (path,) = paths.NOTEBOOKS.glob(f"{number}_*.ipynb")
    *before, last = ["".join(cell["source"]) for cell in code_of(path)]
    starred = set(re.findall(r"\*(\w+)", last))
    assigned = [line for source in before for line in source.splitlines() if line.split(" = ")[0] in starred]
    named = [text for text in re.findall(r'"(\w+)"', "\n".join([last, *assigned])) if text in NODES]
    assert all(NODES[name].notebook <= number for name in named)
    assert named


def bears_on_nothing():
    """Two lines of code."""


def test_what_is_long_is_shown_closed():
    def long():
        """It is <long>."""

    class Code:
        def _repr_html_(self):
            return '<div class="highlight"></div>'

    text = closed(long, Code())
    assert (
        text.startswith("<details><summary>")
        and "It is &lt;long&gt;." in text
        and 'class="highlight"' in text
    )
    short, long = bears_on_nothing, test_numbers_by_hand
    assert shown_by.in_view(long, short, short) == [short, short]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_readme_says_what_a_notebook_asks(path):
    """Its heading, its question, and exhibits of it that are in the map."""
    first = "".join(json.loads(path.read_text())["cells"][0]["source"])
    title = first.splitlines()[0].lstrip("# ")
    question = re.search(r"\*\*([A-Z][^*]+\?)\*\*", first)[1].replace("\n", " ")
    head = f"| [{title}](notebooks/{path.name}) | {question} | "
    (row,) = (line for line in (paths.ROOT / "README.md").read_text().splitlines() if line.startswith(head))
    shown = re.findall(r"`(\w+)`", row.removeprefix(head))
    page = (paths.ROOT / "docs" / "map.md").read_text()
    own = re.findall(rf"^\| `([^`]+)` \| {path.name[:2]} ", page, re.MULTILINE)
    assert shown
    for name in shown:
        assert any(exhibit.startswith(name) or name in exhibit for exhibit in own), name
