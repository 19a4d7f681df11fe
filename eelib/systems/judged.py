"""What fitted systems are worth: shares of what an oracle wins, agreement and cheapest costs, with intervals over the same prompts."""

from pathlib import Path

import numpy as np
import pandas as pd

from eelib.evaluation.cost import stop_prices
from eelib.evaluation.equal_cost import DRAWN, SHARES_OF_FULL
from eelib.evaluation.frontier import DEPTHS, Curve, Frontier
from eelib.models.loading import load_config
from eelib.rl.rollouts import Rollouts
from eelib.systems.fitted import STOPS
from eelib.systems.harness import TOLERATED
from eelib.systems.layerskip import speculation

RESAMPLES = 400
OVER = ("probe", "stopping")  # what every method is compared with
ENDS = (2.5, 97.5)
POINTS = tuple(round(100 * share) for share in TOLERATED)


def systems(settings: pd.DataFrame, unseen: Rollouts, model: str, max_tokens: int) -> pd.DataFrame:
    """A row a method, on the prompts that it is reported on.

    Parameters
    ----------
    settings: rows of `fitted.fit_systems`.
    max_tokens: the longest context, after which a token is priced.

    Returns
    -------
    `system`, `method`, `seeds`, `trials`, `decision` (price of one); `share` of coin to oracle (mean over seeds) with `low` and `high` (95%, bootstrap over prompts) and `least`
    and `most` of a seed; `over_<rival>`, `_low`, `_high`: its difference to a policy of this study on the same prompts; `agreement_at_<cost>`; and for
    every tolerated loss in points `cost_<points>` and `lost_<points>` with `_low` and `_high`: what the cheapest setting that loses no more on validation
    prompts costs and loses here.
    """
    frontier = Frontier(unseen, stop_prices(load_config(model), unseen.stops, max_tokens))
    draws = _draws(len(unseen))
    curves = _curves(settings)
    shares, rows = _shares(frontier, curves, draws), []
    for name, own in settings.groupby("method", sort=False):
        row = {"system": own["system"].iloc[0], "method": name}
        row |= {"seeds": own["seed"].nunique(), "trials": int(own["trials"].max())}
        row["decision"] = own["decision"].iloc[0]
        row |= _interval("share", shares[name].mean(0)) | {
            "least": shares[name][:, 0].min(),
            "most": shares[name][:, 0].max(),
        }
        for rival in OVER:
            row |= _interval(f"over_{rival}", shares[name].mean(0) - shares[rival].mean(0))
        points = [curve.points(frontier.prompts) for curve in curves[name]]
        for cost in SHARES_OF_FULL:
            row[f"agreement_at_{cost:g}"] = np.mean([np.interp(cost, *point) for point in points])
        rows.append(row | _cheapest(own, draws))
    return pd.DataFrame(rows).rename(columns={"share_low": "low", "share_high": "high"})


def system_curves(settings: pd.DataFrame, unseen: Rollouts, model: str, max_tokens: int) -> pd.DataFrame:
    """`method`, `cost`, `agreement`: means over seeds, with the coin between fixed exits and the oracle."""
    frontier = Frontier(unseen, stop_prices(load_config(model), unseen.stops, max_tokens))
    costs, everyone = np.linspace(frontier.prices[0], 1.0, DRAWN), frontier.prompts
    lines: dict[str, np.ndarray] = {
        name: np.mean([np.interp(costs, *curve.points(everyone)) for curve in own], 0)
        for name, own in _curves(settings).items()
    }
    lines |= {"coin": frontier.mixed_fixed(costs, everyone), "oracle": frontier.oracle(costs, everyone)}
    return pd.concat(
        [pd.DataFrame({"method": name, "cost": costs, "agreement": line}) for name, line in lines.items()],
        ignore_index=True,
    )


def speculated(chosen: Rollouts, unseen: Rollouts, model: str, max_tokens: int) -> pd.DataFrame:
    """Self-speculation: `split`, `layer`, `block`, `accepted` (tokens a round), `flops` and `reads` of a token with 95% intervals over prompts."""
    config, rows = load_config(model), []
    for split, rollouts in (("validation", chosen), ("test", unseen)):
        draws = _draws(len(rollouts))
        for (layer, block), own in speculation(rollouts, config, max_tokens).groupby(["layer", "block"]):
            row = {"split": split, "layer": layer, "block": block}
            row["accepted"] = own["accepted"].sum() / own["rounds"].sum()
            for cost in ("flops", "reads"):
                row |= _interval(cost, own[cost].to_numpy()[draws].mean(1))
            rows.append(row)
    return pd.DataFrame(rows)


def stopped(folder_of_systems: Path) -> pd.DataFrame:
    """What SEC's third action saves and loses, means over seeds: the rows of `sec.stopped`."""
    rows = pd.read_parquet(folder_of_systems / STOPS)
    return rows.groupby("bar", as_index=False).mean().drop(columns="seed")


def _draws(prompts: int) -> np.ndarray:
    """(1 + RESAMPLES, N) prompts by index: all of them, then bootstrap samples, the same for every method."""
    drawn = np.random.default_rng(0).integers(prompts, size=(RESAMPLES, prompts))
    return np.concatenate([np.arange(prompts)[None], drawn])


def _interval(name: str, values: np.ndarray) -> dict[str, float]:
    """The first value, and the ends of the interval of the others."""
    low, high = np.nanpercentile(values[1:], ENDS) if np.isfinite(values[0]) else (np.nan, np.nan)
    return {name: values[0], f"{name}_low": low, f"{name}_high": high}


def _pivot(rows: pd.DataFrame, what: str) -> np.ndarray:
    """(N, K) values of prompts by settings in their order."""
    return rows.pivot(index="prompt", columns="setting", values=what).to_numpy()


def _curves(settings: pd.DataFrame) -> dict[str, list[Curve]]:
    """Of each method, a curve a seed."""
    budgets: dict[str, list[Curve]] = {}
    rows = settings[settings["tolerated"].isna()]
    for (name, _), own in rows.groupby(["method", "seed"], sort=False):
        budgets.setdefault(name, []).append(Curve(_pivot(own, "price"), _pivot(own, "agreement")))
    return budgets


def _shares(frontier: Frontier, curves: dict[str, list[Curve]], draws: np.ndarray) -> dict[str, np.ndarray]:
    """(seeds, draws) shares of what the oracle wins over the coin, by method; NaN where it wins nothing."""
    costs = np.linspace(frontier.prices[0], frontier.prices[-1], DEPTHS)
    found = {name: np.full((len(own), len(draws)), np.nan) for name, own in curves.items()}
    for place, prompts in enumerate(draws):
        base = frontier.mixed_fixed(costs, prompts)
        gap = (frontier.oracle(costs, prompts) - base).sum()
        if gap > 0:
            for name, own in curves.items():
                lines = [np.interp(costs, *curve.points(prompts)) for curve in own]
                found[name][:, place] = (np.array(lines) - base).sum(1) / gap
    return found


def _cheapest(settings: pd.DataFrame, draws: np.ndarray) -> dict[str, float]:
    """What the settings that lose no more than tolerated on validation prompts cost and lose, in points, means over seeds."""
    row = {}
    for share, points in zip(TOLERATED, POINTS, strict=True):
        own = settings[settings["tolerated"] == share].groupby("prompt")[["price", "agreement"]].mean()
        row |= _interval(f"cost_{points}", own["price"].to_numpy()[draws].mean(1))
        row |= _interval(f"lost_{points}", 100 * (1 - own["agreement"].to_numpy()[draws].mean(1)))
    return row
