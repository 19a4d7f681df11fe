"""What is said of the measurement at the thesis's sizes, on made-up windows whose ratios are known."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eelib.errors import InputError
from eelib.gpu import figures, measured
from eelib.gpu.kept import open_kept
from eelib.report.thesis_numbers import load

ROOT = Path(__file__).parent.parent
CACHES = ("none", "propagate", "propagate-later", "recompute")


def window(geometry, part, decoder, cache, criterion, layers, ms, agent=False, **more) -> dict:
    """A window of 10 completions of `ms` each, 20% of it the prompt; 0.1 J a millisecond."""
    row = dict.fromkeys(measured.COLUMNS, np.nan) | {"layer": pd.NA, "language": "", "round": 0}
    row |= {"geometry": geometry, "dtype": "bfloat16", "context": 256, "part": part, "decoder": decoder}
    row |= {"cache": cache, "criterion": criterion, "agent": agent, "mean_layers": layers}
    row |= {"completions": 10, "new_tokens": 15, "seconds": ms / 100, "step_seconds": 0.8 * ms / 100}
    row |= {"joules": ms, "bytes_per_token": 4e9, "copy_bandwidth": 4e12, "idle_watts": 80.0}
    return row | {"sm_clock_mhz": 1980.0} | more


def windows() -> pd.DataFrame:
    """One geometry: full model 30 ms cached and 60 ms uncached; depth costs what it is worth, plus 2 ms with a cache."""
    rows = []
    name = "opt-2.7b"
    for number, noise in enumerate((1.0, 1.1)):  # a slower round: ratios stay
        reference = [
            ("generate, dynamic", "full", "full", 250, False),
            ("generate, dynamic", "full", "prompt", 40, False),
            ("eager", "none", "full", 60, False),
            ("graphs", "propagate", "full", 30, False),
            ("graphs", "propagate", "full", 30.3, True),
        ]
        for decoder, cache, criterion, ms, agent in reference:
            row = window(name, "reference", decoder, cache, criterion, 32, ms * noise, agent, round=number)
            if decoder.startswith("generate"):
                row |= {"step_seconds": np.nan, "new_tokens": 1 if criterion == "prompt" else 15}
            rows.append(row)
        for layer in (4, 16, 28, 32):
            extra = 2 if layer < 32 else 0
            share = layer / 32 * noise
            more = {"layer": layer, "round": number}
            rows.append(window(name, "fixed", "eager", "none", "fixed", layer, 60 * share, **more))
            for cache in CACHES[1:3]:
                ms = 30 * share + extra * noise
                rows.append(window(name, "fixed", "graphs", cache, "fixed", layer, ms, **more))
        part = "traces-java"
        rows.append(window(name, part, "graphs", "propagate", "full", 32, 30 * noise, round=number))
        rows.append(window(name, part, "eager", "none", "full", 32, 60 * noise, round=number))
        for threshold, layers in ((0.6, 10.7), (0.9, 18.6), (0.94, 32.0)):
            for cache in CACHES:
                for agent in (False, True):
                    full = 60 if cache == "none" else 30
                    ms = (full * layers / 32 + agent) * noise
                    more = {"language": "java", "threshold": threshold, "round": number}
                    decoder = "eager" if cache == "none" else "graphs"
                    rows.append(window(name, part, decoder, cache, "trace", layers, ms, agent, **more))
    frame = pd.DataFrame(rows)
    return frame.assign(layer=frame["layer"].astype("Int64"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """The made-up windows as kept files."""
    for part, rows in windows().groupby("part"):
        path = tmp_path / f"opt-2.7b-bfloat16-256-{part}.parquet"
        rows.to_parquet(path)
        facts = {"GPU": "Made-up GPU", "commit": "abc1234", "rounds": 2, "energy": "Energy is made up."}
        facts |= {"versions": {"torch": "2", "transformers": "5"}, "software": {"NVIDIA driver": "580"}}
        path.with_suffix(".json").write_text(json.dumps(facts))
    return tmp_path


def test_ratios_are_to_each_kinds_own_full_model_within_a_round():
    sides = measured.ratios(windows())
    fixed = sides[(sides["criterion"] == "fixed") & (sides["layer"] == 16)].set_index("cache")
    assert fixed.loc["none", "of_full_time"] == pytest.approx(0.5)
    assert fixed.loc["none", "of_cached_time"] == pytest.approx(1.0)
    assert fixed.loc["propagate", "of_full_time"] == pytest.approx(17 / 30)
    assert fixed.loc["propagate", "of_cached_energy"] == pytest.approx(17 / 30)
    # The second round was a tenth slower throughout: costs differ, ratios do not.
    assert fixed.loc["propagate", "of_full_time_low"] == pytest.approx(
        fixed.loc["propagate", "of_full_time_high"]
    )
    assert fixed.loc["propagate", "completion_ms"] == pytest.approx(17 * 1.05)


def test_speeds_take_the_prompt_off_where_generate_does_not_tell():
    speeds = measured.speeds(windows()[windows()["round"] == 0]).set_index(["decoder", "agent"])
    assert speeds.loc[("generate, dynamic", False), "token_ms"] == pytest.approx((250 - 40) / 14)
    graphs = speeds.loc[("graphs", False)]
    assert graphs["token_ms"] == pytest.approx(0.8 * 30 / 15)
    assert graphs["speed_over_generate"] == pytest.approx(15 / 1.6)
    assert graphs["of_bandwidth"] == pytest.approx(1.0 / 1.6)  # 4e9 bytes at 4e12 a second: 1 ms
    assert math.isnan(speeds.loc[("eager", False), "of_bandwidth"])


def test_break_even_is_where_the_line_passes_the_cached_full_model():
    even = measured.break_even(measured.ratios(windows())).set_index("cache")
    assert even.loc["none", "break_even_time"] == pytest.approx(16)
    # 28 layers cost (26.25 + 2) / 30, which is less than 1; 32 cost 1.
    assert even.loc["propagate", "break_even_energy"] == 32
    layers = np.array([4.0, 8.0, 12.0])
    assert measured.crossing(layers, np.array([0.5, 0.9, 1.3])) == pytest.approx(9)
    assert math.isnan(measured.crossing(layers, np.array([1.1, 1.2, 1.3])))
    assert math.isnan(measured.crossing(layers, np.array([0.5, math.nan, 1.3])))


def test_traces_stand_beside_the_thesiss_own_ratios():
    beside = measured.beside_the_thesis(measured.ratios(windows()))
    assert len(beside) == 3 * len(CACHES)
    row = beside[(beside["threshold"] == 0.9) & (beside["cache"] == "none")].iloc[0]
    raw = load("raw_ctx20").query("model == 'opt-2.7b' and language == 'java'").set_index("label")
    assert row["thesis_time"] == pytest.approx(raw.loc["0.9", "time_s"] / raw.loc["full", "time_s"])
    assert row["thesis_energy"] == pytest.approx(raw.loc["0.9", "energy_wh"] / raw.loc["full", "energy_wh"])
    assert row["published_mean_layers"] == pytest.approx(18.575, abs=1e-3)
    assert row["of_full_time"] == pytest.approx(18.6 / 32)
    assert row["of_full_time_with_agent"] == pytest.approx((60 * 18.6 / 32 + 1) / 60)
    sentences = measured.survival(beside)
    assert "without a cache they save -2% to 65% here" in sentences[0]
    assert "with a cache (propagate) -3% to 63%" in sentences[0]
    unmeasured = beside.assign(of_full_energy_with_agent=math.nan)
    assert measured.survival(unmeasured)[1] == "opt-2.7b: energy was not measured."


def test_aims_are_met_or_missed_or_not_measured():
    frame = windows()
    aims = measured.aims(frame, measured.ratios(frame)).set_index("what")
    assert aims.loc["steps at full depth: speed over generate", "verdict"] == "met"
    assert (
        aims.loc["steps at full depth: share of the bandwidth limit", "verdict"] == "missed"
    )  # of the median round
    assert aims.loc["an agent that never exits: time of steps over none", "value"] == pytest.approx(1.01)
    half = aims.loc["exit at layer 16, propagate: speed-up of steps over the ideal"]
    assert half["value"] == pytest.approx(30 / 17 / 2) and half["verdict"] == "missed"
    frame["joules"] = math.nan
    aims = measured.aims(frame, measured.ratios(frame)).set_index("what")
    assert aims.loc["exits of java, T = 0.6 (10.7 layers): time over cached full", "verdict"] == "met"
    assert (
        aims.loc["exits of java, T = 0.6 (10.7 layers): energy over cached full", "verdict"] == "not measured"
    )


def test_figures_say_when_energy_was_not_measured():
    sides = measured.ratios(windows().assign(joules=math.nan))
    figure = figures.fixed_exits(sides[sides["criterion"] == "fixed"])
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert texts == ["energy not measured on this machine"]
    beside = measured.beside_the_thesis(sides)
    figure = figures.traces_beside_the_thesis(beside, "energy")
    assert [line.get_label() for line in figure.axes[0].lines if line.get_marker() == "s"] == [
        "thesis, no cache"
    ]
    with pytest.raises(InputError, match="nothing to draw"):
        figures.fixed_exits(sides[:0])


def test_nothing_kept_is_a_sentence_and_another_file_an_error(tmp_path, folder):
    (tmp_path / "none").mkdir()
    kept = open_kept(str(tmp_path / "none"), "bfloat16", 256)
    assert kept.empty and kept.sentence.startswith("Nothing measured is kept in ")
    for frame in (measured.speeds(kept.windows), measured.break_even(measured.ratios(kept.windows))):
        assert frame.empty
    kept = open_kept(str(folder), "bfloat16", 256)
    assert "measured on Made-up GPU" in kept.sentence
    assert kept.stamp.endswith("Made-up GPU · measured at commit abc1234")
    for arguments, sentence in (
        (("bf16", 256), "dtype is 'bf16'"),
        (("bfloat16", "256"), "context is '256'"),
        (("float16", 256), "in float16 at context 256: allowed are bfloat16 at 256"),
    ):
        with pytest.raises(InputError, match=sentence):
            open_kept(str(folder), *arguments)
    pd.DataFrame({"a": [1]}).to_parquet(folder / "other.parquet")
    with pytest.raises(InputError, match="other.parquet is no file of benchmarks/paper_scale.py"):
        open_kept(str(folder), "bfloat16", 256)


def papermill(out: Path, results: Path) -> subprocess.CompletedProcess:
    arguments = ["notebooks/10_paper_scale.ipynb", str(out), "-p", "results", str(results)]
    return subprocess.run(
        [sys.executable, "-m", "papermill", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_notebook_draws_every_exhibit_from_kept_files_and_stops_without_them(folder, tmp_path):
    kept = tmp_path / "kept_for_a_test"
    kept.mkdir()
    for path in folder.glob("opt-2.7b*"):
        path.rename(kept / path.name)
    run = papermill(tmp_path / "out.ipynb", kept)
    assert run.returncode == 0, run.stderr
    variant = "gpu+results=kept_for_a_test"
    tables = {path.name for path in (ROOT / "tables" / variant).iterdir()}
    drawn = {path.name for path in (ROOT / "figures" / variant).iterdir()}
    names = ["provenance", "full_model", "break_even", "traces", "aims"]
    assert tables == {f"table_10_0{i}_{name}.{s}" for i, name in enumerate(names, 1) for s in ("csv", "md")}
    names = ["fixed_exits", "traces_time", "traces_energy"]
    assert drawn == {f"fig_10_0{i}_{name}.{s}" for i, name in enumerate(names, 1) for s in ("png", "pdf")}
    for root in ("tables", "figures"):
        shutil.rmtree(ROOT / root / variant)
    empty = tmp_path / "empty_for_a_test"
    run = papermill(tmp_path / "out.ipynb", empty)
    assert run.returncode == 0, run.stderr
    assert "Nothing measured is kept in" in (tmp_path / "out.ipynb").read_text()
    assert not (ROOT / "tables/gpu+results=empty_for_a_test").exists()
