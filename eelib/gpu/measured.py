"""Early exit measured at the thesis's sizes: kept windows of time and energy, as costs and ratios.

A *side* is one way to decode (decoder, cache, criterion, agent); a window is some completions of it in a row. Sides of one
file were measured interleaved, so ratios are taken within a round of a file, and then summed up over rounds.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from eelib.errors import InputError
from eelib.report.thesis_numbers import load

FILE = ["geometry", "dtype", "context", "part"]
SIDE = ["decoder", "cache", "criterion", "layer", "language", "threshold", "agent"]
COLUMNS = [
    *FILE,
    *SIDE,
    *("round", "completions", "new_tokens", "mean_layers", "seconds", "step_seconds", "joules"),
    *("bytes_per_token", "copy_bandwidth", "idle_watts"),
]


def kept_windows(folder: Path | str) -> pd.DataFrame:
    """All windows in a folder, a row each; empty when nothing was measured. A file without its columns gives InputError."""
    frames = []
    for path in sorted(Path(folder).glob("*.parquet")):
        frame = pd.read_parquet(path)
        missing = [column for column in COLUMNS if column not in frame]
        if missing:
            raise InputError(
                f"{path} is no file of benchmarks/paper_scale.py: it lacks {', '.join(missing)}."
            )
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


def provenance(folder: Path | str) -> pd.DataFrame:
    """Where each kept file comes from: card, driver, clocks seen, versions, commit, and what its joules are."""
    rows = []
    for path in sorted(Path(folder).glob("*.parquet")):
        facts = json.loads(path.with_suffix(".json").read_text())
        clock = pd.read_parquet(path)["sm_clock_mhz"].agg(["min", "max"])
        rows.append(
            {
                "file": path.stem,
                "GPU": facts["GPU"],
                "driver": facts["software"]["NVIDIA driver"],
                "SM clock, MHz": "not seen" if clock.isna().any() else "{:.0f} to {:.0f}".format(*clock),
                "torch": facts["versions"]["torch"],
                "transformers": facts["versions"]["transformers"],
                "commit": facts["commit"],
                "rounds": facts["rounds"],
                "measured": facts["energy"],
            }
        )
    return pd.DataFrame(rows)


def costs(windows: pd.DataFrame) -> pd.DataFrame:
    """Windows with `completion_ms`, `completion_joules` and `token_ms` (decoding alone, without the prompt).

    `generate` does not tell the prompt from the rest: its time to the first token, measured beside it, is taken off, and
    the other tokens share what remains.
    """
    frame = windows.copy()
    frame["completion_ms"] = frame["seconds"] / frame["completions"] * 1000
    frame["completion_joules"] = frame["joules"] / frame["completions"]
    frame["token_ms"] = frame["step_seconds"] / frame["completions"] / frame["new_tokens"] * 1000
    keys = [*FILE, "round", "decoder"]
    first = frame[frame["criterion"] == "prompt"].set_index(keys)["completion_ms"]
    prompt = frame.set_index(keys).index.map(first).to_numpy(float)
    rest = (frame["completion_ms"] - prompt) / (frame["new_tokens"] - 1)
    unsplit = frame["token_ms"].isna() & (frame["new_tokens"] > 1)
    frame["token_ms"] = frame["token_ms"].where(~unsplit, rest)
    return frame


def ratios(windows: pd.DataFrame) -> pd.DataFrame:
    """One row a side: medians over rounds of its costs, and of their ratios to the full models beside it.

    `of_full_time` and `of_full_energy` are to the full model in the same kind: uncached for a side without a cache (as the
    thesis compares), captured and cached for the others. `of_cached_time` and `of_cached_energy` are always to the latter.
    `_low` and `_high` are the least and the largest ratio of any round. Files without both full models are left out.
    """
    frame = costs(windows)
    round_of = [*FILE, "round"]
    total = frame.groupby("geometry")["mean_layers"].transform("max")
    full = frame[
        frame["criterion"].isin(["full", "fixed"])
        & (frame["mean_layers"] == total)
        & ~frame["agent"].astype(bool)
    ]
    measures = {"time": "completion_ms", "energy": "completion_joules"}
    sides = {
        "cached": full[full["decoder"].str.startswith("graphs") & (full["cache"] == "propagate")],
        "uncached": full[(full["decoder"] == "eager") & (full["cache"] == "none")],
    }
    for name, rows in sides.items():
        rows = rows.drop_duplicates(round_of)[[*round_of, *measures.values()]]
        frame = frame.merge(rows, on=round_of, suffixes=("", f"_{name}"))
    for measure, column in measures.items():
        frame[f"of_cached_{measure}"] = frame[column] / frame[f"{column}_cached"]
        own = frame[f"{column}_cached"].where(frame["cache"] != "none", frame[f"{column}_uncached"])
        frame[f"of_full_{measure}"] = frame[column] / own
    shares = [f"of_{kind}_{measure}" for kind in ("full", "cached") for measure in measures]
    middle = [*measures.values(), "token_ms", "mean_layers", *shares]
    grouped = frame.groupby([*FILE, *SIDE], dropna=False, sort=False)
    out = grouped[middle].median()
    for share in shares:
        out[f"{share}_low"], out[f"{share}_high"] = grouped[share].min(), grouped[share].max()
    return out.reset_index()


def speeds(windows: pd.DataFrame) -> pd.DataFrame:
    """The full model by every decoder: costs, speed of its steps over `generate`'s with a dynamic cache, share of the limit.

    The limit of a cached step is the bytes it must read (weights, keys and values) over the measured bandwidth of a copy.
    """
    frame = costs(windows[windows["part"].isin(["reference", "generate-compiled"])])
    frame = frame[frame["criterion"] == "full"].copy()
    limit_ms = frame["bytes_per_token"] / frame["copy_bandwidth"] * 1000
    frame["of_bandwidth"] = (limit_ms / frame["token_ms"]).where(frame["cache"] != "none")
    grouped = frame.groupby([*FILE, "decoder", "cache", "agent"], sort=False)
    out = grouped[["completion_ms", "completion_joules", "token_ms", "of_bandwidth"]].median().reset_index()
    keys = ["geometry", "dtype", "context"]
    dynamic = out[out["decoder"] == "generate, dynamic"].set_index(keys)["token_ms"]
    theirs = out.set_index(keys).index.map(dynamic).to_numpy(float)
    out["speed_over_generate"] = theirs / out["token_ms"]
    return out


def thesis_ratios() -> pd.DataFrame:
    """The thesis's time and energy at context 0.2 as ratios to its full model, by model, language and threshold.

    From the authors' raw results: their early exit and their full model both ran without a cache.
    """
    raw = load("raw_ctx20")
    full = raw[raw["label"] == "full"].set_index(["model", "language"])
    agent = raw[raw["threshold"].notna()].copy()
    index = agent.set_index(["model", "language"]).index
    agent["thesis_time"] = agent["time_s"] / index.map(full["time_s"])
    agent["thesis_energy"] = agent["energy_wh"] / index.map(full["energy_wh"])
    return agent[["model", "language", "threshold", "mean_layers", "thesis_time", "thesis_energy"]]


def beside_the_thesis(sides: pd.DataFrame) -> pd.DataFrame:
    """Replayed traces, a row a setting and cache, with what the thesis measured for the same exits.

    Columns: geometry, language, threshold, cache, `mean_layers`, the ratios without the agent's decisions (`of_full_*`,
    `of_cached_*`) and with them (`_with_agent`), `thesis_time`, `thesis_energy`.
    """
    keys = [*FILE, "language", "threshold", "cache"]
    shares = ["of_full_time", "of_full_energy", "of_cached_time", "of_cached_energy"]
    traces = sides[sides["criterion"] == "trace"]
    asked = traces["agent"].astype(bool)
    frame = traces[~asked][[*keys, "mean_layers", *shares]].merge(
        traces[asked][[*keys, *shares]], on=keys, suffixes=("", "_with_agent")
    )
    theirs = thesis_ratios().rename(columns={"mean_layers": "published_mean_layers"})
    frame["model"] = frame["geometry"].str.removesuffix("-tiny")
    return frame.merge(theirs, on=["model", "language", "threshold"], how="left").drop(columns="model")


def break_even(sides: pd.DataFrame) -> pd.DataFrame:
    """The deepest fixed exit that costs no more than the cached full model, by cache mode, for time and energy.

    Between measured layers the ratio is taken as linear. The last layer where even that costs no more; NaN where energy is
    not measured or no exit is cheap enough.
    """
    rows = []
    fixed = sides[sides["criterion"] == "fixed"]
    for keys, group in fixed.groupby([*FILE, "decoder", "cache"], sort=False):
        group = group.sort_values("mean_layers")
        layers = group["mean_layers"].to_numpy(float)
        row = dict(zip([*FILE, "decoder", "cache"], keys, strict=True))
        for measure in ("time", "energy"):
            row[f"break_even_{measure}"] = crossing(layers, group[f"of_cached_{measure}"].to_numpy(float))
        rows.append(row | {"total_layers": layers[-1]})
    return pd.DataFrame(rows)


def crossing(layers: np.ndarray, shares: np.ndarray) -> float:
    """Where shares that grow with the layers pass 1; the last layer where they never do, NaN where the first is above."""
    if np.isnan(shares).any() or shares[0] > 1:
        return float("nan")
    above = np.flatnonzero(shares > 1)
    if not len(above):
        return float(layers[-1])
    i = above[0]
    return float(np.interp(1.0, shares[i - 1 : i + 1], layers[i - 1 : i + 1]))


def aims(windows: pd.DataFrame, sides: pd.DataFrame) -> pd.DataFrame:
    """What was aimed for beside what was measured, in bfloat16 or whatever was kept; "met" only by numbers of a GPU."""
    rows = []
    for (geometry, dtype, context), fast in speeds(windows).groupby(
        ["geometry", "dtype", "context"], sort=False
    ):
        ours = fast[fast["decoder"].str.startswith("graphs")]
        where = {"geometry": geometry, "dtype": dtype, "context": context}
        for decoder, group in ours.groupby("decoder", sort=False):
            plain = group[~group["agent"].astype(bool)].iloc[0]
            add = {"decoder": decoder} | where
            rows.append(
                add | _aim("steps at full depth: speed over generate", plain["speed_over_generate"], ">=", 5)
            )
            rows.append(
                add
                | _aim("steps at full depth: share of the bandwidth limit", plain["of_bandwidth"], ">=", 0.6)
            )
            agent = group[group["agent"].astype(bool)]
            if len(agent):
                overhead = agent.iloc[0]["token_ms"] / plain["token_ms"]
                rows.append(
                    add | _aim("an agent that never exits: time of steps over none", overhead, "<=", 1.02)
                )
    for keys, group in sides[sides["criterion"] == "fixed"].groupby(
        ["geometry", "dtype", "context", "decoder", "cache"], sort=False
    ):
        where = dict(zip(["geometry", "dtype", "context", "decoder"], keys[:-1], strict=True))
        if keys[-1] == "none":
            continue
        total = group["mean_layers"].max()
        half = group[group["mean_layers"] <= total / 2].sort_values("mean_layers").iloc[-1]
        whole = group[group["mean_layers"] == total].iloc[0]
        gain = whole["token_ms"] / half["token_ms"] * half["mean_layers"] / total
        name = f"exit at layer {half['mean_layers']:.0f}, {keys[-1]}: speed-up of steps over the ideal"
        rows.append(where | _aim(name, gain, ">=", 0.9))
    traces = sides[
        (sides["criterion"] == "trace") & (sides["cache"] == "propagate-later") & ~sides["agent"].astype(bool)
    ]
    for row in traces.itertuples():
        where = {name: getattr(row, name) for name in ("geometry", "dtype", "context", "decoder")}
        for measure in ("time", "energy"):
            name = f"exits of {row.language}, T = {row.threshold:g} ({row.mean_layers:.1f} layers): {measure} over cached full"
            rows.append(where | _aim(name, getattr(row, f"of_cached_{measure}"), "<=", 0.75))
    return pd.DataFrame(rows)


def _aim(what: str, value: float, relation: str, bound: float) -> dict[str, object]:
    met = value >= bound if relation == ">=" else value <= bound
    verdict = "not measured" if np.isnan(value) else "met" if met else "missed"
    return {"what": what, "value": value, "aim": f"{relation} {bound:g}", "verdict": verdict}


def survival(frame: pd.DataFrame) -> list[str]:
    """A sentence a geometry and measure: what share the thesis saved, and what the same exits save here.

    Args:
        frame: rows of `beside_the_thesis` of one dtype and context.
    """
    sentences = []
    for geometry, rows in frame.groupby("geometry"):
        for measure in ("time", "energy"):
            own = f"of_full_{measure}_with_agent"
            if rows[own].isna().all():
                sentences.append(f"{geometry}: {measure} was not measured.")
                continue
            uncached = rows[rows["cache"] == "none"]
            text = (
                f"{geometry}, {measure}: the thesis saves {_range(1 - uncached[f'thesis_{measure}'])} by these exits; "
                f"without a cache they save {_range(1 - uncached[own])} here"
            )
            for cache in ("propagate", "propagate-later", "recompute"):
                saved = 1 - rows.loc[rows["cache"] == cache, own]
                text += f", with a cache ({cache}) {_range(saved)}" if len(saved) else ""
            sentences.append(text + ", each of its own full model.")
    return sentences


def _range(shares: pd.Series) -> str:
    return f"{shares.min():.0%} to {shares.max():.0%}"


def answer(even: pd.DataFrame, beside: pd.DataFrame) -> list[str]:
    """What notebook 10 answers.

    Args:
        even: of `break_even`; empty where nothing is kept.
        beside: rows of `beside_the_thesis` of one dtype and context.
    """
    theirs = 1 - thesis_ratios()[["thesis_time", "thesis_energy"]]
    spans = [
        f"{theirs[name].min():.0%} to {theirs[name].max():.0%} of the {what}"
        for name, what in zip(theirs, ("time", "energy"), strict=True)
    ]
    authors = f"The authors' raw results save {' and '.join(spans)} by threshold, without a cache on either side; they come without an interval."
    if even.empty:
        return [
            f"Not measured: nothing of a GPU is kept, which scripts/paper_scale.sh would measure. {authors}"
        ]
    cached = even[even["cache"] != "none"]
    pays = cached["break_even_time"].notna().sum()
    sentences = [
        f"Against a captured decoder with its cache, a fixed exit that also keeps a cache saves time at some exit point in {pays} of {len(cached)} settings.",
        authors,
    ]
    own = beside[beside["cache"] != "none"] if len(beside) else beside
    if len(own):
        saved = 1 - own["of_cached_time_with_agent"]
        sentences.insert(
            1,
            f"The published exits, decisions included, save {saved.min():.0%} to {saved.max():.0%} of the cached full model's time.",
        )
    return sentences
