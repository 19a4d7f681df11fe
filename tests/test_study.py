"""The study's graph at work: what is made once, what decides it, where it goes; and that the declared graph is whole."""

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import torch

from eelib import paths
from eelib.errors import InputError
from eelib.profile import load_profile
from eelib.study import datasets, store, study
from eelib.study.described import described
from eelib.study.graph import AXES, NODES
from eelib.study.node import Input, Node
from eelib.study.notebooks import notebooks
from eelib.study.study import MissingStage, Study, made_keys

CALLS: list[tuple] = []  # of the functions below, in their order


def write(language: str, new_tokens: int, folder: Path) -> None:
    """A node that writes a file."""
    CALLS.append(("write", language))
    (folder / "text").write_text(f"{language} {new_tokens}")


def take(text: str, folder: Path) -> None:
    """What is there already."""
    (folder / "text").write_text(text)


def measure(
    source: str, source_key: str, language: str, thresholds: list[float], samples: int
) -> pd.DataFrame:
    """A node that makes some thresholds in one call."""
    CALLS.append(("measure", language, tuple(thresholds)))
    rows = [
        {"threshold": t, "sample": s, "read": source, "key": source_key}
        for t in thresholds
        for s in range(samples)
    ]
    return pd.DataFrame(rows)


def time_it(sources: dict[str, str]) -> pd.DataFrame:
    """A node that is timed, over all languages."""
    CALLS.append(("time",))
    return pd.DataFrame([{"seconds": len(text), "of": language} for language, text in sources.items()])


def read(folder: Path, profile) -> str:
    return (folder / "text").read_text()


SOURCE = Node(
    "source", "01", write, ("language",), fields=("context.new_tokens",), load=read, loaded_by=("dtype",)
)
MEASURED = Node(
    "measured",
    "02",
    measure,
    ("language", "threshold"),
    {"source": Input("source")},
    ("evaluation.samples",),
    together="threshold",
    dataset="rows",
)
TIMED = Node(
    "timed",
    "02",
    time_it,
    inputs={"sources": Input("source", over="language")},
    timed=True,
    dataset="rows",
)
TOY = {node.name: node for node in (SOURCE, MEASURED, TIMED)}


@pytest.fixture(autouse=True)
def toy(monkeypatch, tmp_path) -> Iterator[None]:
    """A graph of three nodes, in an empty folder, in a process that has made nothing yet."""
    monkeypatch.setattr(study, "NODES", TOY)
    columns = {"node": pa.string(), "language": pa.string(), "threshold": pa.float64(), "sample": pa.int64()}
    columns |= {"read": pa.string(), "key": pa.string(), "seconds": pa.float64(), "of": pa.string()}
    columns = {name: (kind, "") for name, kind in columns.items()}
    monkeypatch.setattr(datasets, "DATASETS", {"rows": columns})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EELIB_OUTPUT", ".")
    CALLS.clear()
    made_keys.clear()
    yield
    made_keys.clear()


def opened(notebook: str, **changes) -> Study:
    profile = replace(load_profile("ci"), threads=1)
    evaluation = replace(profile.evaluation, thresholds=[0.6, 0.9], samples=2)
    return Study(notebook, replace(profile, evaluation=evaluation, **changes), "ci")


def with_thresholds(study: Study, *thresholds: float) -> Study:
    evaluation = replace(study.profile.evaluation, thresholds=list(thresholds))
    return Study(study.notebook, replace(study.profile, evaluation=evaluation), "ci")


# --- making and finding ---


def test_a_notebook_makes_its_own_and_finds_what_is_there():
    first = opened("01").make("source")
    assert [artifact.path.parent for artifact in first] == [Path("results/ci/stages/source")] * 2
    assert CALLS == [("write", "java"), ("write", "python")]
    assert opened("01").make("source") == opened("02").make("source") == first
    assert len(CALLS) == 2
    assert opened("02").load("source", language="python") == f"python {load_profile('ci').context.new_tokens}"


def test_a_missing_stage_names_the_notebook_that_makes_it():
    with pytest.raises(MissingStage) as error:
        opened("05").need("source", language="java")
    assert str(error.value) == (
        "source/java is missing for the ci profile as it is configured now: run notebooks/01_data_analysis.ipynb first "
        "(./run_all.sh --profile ci --only 01)."
    )
    assert CALLS == [] and not Path("results").exists()


def test_a_table_has_its_place_in_columns_and_is_a_tidy_dataset():
    opened("01").make("source")
    rows = opened("02").table_of("measured")
    assert len(rows) == 2 * 2 * 2
    assert rows.columns.tolist()[:2] == ["language", "threshold"]
    assert CALLS[2:] == [("measure", "java", (0.6, 0.9)), ("measure", "python", (0.6, 0.9))]
    java = opened("02").table_of("measured", language="java", threshold=0.9)
    assert java[["language", "threshold", "sample"]].to_numpy().tolist() == [
        ["java", 0.9, 0],
        ["java", 0.9, 1],
    ]
    opened("02").make("timed")
    dataset = pd.read_parquet("results/ci/rows")
    of_node = dataset[dataset["node"] == "measured"].sort_values(
        ["language", "threshold", "sample"], ignore_index=True
    )
    pd.testing.assert_frame_equal(of_node[rows.columns], rows, check_dtype=False)
    other = dataset[dataset["node"] == "timed"]
    assert other["of"].tolist() == ["java", "python"] and other["threshold"].isna().all()


def test_a_column_that_the_dataset_does_not_declare_is_refused():
    with pytest.raises(ValueError, match="measured has columns .* does not declare: .'extra'"):
        datasets.write_rows(pd.DataFrame({"extra": [1]}), "measured", "rows", Path("x"))


def test_one_more_threshold_costs_only_its_own_call():
    opened("01").make("source")
    study = opened("02")
    before = study.make("measured")
    more = with_thresholds(study, 0.6, 0.8, 0.9)
    after = more.make("measured")
    assert CALLS[4:] == [("measure", "java", (0.8,)), ("measure", "python", (0.8,))]
    assert set(before) < set(after) and len(after) == 6


def test_an_input_over_an_axis_is_all_of_it_and_a_key_is_that_of_the_input():
    sources = opened("01").make("source")
    assert opened("02").table_of("timed")["of"].tolist() == ["java", "python"]
    keys = opened("02").table_of("measured").groupby("language")["key"].first()
    assert keys.tolist() == [artifact.key for artifact in sources]


def test_what_is_ready_is_taken_and_no_field_decides(monkeypatch):
    ready = replace(SOURCE, ready=lambda profile, place: {"text": "there"}, take=take)
    monkeypatch.setitem(TOY, "source", ready)
    keys = [opened("01").make("source")[0].key]
    assert opened("01").load("source", language="java") == "there" and CALLS == []
    context = replace(load_profile("ci").context, new_tokens=3)
    keys.append(opened("01", context=context).make("source")[0].key)
    monkeypatch.setitem(TOY, "source", replace(ready, ready=lambda profile, place: {"text": "other"}))
    keys.append(opened("01").make("source")[0].key)
    assert keys[0] == keys[1] != keys[2]


def test_what_is_timed_has_all_threads_and_what_is_not_has_one():
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        (java, _), (timed,) = opened("01").make("source"), opened("02").make("timed")
        assert (java.record["threads"], timed.record["threads"]) == (1, 3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_force_makes_each_stage_anew_once():
    made = opened("01").make("source")
    made_keys.clear()
    forced = replace(opened("01"), force=True)
    forced.make("source")
    forced.need("source", language="java")
    assert len(CALLS) == 4
    assert replace(opened("02"), force=True).make("source") == made  # of another notebook: found
    assert len(CALLS) == 4


# --- keys ---


def key(study: Study, node: Node = MEASURED, **place) -> str:
    place = place or {"language": "java", "threshold": 0.6}
    return study.stage(node, place).key


def test_a_key_holds_fields_inputs_and_how_these_are_loaded_and_nothing_else():
    usual = opened("02")
    profile = usual.profile
    same = [
        opened("02", threads=2),
        opened("02", fixed_exits=replace(profile.fixed_exits, samples=99)),
        with_thresholds(usual, 0.6, 0.7),
    ]
    others = [
        opened("02", context=replace(profile.context, new_tokens=3)),  # of the input
        opened("02", dtype="bfloat16"),  # of loading the input
        Study("02", replace(profile, evaluation=replace(profile.evaluation, samples=3)), "ci"),
    ]
    assert {key(study) for study in same} == {key(usual)}
    keys = {key(usual), *map(key, others), key(usual, language="python", threshold=0.6)}
    assert len(keys) == len(others) + 2


def test_a_time_belongs_to_its_threads_and_device(monkeypatch):
    def timed(study: Study) -> str:
        return study.stage(TIMED, {}).key

    keys = [timed(opened("02")), timed(opened("02", threads=2))]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    keys.append(timed(opened("02")))
    assert len(set(keys)) == 3


# --- exhibits ---


def test_a_stamp_names_the_commits_that_made_the_inputs_and_leads_to_them(monkeypatch):
    for language, commit in {"java": "aaaaaaa", "python": "bbbbbbb"}.items():
        monkeypatch.setattr(store, "commit", lambda commit=commit: commit)
        opened("01").need("source", language=language)
    stamp = opened("01").stamp("source")
    assert stamp.startswith("ci profile · commit aaaaaaa, bbbbbbb · inputs ")
    assert stamp != opened("01").stamp("source", language="java")
    kept = json.loads(Path(f"results/ci/stamps/{stamp[-8:]}.json").read_text())
    assert sorted(kept) == sorted(artifact.path.as_posix() for artifact in opened("01").make("source"))
    assert opened("01").stamp().endswith("from the configuration alone")


# --- the declared graph ---


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_a_nodes_function_takes_what_the_node_declares_and_all_of_it(node):
    profile = load_profile("ci")
    place = {axis: AXES[axis](profile)[0] for axis in node.axes}
    together = {f"{node.together}s"} if node.together else set()
    fields = set(node.settings(profile, place)) | set(node.given(profile, place))
    inputs = {name: {name, f"{name}_key"} for name in node.inputs}
    offered = {*place, *together, *fields, *set().union(*inputs.values()), "folder"}
    taken = set(node.arguments)
    assert taken <= offered
    assert fields - {"fingerprint", "content"} <= taken  # hashes of files decide, and are not read
    assert all(names & taken for names in inputs.values())
    assert together <= taken
    assert inspect.getmodule(node.function).__name__.startswith("eelib.")


def test_the_graph_has_no_cycle_and_names_notebooks_in_their_order():
    declared = set(re.findall(r"^## (\w+)$", (paths.ROOT / "docs/data.md").read_text(), re.MULTILINE))
    order = {name: place for place, name in enumerate(NODES)}
    for node in NODES.values():
        assert node.notebook in notebooks()
        for source in node.inputs.values():
            assert order[source.node] < order[node.name]
            assert NODES[source.node].notebook <= node.notebook
            loose = set(NODES[source.node].axes) - set(node.axes) - set(source.at) - {source.over}
            assert not loose, (node.name, source.node, loose)
        assert not node.is_table or node.dataset in declared
        assert f"{node.name}  (notebook {node.notebook}" in described()


def test_bad_input_in_a_node_stays_one_sentence(monkeypatch):
    def refuse(language: str, new_tokens: int, folder: Path) -> None:
        raise InputError("The language is 'x': allowed is none.")

    monkeypatch.setitem(TOY, "source", replace(SOURCE, function=refuse))
    with pytest.raises(InputError, match="The language is 'x': allowed is none."):
        opened("01").make("source")
