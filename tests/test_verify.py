"""Verifying and comparing small results made by hand: right ones pass, and each wrong one is named."""

import json

import numpy as np
import pandas as pd
import pytest

from eelib.errors import InputError
from eelib.profile import load_profile
from eelib.report.figures import new_figure, save_figure
from eelib.report.tables import save_table
from eelib.study.exhibits import keep_exhibit
from eelib.study.store import Stage, make
from eelib.study.verify import exhibits, records, relations, rivals, tidy
from eelib.study.verify.check import verify
from eelib.study.verify.compare import OTHERS, TIMED, compare, compared, counted, noise_ratios
from eelib.study.verify.finding import Place, Report
from eelib.study.verify.kept import KeptStudy, read_datasets
from eelib.study.verify.redraw import bare
from eelib.systems import fitted


def promises() -> pd.DataFrame:
    """One setting: who tolerates more promises more."""
    rows = pd.DataFrame({"node": "promises", "model": "m", "language": "java", "tolerated": [0.02, 0.05]})
    return rows.assign(prompts=50, method="naive", broken=[0.1, 0.2], early=[0.5, 1.0], depth=[0.9, 0.8])


def broken(relation, data) -> list[str]:
    return [why for why, rows in relation(data) if len(rows)]


def test_promises_that_cannot_be_are_named():
    assert broken(rivals.promised, {"promises": promises()}) == []
    assert broken(rivals.promised, {"promises": promises().assign(broken=[0.1, 0.2013])}) == [
        "broken is a number of draws of 200"
    ]
    assert "who tolerates more runs no more layers" in broken(
        rivals.promised, {"promises": promises().assign(depth=[0.8, 0.9])}
    )
    assert "without early exits all layers run" in broken(
        rivals.promised, {"promises": promises().assign(early=[0.0, 1.0], broken=[0.0, 0.2])}
    )


def test_promises_elsewhere_are_those_made_at_home():
    across = promises().assign(tested_on="python", node="promises_across")
    assert broken(rivals.promised_across, {"promises": promises(), "promises_across": across}) == []
    other = across.assign(early=[0.4, 1.0])
    assert broken(rivals.promised_across, {"promises": promises(), "promises_across": other}) == [
        "what is promised is chosen at home"
    ]


def other_systems() -> pd.DataFrame:
    """Votes, and the policies that all are compared with."""
    rows = pd.DataFrame({"model": "m", "language": "java", "method": ["votes", "probe", "stopping"]})
    return rows.assign(share=[0.1, 0.3, 0.4], over_probe=[-0.2, 0.0, 0.1], over_stopping=[-0.3, -0.1, 0.0])


def test_systems_that_do_not_fit_the_account_are_named():
    compared = other_systems().iloc[1:][["model", "language", "method", "share"]]
    curves = pd.DataFrame(
        {"model": "m", "language": "java", "cost": 0.5, "method": [*fitted.POLICIES, "oracle", "coin"]}
    )
    data = {
        "systems": other_systems(),
        "equal_cost": compared,
        "system_curves": curves.assign(agreement=[0.8, 0.8, 0.8, 0.9, 0.7]),
    }
    assert broken(rivals.other_systems, data) == []
    assert broken(
        rivals.other_systems, data | {"systems": other_systems().assign(over_probe=[-0.1, 0.0, 0.1])}
    ) == ["what a system wins over probe is the difference of shares"]
    assert broken(rivals.other_systems, data | {"equal_cost": compared.assign(share=[0.3, 0.5])}) == [
        "a criterion wins the same beside other systems as at equal cost"
    ]
    assert broken(
        rivals.other_systems, data | {"system_curves": curves.assign(agreement=[0.8, 0.95, 0.8, 0.9, 0.7])}
    ) == ["no policy is above the oracle"]


def layers() -> pd.DataFrame:
    """Every layer of a model of 8 layers on one sample of four tokens."""
    rows = pd.DataFrame({"model": "llama-random", "language": "java", "kind": "base", "layer": range(1, 9)})
    rows["sample"], rows["tokens"], rows["accuracy"] = "a", 4, 0.5
    return rows.assign(agreement=[0.0] * 7 + [1.0])


def test_layers_bound_each_other():
    assert broken(relations.layer_scores, {"layers": layers()}) == []
    apart = layers().assign(agreement=[0.75] * 7 + [1.0])
    apart.loc[0, "accuracy"] = (
        1.0  # two tokens apart from the last layer's, which it agrees with on three of four
    )
    assert broken(relations.layer_scores, {"layers": apart}) == [
        "a layer's accuracy is away from the last layer's by at most the tokens on which they differ"
    ]
    assert "the last layer agrees with itself" in broken(
        relations.layer_scores, {"layers": layers().assign(agreement=0.75)}
    )


def test_values_units_and_rows_are_held_against_the_dictionary():
    for change, said in {
        "depth": ({"depth": [0.9, 80.0]}, "promises: depth is 80.0"),
        "language": ({"language": ["java", "jav"]}, "promises: language is jav "),
    }.values():
        report = Report()
        tidy.check_values({"promises": promises().assign(**change)}, report)
        assert report.wrong[0][1].startswith(said)
    report = Report()
    tidy.check_whole({"promises": pd.concat([promises(), promises().head(1)])}, report)
    assert "has a row twice" in report.wrong[0][1]


def test_a_stage_that_was_changed_is_named(tmp_path):
    stage = Stage("corpus/java", "code", {"place": {"language": "java"}}, {})
    made = make(stage, tmp_path / "results/ci/stages", lambda folder: (folder / "a.txt").write_text("a"))
    place, report = Place.of_run("ci", tmp_path), Report()
    records.check_records(place, report)
    records.check_files(place, report)
    assert report.wrong == []
    (made.path / "a.txt").write_text("b")
    records.check_files(place, report)
    record = made.path / "stage.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"code": "other"}))
    records.check_records(place, report)
    assert [check for check, _ in report.wrong] == ["hashes", "records"]
    assert "a.txt" in report.wrong[0][1] and "its key is" in report.wrong[1][1]


@pytest.fixture
def shown(tmp_path) -> Place:
    """A run with one figure and one table."""
    place, stamp = Place.of_run("ci", tmp_path), "ci profile · commit 1a2b3c4 · from the configuration alone"
    figure, axes = new_figure(1, 1, (2, 2))
    axes[0, 0].plot([1, 2])
    for name, files in {
        "fig_a": save_figure(figure, "fig_a", place.figures, stamp),
        "table_a": save_table(pd.DataFrame({"a": [1]}), "table_a", place.tables, stamp),
    }.items():
        keep_exhibit(place.results, name, stamp, files)
    return place


def exhibit_findings(place: Place) -> list[str]:
    report = Report()
    exhibits.check_hashes(place, report)
    exhibits.check_stamped(place, report)
    return [check for check, _ in report.wrong]


def test_stamps_are_read_from_every_kind_of_file(shown):
    assert exhibit_findings(shown) == []
    stamps = {
        exhibits.stamp_of(path) for files in exhibits.files_of(shown).values() for path in files.values()
    }
    assert stamps == {"ci profile · commit 1a2b3c4 · from the configuration alone"}


def test_an_edited_table_and_an_exchanged_picture_are_named(shown):
    table = shown.tables / "table_a.csv"
    table.write_text(table.read_text().replace("commit 1a2b3c4", "commit 0000000"))
    assert exhibit_findings(shown) == ["hashes", "stamps"]
    (shown.figures / "fig_a.png").rename(shown.figures / "fig_b.png")
    assert exhibit_findings(shown).count("hashes") == 3  # of table_a, fig_a and fig_b


def test_nothing_to_verify_is_said(tmp_path):
    with pytest.raises(InputError, match="nothing of the profile 'ci' to verify"):
        verify(load_profile("ci", {}), tmp_path)


def test_a_table_is_compared_without_its_looks():
    assert (
        bare('<style>x</style><table class="a">\n <td id="b">1</td></table>') == "<table><td>1</td></table>"
    )


def timings(seconds: list[float]) -> pd.DataFrame:
    """The base and the tuned model at full depth."""
    rows = pd.DataFrame({"node": "timings", "model": "m", "language": "java", "kind": ["base", "aggregated"]})
    rows = rows.assign(
        context_fraction=0.2, criterion="full", threshold=np.nan, seed=-1, cache="none", sample="a"
    )
    return rows.assign(
        repeat=0, tokens=15, seconds=seconds, joules=np.nan, energy_source="none", decisions=np.nan
    )


def test_a_cell_is_equal_within_noise_or_different():
    kept = {"timings": timings([1.0, 1.0]), "promises": promises()}
    here = {"timings": timings([1.4, 4.0]), "promises": promises().assign(depth=[0.9, 0.7])}
    table = counted(compared(here, kept, {"none": 1.5, OTHERS: 9.0})).set_index("dataset")
    assert table.loc["timings", ["within noise", "different"]].tolist() == [1, 1]
    assert table.loc["promises", ["equal", "different"]].tolist() == [7, 1]
    missing = counted(compared({"promises": promises().head(1)}, {"promises": promises()}, {OTHERS: 1.5}))
    assert missing["missing here"].tolist() == [1] and missing["missing there"].tolist() == [0]


def twice(ratios: list[float], cache: str) -> pd.DataFrame:
    """Base and tuned model at full depth, a sample a ratio of their times."""
    rows = pd.concat([timings([1.0, 1.0])] * len(ratios), ignore_index=True)
    samples = [f"s{number}" for number in range(len(ratios))]
    seconds = np.stack([np.ones(len(ratios)), ratios], axis=1).ravel()
    return rows.assign(sample=np.repeat(samples, 2), seconds=seconds, cache=cache)


def test_noise_is_what_the_same_work_shows():
    # Two times, and z of 1 - 0.05 / 4 over that of 0.975: ln 3 times 2.2414 / 1.96.
    noise = noise_ratios({"timings": timings([1.0, 3.0])})
    assert noise == pytest.approx({"none": 3 ** (2.241403 / 1.959964), OTHERS: 3 ** (2.241403 / 1.959964)})
    assert noise_ratios({"promises": promises()}) == {OTHERS: 1.5}
    assert noise_ratios({"timings": timings([1.0, 3.0]).head(1)}) == {OTHERS: 1.5}


def test_one_slow_completion_widens_no_noise_and_a_cache_mode_has_its_own():
    calm, loud = [1.05] * 40, [1.4] * 40
    rows = pd.concat([twice(calm, "none"), twice(loud, "propagate")], ignore_index=True)
    noise = noise_ratios({"timings": rows})
    assert noise["none"] == 1.5 < noise["propagate"] == noise[OTHERS] < 2.5
    outlier = pd.concat([twice([*calm[1:], 50.0], "none"), twice(loud, "propagate")], ignore_index=True)
    assert noise_ratios({"timings": outlier}) == noise


@pytest.fixture(scope="module")
def kept_run() -> dict[str, pd.DataFrame]:
    """What is kept of the laptop run, without most of its many completions."""
    kept = read_datasets(Place.of_reference("laptop").results, ".parquet")
    return kept | {"predictions": kept["predictions"].iloc[::40].reset_index(drop=True)}


def test_a_second_run_of_the_same_machine_is_equal_or_within_noise(kept_run):
    draw = np.random.default_rng(0)
    full = kept_run["timings"].query("criterion == 'full'")
    pairs = full.groupby(["model", "language", "context_fraction", "cache", "sample"])["seconds"]
    # What equal work differs by, as measured in the run itself, moves every time of the second one.
    spread = np.log((pairs.max() / pairs.min())[pairs.count() > 1]).quantile(0.95) / 1.96
    again = {name: rows.copy() for name, rows in kept_run.items()}
    moved = 0
    for rows in again.values():
        for column in (name for name in TIMED if name in rows):
            rows[column] *= np.exp(draw.normal(0, spread, len(rows)))
            moved += rows[column].notna().sum()
    cells = compared(again, kept_run, noise_ratios(again, kept_run))
    assert set(cells["verdict"]) == {"equal", "within noise"}
    assert (cells["verdict"] == "within noise").sum() == moved > 100


def test_other_completions_and_other_speeds_are_different(kept_run):
    noise = noise_ratios(kept_run)
    predictions = kept_run["predictions"].copy()
    predictions.loc[3, "prediction"] += " x"
    predictions.loc[4, "token_accuracy"] += 0.01
    serving = kept_run["serving"].assign(
        milliseconds=1.2 * noise[OTHERS] * kept_run["serving"]["milliseconds"]
    )
    cells = compared(kept_run | {"predictions": predictions, "serving": serving}, kept_run, noise)
    wrong = cells[cells["verdict"] != "equal"]
    assert set(wrong["verdict"]) == {"different"}
    assert wrong.groupby("column").size().to_dict() == {
        "milliseconds": len(serving), "prediction": 1, "token_accuracy": 1
    }  # fmt: skip


def test_a_comparison_writes_what_differs(tmp_path, capsys):
    run, kept = Place.of_run("ci", tmp_path), Place.of_reference("ci", tmp_path)
    kept.results.mkdir(parents=True)
    (run.results / "promises").mkdir(parents=True)
    promises().to_parquet(kept.dataset("promises"))
    promises().to_parquet(run.dataset("promises") / "a.parquet")
    assert compare("ci", tmp_path) == 0
    promises().assign(early=[0.5, 0.9]).to_parquet(run.dataset("promises") / "a.parquet")
    assert compare("ci", tmp_path) == 1
    assert pd.read_csv(run.results / "compare.csv")["column"].tolist() == ["early"]
    assert "different" in capsys.readouterr().out


def test_a_table_of_others_numbers_says_whose_they_are():
    study = KeptStudy("12", load_profile("ci", {}), "ci")
    study.table(pd.DataFrame({"a": [1]}), "table_a", published_by="the authors")
    assert study.drawn[0].stamp == "published numbers of the authors"
