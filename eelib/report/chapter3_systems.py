"""Chapter 3's systems side by side: Table 3.1 with what was measured here, their curves, and sentences that say who wins where."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from eelib.errors import InputError
from eelib.report import figures as style
from eelib.report.figures import LANGUAGES, finished, label, need, new_figure, outside_legend
from eelib.report.findings import interval

# A colour a system, in the order of Table 3.1 (Okabe and Ito, then Paul Tol's muted ones), and a line a method of it.
COLOURS = [style.BLUE, style.VERMILLION, style.GREEN, style.ORANGE, style.SKY, style.PURPLE]
COLOURS += ["#882255", "#999933", "#44AA99", "#332288", "#AA4499", "#117733"]
LINES = ["-", "--", ":", "-."]
OURS = "this study"
POINTS = (1, 2, 5)


def table_3_1(printed: pd.DataFrame, systems: pd.DataFrame) -> pd.DataFrame:
    """The thesis's cells, and beside them a row for each method run here.

    Parameters
    ----------
    printed: the thesis's Table 3.1.
    systems: rows of the dataset of that name.

    Returns
    -------
    `system`, `exit_type`, `architecture`, `model`, `overhead` as printed, `method`, `decision` (measured: price of one decision, of the full model's token) and a
    column `share, <model>, <language>` a setting, with its interval; empty where no method of a system is compared at equal cost.
    """
    need(systems, ["system", "method", "decision", "share", "low", "high"], "Table 3.1")
    measured = systems.assign(
        setting=[
            f"share, {model}, {LANGUAGES[language]}"
            for model, language in zip(systems["model"], systems["language"], strict=True)
        ],
        text=[interval(row) if pd.notna(row["share"]) else None for row in systems.to_dict("records")],
    )
    keys = ["system", "method", "decision"]
    wide = measured.pivot(index=keys, columns="setting", values="text").reset_index()
    left = printed.rename(columns={"method": "system"}).drop(columns=["reference", "origin"])
    return left.merge(wide, on="system", how="left")


def curves(frame: pd.DataFrame) -> Figure:
    """What methods agree more than a coin between fixed exits, at equal cost: a panel a model and language.

    Parameters
    ----------
    frame: rows of the dataset `system_curves`, with the column `system` (missing for coin and oracle).
    """
    need(frame, ["model", "language", "system", "method", "cost", "agreement"], "The systems' curves")
    names = [name for name in frame["system"].dropna().unique() if name != OURS]
    if len(names) > len(COLOURS):
        raise InputError(f"The systems' curves have colours for {len(COLOURS)} systems; got {len(names)}.")
    colours = dict(zip(names, COLOURS, strict=False)) | {OURS: style.BLACK}
    settings = list(frame.groupby(["model", "language"], sort=False))
    figure, axes = new_figure(len(settings), 1, (9.0, 4.2))
    entries = {}
    for ax, ((model, language), rows) in zip(axes.flat, settings, strict=True):
        by = rows.pivot(index="cost", columns="method", values="agreement")
        ax.plot(by.index, by["oracle"] - by["coin"], color=style.GREY, linewidth=1, linestyle=(0, (1, 2)))
        for system, own in rows.dropna(subset="system").groupby("system", sort=False):
            for number, method in enumerate(own["method"].unique()):
                [line] = ax.plot(
                    by.index,
                    by[method] - by["coin"],
                    color=colours[system],
                    linestyle=LINES[number % len(LINES)],
                    linewidth=2.0 if system == OURS else 1.2,
                )
                entries[f"{system}: {method}"] = line
        ax.axhline(0, color=style.GREY, linewidth=1)
        ax.set_ylim(bottom=max(-0.35, ax.get_ylim()[0]))
        label(
            ax,
            f"{model}, {LANGUAGES[language]}",
            "cost of a token, share of the full model's with its cache",
            "agreement above a coin's",
        )
    outside_legend(figure, entries)
    return finished(figure)


def cheapest(systems: pd.DataFrame) -> pd.DataFrame:
    """`model`, `language`, `system`, `method`, and for each tolerated loss its cost and what is lost on unseen prompts, as texts with intervals."""
    table = systems[["model", "language", "system", "method"]].copy()
    for points in POINTS:
        for name, digits in ((f"cost_{points}", 2), (f"lost_{points}", 1)):
            ends = zip(systems[name], systems[f"{name}_low"], systems[f"{name}_high"], strict=True)
            table[name] = [
                f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" for mean, low, high in ends
            ]
    return table


def answer(systems: pd.DataFrame) -> list[str]:
    """Who wins where and by how much, a paragraph a model and language."""
    sentences = []
    for (model, language), rows in systems.groupby(["model", "language"], sort=False):
        where = f"**{model}, {LANGUAGES[language]}.** "
        if rows["share"].isna().all():
            sentences.append(where + "No share can be computed, for an oracle wins nothing over a coin.")
            continue
        sentences.append(where + " ".join([_best(rows), _agents(rows), _saved(rows)]))
    return sentences


def _best(rows: pd.DataFrame) -> str:
    theirs = rows[rows["system"] != OURS].sort_values("share", ascending=False)
    first, ours = theirs.iloc[0], rows.set_index("method").loc["stopping"]
    ahead = theirs[theirs["over_stopping_low"] > 0]
    behind = theirs[theirs["over_stopping_high"] < 0]
    return (
        f"Of what an oracle wins over a coin, the best of {len(theirs)} methods of other systems is {_named(first)} with {interval(first)}; optimal stopping, this study's own, "
        f"wins {interval(ours)}. At 95% {_methods(len(ahead))} of others' {'is' if len(ahead) == 1 else 'are'} ahead of it"
        f"{' (' + ', '.join(map(_named, ahead.to_dict('records'))) + ')' if len(ahead) else ''} and {len(behind)} behind it; "
        f"{(theirs['low'] > 0).sum()} of them are above the coin, which looks at nothing, and {(theirs['high'] < 0).sum()} below it."
    )


def _agents(rows: pd.DataFrame) -> str:
    ranked = rows.sort_values("share", ascending=False)["method"].tolist()
    agent = rows.set_index("method").loc["agent"]
    return f"The thesis's agent, trained by PPO, wins {interval(agent)} and is number {ranked.index('agent') + 1} of {len(ranked)}."


def _saved(rows: pd.DataFrame) -> str:
    texts = []
    for points in POINTS:
        best = rows.loc[rows[f"cost_{points}"].idxmin()]
        texts.append(
            f"{points} point{'' if points == 1 else 's'}: {_named(best)}, at {best[f'cost_{points}']:.2f} of the cost [{best[f'cost_{points}_low']:.2f}, {best[f'cost_{points}_high']:.2f}], "
            f"losing {best[f'lost_{points}']:.1f} [{best[f'lost_{points}_low']:.1f}, {best[f'lost_{points}_high']:.1f}] on unseen prompts"
        )
    return "Cheapest among settings that lost no more on validation prompts than " + "; ".join(texts) + "."


def _named(row) -> str:
    return row["method"] if row["system"] == OURS else f"{row['system']}'s {row['method']}"


def _methods(number: int) -> str:
    return "1 method" if number == 1 else f"{number} methods"


def speculation_sentences(frame: pd.DataFrame) -> list[str]:
    """Self-speculation by the layer and block that read least on validation prompts, told on unseen ones."""
    sentences = []
    for (model, language), rows in frame.groupby(["model", "language"], sort=False):
        by = rows.set_index(["split", "layer", "block"])
        layer, block = by.loc["validation"]["reads"].idxmin()
        row = by.loc[("test", layer, block)]
        sentences.append(
            f"{model}, {LANGUAGES[language]}: layer {layer} drafting {block} token{'' if block == 1 else 's'} at a time has {row['accepted']:.1f} accepted a round. It reads "
            f"{row['reads']:.2f} [{row['reads_low']:.2f}, {row['reads_high']:.2f}] of the weights that the full model reads for a token, takes {row['flops']:.2f} of its FLOPs, and loses nothing."
        )
    return sentences


def stopped_sentences(frame: pd.DataFrame) -> list[str]:
    """What ending completions saves and loses, at the bar that saves most over what chance would lose."""
    sentences = []
    for (model, language), rows in frame.groupby(["model", "language"], sort=False):
        row = rows.loc[(rows["lost_by_chance"] - rows["lost"]).idxmax()]
        sentences.append(
            f"{model}, {LANGUAGES[language]}: ending completions where stopping is more probable than {row['bar']:g} spares {row['saved']:.0%} of the tokens and cuts {row['lost']:.0%} of those that the file goes on with; "
            f"the same lengths dealt out at random would cut {row['lost_by_chance']:.0%}."
        )
    return sentences


def with_systems(drawn: pd.DataFrame, systems: pd.DataFrame) -> pd.DataFrame:
    """Curves with the `system` of each method; missing for coin and oracle."""
    names = systems.drop_duplicates("method").set_index("method")["system"]
    return drawn.assign(system=drawn["method"].map(names).replace({np.nan: None}))
