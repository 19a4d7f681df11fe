"""The Answer that ends a notebook: two to five sentences computed from its own tidy results.

A verdict cannot be quoted here: the ledger of notebook 11 corrects for the number of all claims. So a sentence quotes numbers with
their own 95% intervals and names the claim that they bear on by its title in the ledger. Errors are the ledger's: the jackknife over
projects, or over what the ledger leaves out in turn. What was not measured is said so.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from eelib.evaluation.caching import changed_tokens, uncached
from eelib.evaluation.claims import CLAIMS
from eelib.evaluation.claims.claim import POSITIVE, Reading, reading, told
from eelib.evaluation.claims.results import PER_PROJECT, PER_PROMPT, Results, named, nearest, where
from eelib.evaluation.jackknife import jackknife
from eelib.models.exits import exit_points
from eelib.report.figures import LANGUAGES
from eelib.report.ledger import with_interval

SAME = ["model", "language", "context_fraction", "sample"]  # what two completions of one file have in common
Statistic = Callable[[pd.DataFrame], float]


# --- words ---


def number(found: Reading) -> str:
    """A reading's number with its interval and setting."""
    low, high = found.interval
    row = {"value": found.value, "low": low, "high": high, "unit": found.unit}
    return f"{with_interval(row)} ({found.setting})"


def ranged(readings: Sequence[Reading]) -> str:
    """Numbers of several settings: both of two, the least and the largest of more."""
    known = sorted(
        (found for found in readings if not math.isnan(found.value)), key=lambda found: found.value
    )
    if not known:
        return "not measured"
    if len(known) <= 2:
        return " and ".join(map(number, known))
    return f"from {number(known[0])} to {number(known[-1])}"


def bears_on(key: str, results: Results) -> str:
    """What a run says of one claim: its numbers, of more than two the one least and the one most in its favour, and how many can be told."""
    claim = CLAIMS[key]
    found = [item for item in claim.check(results) if not math.isnan(item.value)]
    if not found:
        return f"“{claim.short}” is not measured here: that needs {claim.needs}."
    by_favour = sorted(found, key=lambda item: -math.inf if math.isnan(item.margin) else item.margin)
    numbers = (
        f"least in favour {number(by_favour[0])}, most {number(by_favour[-1])}"
        if len(found) > 2
        else ranged(found)
    )
    return f"“{claim.short}” ({claim.number}; to hold: {claim.tolerance}): {numbers}; {_told(found)}."


def _told(found: Sequence[Reading]) -> str:
    within, outside = sum(item.margin > 1 for item in found), sum(item.margin < -1 for item in found)
    counts = {
        "within beyond the interval": within,
        "outside beyond the interval": outside,
        "cannot be told at this size": len(found) - within - outside,
    }
    if len(found) == 1:
        return next(name for name, count in counts.items() if count)
    return f"of {len(found)} numbers " + ", ".join(
        f"{count} {name}" for name, count in counts.items() if count
    )


# --- numbers ---


def _of_settings(
    results: Results, rows: pd.DataFrame, statistic: Statistic, units: Sequence[str] = PER_PROJECT
) -> list[Reading]:
    """A number of every setting that has rows."""
    unit, found = {PER_PROJECT: "project", PER_PROMPT: "prompt"}[tuple(units)], []
    for model, language in results.settings:
        own = where(rows, model=model, language=language)
        if len(own):
            found.append(reading(named(model, language), jackknife(own, statistic, units), unit, POSITIVE))
    return found


def _mean(column: str) -> Statistic:
    return lambda rows: rows[column].mean()


def _beside(rows: pd.DataFrame, other: pd.DataFrame, column: str, keys: Sequence[str] = SAME) -> pd.DataFrame:
    """Rows with `by`, what a column is above that of another completion of the same file."""
    if rows.empty or other.empty:
        return pd.DataFrame()
    both = rows.merge(other[[*keys, column]], on=list(keys), suffixes=("", "_other"), validate="many_to_one")
    return both.assign(by=both[column] - both[f"{column}_other"])


# --- notebooks ---


def corpora(results: Results) -> list[str]:
    """Notebook 01, from `files`."""
    files, parts, past = results["files"], [], []
    for language, own in files.groupby("language", sort=False):
        projects = own["project"].nunique()
        parts.append(
            f"{len(own):,} {LANGUAGES[language]} files of {projects} projects, {own['tokens'].median():.0f} tokens in the median"
        )
        longer = own.assign(past=own["share"] < 0.2)
        estimate = jackknife(longer, _mean("past"), PER_PROJECT)
        past.append(reading(LANGUAGES[language], estimate, "project", POSITIVE))
    return [
        f"A model of code completion reads whole source files; here {' and '.join(parts)}.",
        f"A context of 20% reaches past all imports of this share of files: {ranged(past)}.",
        *(bears_on(key, results) for key in ("short-files", "imports")),
    ]  # fmt: skip


def fine_tuning(losses: pd.DataFrame, results: Results) -> list[str]:
    """Notebook 02, from `tuned.losses_by_kind` and the predictions of Figure 4.8."""
    ends = losses.groupby(["model", "language"], sort=False)
    first, last = ends.nth(0), ends.nth(-1)
    gained, paid = first["aggregated"] - first["base"], last["aggregated"] - last["plain"]
    return [
        f"A layer in the middle speaks through the model's own head once its loss is trained. Against the base model that changes the loss of a token of validation files at the first exit point by {_span(gained)} nats ({_settings(gained)}).",
        f"Against plain fine-tuning with the same files and steps it changes the last layer's loss by {_span(paid)} nats. One fine-tuning a setting: how far another seed would move these cannot be told.",
        bears_on("longer-training", results),
    ]  # fmt: skip


def _span(values: pd.Series, form: str = "+.2f") -> str:
    ends = dict.fromkeys(f"{value:{form}}" for value in (values.min(), values.max()))
    return " to ".join(ends)


def _settings(values: Sequence) -> str:
    return f"{len(values)} setting{'' if len(values) == 1 else 's'}"


def fixed_exits(results: Results) -> list[str]:
    """Notebook 03, from `layers`, and predictions and timings of fixed exits."""
    layers, decoded = results["layers"], where(results.scored, node="fixed_exit_predictions")
    timed = where(results["timings"], node="fixed_exit_timings")
    kept, changed, cost, middle = [], [], [], {}
    for model in results.models():
        last = int(layers.loc[layers["model"] == model, "layer"].max())
        middle[model] = max(layer for layer in exit_points(last) if layer <= last / 2)
        kept.append(where(layers, model=model, kind="aggregated", layer=middle[model]))
        own = where(decoded, model=model)
        ends = [where(own, threshold=float(layer)) for layer in (middle[model], last)]
        changed.append(_beside(*ends, "rouge_l", ["model", "language", "sample"]))
        seconds = where(timed, model=model, threshold=[float(middle[model]), float(last)])
        if len(seconds):
            wide = seconds.groupby([*PER_PROMPT, "threshold"])["seconds"].mean().unstack()
            cost.append(wide.set_axis(["early", "full"], axis="columns").reset_index())
    at = " and ".join(f"layer {layer} of {model}" for model, layer in middle.items())
    spent = pd.concat(cost) if cost else pd.DataFrame()
    return [
        f"Always leaving at the exit point nearest to the middle ({at}) predicts the last layer's token, after the true prefix, this often: {ranged(_of_settings(results, pd.concat(kept), _mean('agreement')))}.",
        f"Over whole completions the change of ROUGE-L is {ranged(_of_settings(results, pd.concat(changed), _mean('by')))}; the share of the full time {ranged(_of_settings(results, spent, lambda own: own['early'].sum() / own['full'].sum(), PER_PROMPT))}.",
        *(bears_on(key, results) for key in ("sequences-lose-more", "time-linear", "energy-linear")),
    ]  # fmt: skip


def learning(results: Results) -> list[str]:
    """Notebook 04, from `equal_cost` and `promises`."""
    rows = results["equal_cost"].dropna(subset="share")
    stops = [row for _, row in where(rows, method="stopping").iterrows()]
    won, ahead = (
        [told(named(row["model"], row["language"]), row, column, POSITIVE) for row in stops]
        for column in ("share", "over_agent")
    )
    sentences = [
        *(bears_on(key, results) for key in ("over-fixed", "over-classifier")),
        f"Optimal stopping, of the agent's size, leaves where going on is no longer worth its price. Of what an oracle wins over a coin it wins {ranged(won)}; less what PPO's agents win that is {ranged(ahead)}."
        if stops
        else "How much of what an oracle wins optimal stopping wins is not measured: an oracle wins nothing over a coin here.",
    ]  # fmt: skip
    promised = results["promises"]
    most = where(promised, prompts=int(promised["prompts"].max()))
    broken = most.groupby("method", sort=False)["broken"].max()
    careful = "Learn-then-Test, betting"
    sentences.append(
        f"A user can be promised how few tokens differ: chosen on {most['prompts'].iloc[0]} prompts, thresholds break at most {broken[careful]:.1%} of promises in any setting if chosen by {careful}, and up to {broken['naive']:.1%} naively."
    )  # fmt: skip
    return sentences


def evaluation(results: Results) -> list[str]:
    """Notebook 05, from full and agents' predictions."""
    agents = where(results.scored, node="agent_predictions")
    agents = agents.assign(saved=1 - agents["mean_layers"] / agents["last"])
    full = where(results.scored, node="full_predictions")
    kinds = {kind: where(full, kind=kind) for kind in ("aggregated", "base", "plain")}
    ends = dict.fromkeys([agents["threshold"].min(), agents["threshold"].max()])
    saved, lost = [], []
    for threshold in ends:
        own = where(agents, threshold=threshold)
        beside = _beside(own, kinds["aggregated"], "rouge_l")
        saved.append(f"at T = {threshold:g} {ranged(_of_settings(results, own, _mean('saved')))}")
        lost.append(f"at T = {threshold:g} {ranged(_of_settings(results, beside, _mean('by')))}")
    against = [
        f"{ranged(_of_settings(results, _beside(kinds['aggregated'], kinds[kind], 'rouge_l'), _mean('by')))} against {name}"
        for kind, name in (("base", "the untouched base"), ("plain", "plain fine-tuning"))
    ]
    return [
        f"Early exit saves this share of a token's layers: {'; '.join(saved)}.",
        f"Its change of ROUGE-L against the full fine-tuned model is: {'; '.join(lost)}.",
        f"That model's own change is {'; '.join(against)}.",
        *(bears_on(key, results) for key in ("monotone", "larger-contexts")),
    ]


def overhead(results: Results) -> list[str]:
    """Notebook 06, from timings of agents, of their exits again without them (scripted) and of the full model, and from `decisions`."""
    rows = results["timings"]
    rows = rows[rows["kind"].isna() | (rows["kind"] == "aggregated")]
    cache = rows.loc[rows["criterion"] == "scripted", "cache"].iloc[0]
    keys = [*PER_PROMPT, "context_fraction"]
    groups = where(rows, cache=cache).groupby([*keys, "criterion", "threshold"], dropna=False, sort=False)
    means = groups["seconds"].mean().reset_index()
    full, *sides = (
        where(means, criterion=name)[[*keys, "threshold", "seconds"]].rename(columns={"seconds": name})
        for name in ("full", "agent", "scripted")
    )
    wide = sides[0].merge(sides[1], on=[*keys, "threshold"]).merge(full.drop(columns="threshold"), on=keys)
    gained, left = (
        _of_settings(results, wide, lambda own, name=name: 1 - (own[name] / own["full"]).mean(), PER_PROMPT)
        for name in ("scripted", "agent")
    )
    how = "Without a cache" if cache == "none" else "With a cache on both sides"
    return [
        f"{how}, the exits of all thresholds save this share of the full model's time if nobody has to decide: {ranged(gained)}. With the agent's decisions it is {ranged(left)}.",
        *(bears_on(key, results) for key in ("overhead", "overhead-cached", "decision")),
    ]  # fmt: skip


def caching(results: Results) -> list[str]:
    """Notebook 07, from cached predictions and timings, beside full and agents' predictions."""
    rows, parts, at = results["predictions"], [], []
    for model, language in results.settings:
        own = where(rows, model=model, language=language)
        cached = where(own, node="cached_predictions", criterion="agent", cache="propagate")
        context, at_threshold = (
            cached["context_fraction"].min(),
            nearest(cached["threshold"].unique().tolist(), 0.9),
        )
        own = where(own, context_fraction=context)
        exact = uncached(*(where(own, node=f"{name}_predictions") for name in ("full", "agent")))
        exact = where(exact, criterion="agent", threshold=at_threshold)
        both = pd.concat(
            [where(cached, context_fraction=context, threshold=at_threshold), exact], ignore_index=True
        )
        changed = changed_tokens(both, "agent", at_threshold, "propagate")
        parts.append(exact[[*SAME, "project"]].assign(changed=np.nanmean(changed, axis=1)))
        at.append(f"{at_threshold:g}")
    found = _of_settings(results, pd.concat(parts), _mean("changed"))
    return [
        f"With a key-value cache, skipped layers filled by propagation, early exit changes this share of the tokens of a completion at T = {' or '.join(dict.fromkeys(at))}: {ranged(found)}.",
        *(bears_on(key, results) for key in ("propagation-depth", "propagation", "throughput")),
    ]  # fmt: skip


def endpoint(results: Results, session: pd.DataFrame) -> list[str]:
    """Notebook 09, from `serving` and `measure.session_table`."""
    sweep = where(results["serving"], measured="sweep")
    wide = sweep.pivot(index="prompt", columns="threshold", values="milliseconds")
    ratios = wide.iloc[:, 0] / wide.iloc[:, -1]
    early, full = session.iloc[0], session.iloc[-1]
    return [
        f"Over {len(wide)} prompts a completion at T = {wide.columns[0]:g} takes {_span(ratios, '.2f')} times as long as one at full depth, the prompt's own pass included; no interval, for nothing was asked twice.",
        f"In a typing session of {full['requests']:.0f} requests T = {early['threshold']:g} takes {early['time_s'] / full['time_s']:.0%} of the time of full depth and {early['gflops'] / full['gflops']:.0%} of its FLOPs.",
        bears_on("endpoint", results),
    ]  # fmt: skip
