"""What notebook 02 shows of fine-tunings that ship: their records, by tokens seen and by layer."""

import json

import pandas as pd

from eelib import paths
from eelib.models.loading import ships

FORMATS = {"accuracy": "%.3f", "agreement": "%.3f", "perplexity": "%.2f"}


def shipped_kinds(model: str) -> list[str]:
    """Kinds of fine-tuning that a model ships."""
    return [kind for kind in ("aggregated", "plain") if ships(model, kind)]


def record(model: str, kind: str) -> dict:
    """Recipe, tokens seen and sizes of a shipped fine-tuning."""
    return json.loads((paths.MODELS / model / f"{kind}.json").read_text())


def curve(model: str) -> pd.DataFrame:
    """`kind`, `language`, `layer`, `tokens_seen`, `accuracy`, `agreement` on validation projects; for models that ship a tuning."""
    frames = [
        pd.read_csv(paths.MODELS / model / f"{kind}_curve.csv").assign(kind=kind)
        for kind in shipped_kinds(model)
    ]
    return pd.concat(frames, ignore_index=True)


def layers(model: str) -> pd.DataFrame:
    """Accuracy and agreement on test projects: `fine_tuning`, `model` (base, tuned, shipped: after the cut), `language`,
    `layer`; for models that ship a tuning."""
    frames = [
        pd.read_csv(paths.MODELS / model / f"{kind}_layers.csv")
        .rename(columns={"kind": "model"})
        .assign(fine_tuning=kind)
        for kind in shipped_kinds(model)
    ]
    columns = ["fine_tuning", "model", "language", "layer", "accuracy", "agreement", "perplexity", "tokens"]
    return pd.concat(frames, ignore_index=True)[columns]


def sentences(model: str, curves: pd.DataFrame, by_layer: pd.DataFrame) -> list[str]:
    """What the figure and the table say, a sentence a language."""
    said = []
    seen = {kind: record(model, kind)["tokens_seen"] for kind in curves["kind"].unique()}
    for language, rows in by_layer[by_layer["model"] == "shipped"].groupby("language"):
        last = rows["layer"].max()
        at = rows.set_index(["fine_tuning", "layer"])
        kind = "aggregated" if "aggregated" in seen else next(iter(seen))
        agreement = ", ".join(
            f"{at.loc[(kind, layer), 'agreement']:.2f} at layer {layer}"
            for layer in sorted(rows["layer"].unique())[:-1]
        )
        sentence = (
            f"{model} on {language}, {kind}, {seen[kind] / 1e3:,.0f} thousand tokens seen: agreement with the last layer is {agreement}; "
            f"the last layer's accuracy is {at.loc[(kind, last), 'accuracy']:.3f}"
        )
        if {"aggregated", "plain"} <= set(seen):
            difference = at.loc[("aggregated", last), "accuracy"] - at.loc[("plain", last), "accuracy"]
            sentence += f", {difference:+.3f} against plain fine-tuning"
        said.append(f"{sentence} ({rows['tokens'].iloc[0]:,} tokens of test projects).")
    return said
