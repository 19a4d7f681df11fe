"""Sections 1.1 and 4.4.1: what each layer of a fine-tuned model can say."""

import numpy as np
import pandas as pd

from eelib.evaluation.claims.claim import (
    NEGATIVE,
    POSITIVE,
    SHARE,
    Claim,
    Load,
    Reading,
    Region,
    about,
    at_least,
    at_most,
    quoted,
    reading,
)
from eelib.evaluation.claims.results import PER_LANGUAGE, PER_PROJECT, THEIRS, Results, named, where
from eelib.evaluation.jackknife import jackknife
from eelib.models.exits import exit_points

SHALLOW, MIDDLE = 6, 14  # layers the thesis speaks of
UNTRAINED = 12  # layers in which the base model says nothing


def _mean(column: str):
    return lambda rows: rows[column].mean()


def _layers(results: Results, model: str, language: str, kind: str, layers: int | list[int]) -> pd.DataFrame:
    return where(results["layers"], model=model, language=language, kind=kind, layer=layers)


def _at_layers(
    results: Results, regions: dict[int, Region], kind: str, column: str, family: str = "", language: str = ""
) -> list[Reading]:
    found = []
    for model, corpus in results.of(family, language):
        for layer, region in regions.items():
            rows = _layers(results, model, corpus, kind, layer)
            if len(rows):
                estimate = jackknife(rows, _mean(column), PER_PROJECT)
                found.append(reading(named(model, corpus, f"layer {layer}"), estimate, "project", region))
    return found


def _published_layers(
    load: Load, family: str, language: str, kind: str, layers: int | list[int]
) -> pd.DataFrame:
    rows = where(load("layer_accuracy"), model=THEIRS[family], language=language, kind=kind)
    return where(rows, layer=layers)


EXAMPLE = {4: at_least(0.8, SHARE), MIDDLE: at_least(1.0, SHARE)}


def example(results: Results) -> list[Reading]:
    return _at_layers(results, EXAMPLE, "aggregated", "agreement", "llama", "java")


def example_published(load: Load) -> list[Reading]:
    rows = {layer: _published_layers(load, "llama", "java", "aggregated", layer) for layer in EXAMPLE}
    return [
        quoted(named(THEIRS["llama"], "java", f"layer {n}"), rows[n]["agreement"].iloc[0], region)
        for n, region in EXAMPLE.items()
    ]


BASE_SILENT = at_most(0.0, 0.05)


def base_silent(results: Results) -> list[Reading]:
    found = []
    for model, language in results.settings:
        rows = _layers(results, model, language, "base", list(range(1, UNTRAINED + 1)))
        if len(rows):
            estimate = jackknife(rows, _mean("accuracy"), PER_PROJECT)
            found.append(reading(named(model, language), estimate, "project", BASE_SILENT))
    return found


def base_silent_published(load: Load) -> list[Reading]:
    layers = list(range(1, UNTRAINED + 1))
    rows = {name: _published_layers(load, "llama", name, "base", layers) for name in ("java", "python")}
    return [
        quoted(named(THEIRS["llama"], name), own["accuracy"].mean(), BASE_SILENT)
        for name, own in rows.items()
    ]


AT_SIX = {"java": about(0.6), "python": about(0.7)}


def layer_six(results: Results) -> list[Reading]:
    return [
        found
        for language, region in AT_SIX.items()
        for found in _at_layers(results, {SHALLOW: region}, "aggregated", "accuracy", "llama", language)
    ]


def layer_six_published(load: Load) -> list[Reading]:
    rows = {name: _published_layers(load, "llama", name, "aggregated", SHALLOW) for name in AT_SIX}
    return [
        quoted(named(THEIRS["llama"], name), rows[name]["accuracy"].iloc[0], AT_SIX[name]) for name in AT_SIX
    ]


LAST_ADDS: Region = (0.10 - 0.05, 0.15 + 0.05)


def _wide(rows: pd.DataFrame, columns: str) -> pd.DataFrame:
    """A row a sample with its accuracies by layer or kind."""
    wide = rows.pivot(index=["language", "project", "sample"], columns=columns, values="accuracy")
    return wide.reset_index()


def last_adds(results: Results) -> list[Reading]:
    found = []
    for model, language in results.of("llama"):
        rows = where(results["layers"], model=model, language=language, kind="aggregated")
        if len(rows):
            last = int(rows["layer"].max())
            wide = _wide(where(rows, layer=[SHALLOW, last]), "layer")
            estimate = jackknife(wide, lambda own, last=last: (own[last] - own[SHALLOW]).mean(), PER_PROJECT)
            found.append(reading(named(model, language), estimate, "project", LAST_ADDS))
    return found


def last_adds_published(load: Load) -> list[Reading]:
    found = []
    for name in ("java", "python"):
        by = _published_layers(load, "llama", name, "aggregated", [SHALLOW, 28]).set_index("layer")[
            "accuracy"
        ]
        found.append(quoted(named(THEIRS["llama"], name), by[28] - by[SHALLOW], LAST_ADDS))
    return found


def dip(accuracy: pd.Series) -> float:
    """Mean distance of the layers between exit points from the straight line between their neighbours; by layer, 1..L."""
    points = [*exit_points(int(accuracy.index.max())), int(accuracy.index.max())]
    between = accuracy.loc[points[0] : points[-1]].drop(points)
    return float((between - np.interp(between.index, points, accuracy[points])).mean())


def _by_layer(rows: pd.DataFrame) -> pd.Series:
    return rows.groupby("layer")["accuracy"].mean()


def dips(results: Results) -> list[Reading]:
    found = []
    for model, language in results.settings:
        rows = where(results["layers"], model=model, language=language, kind="aggregated")
        if len(rows):
            estimate = jackknife(rows, lambda own: dip(_by_layer(own)), PER_PROJECT)
            found.append(reading(named(model, language), estimate, "project", NEGATIVE))
    return found


def _published_dips(load: Load) -> dict[tuple[str, str], float]:
    rows = where(load("layer_accuracy"), kind="aggregated")
    return {key: dip(_by_layer(own)) for key, own in rows.groupby(["model", "language"], sort=False)}


def dips_published(load: Load) -> list[Reading]:
    return [quoted(named(*key), value, NEGATIVE) for key, value in _published_dips(load).items()]


def llama_dips_more(results: Results) -> list[Reading]:
    found = []
    for language in ("java", "python"):
        for llama in results.models("llama"):
            for opt in results.models("opt"):
                rows = where(results["layers"], model=[llama, opt], language=language, kind="aggregated")
                if len(rows):
                    estimate = jackknife(
                        rows,
                        lambda own, llama=llama, opt=opt: (
                            dip(_by_layer(where(own, model=llama))) - dip(_by_layer(where(own, model=opt)))
                        ),
                        PER_PROJECT,
                    )
                    where_ = named(f"{llama} less {opt}", language)
                    found.append(reading(where_, estimate, "project", NEGATIVE))
    return found


def llama_dips_more_published(load: Load) -> list[Reading]:
    by = _published_dips(load)
    both = {
        name: (by.get((THEIRS["llama"], name)), by.get((THEIRS["opt"], name))) for name in ("java", "python")
    }
    return [
        quoted(named("Llama less OPT", name), llama - opt, NEGATIVE)
        for name, (llama, opt) in both.items()
        if llama is not None and opt is not None
    ]


def python_earlier(results: Results) -> list[Reading]:
    found = []
    for model in results.models("llama"):
        rows = where(results["layers"], model=model, kind="aggregated", layer=SHALLOW)
        if len(rows) and rows["language"].nunique() == 2:

            def difference(own: pd.DataFrame) -> float:
                means = own.groupby("language")["accuracy"].mean()
                return means["python"] - means["java"]

            estimate = jackknife(rows, difference, PER_LANGUAGE, "language")
            found.append(
                reading(f"{model}, Python less Java, layer {SHALLOW}", estimate, "project", POSITIVE)
            )
    return found


def python_earlier_published(load: Load) -> list[Reading]:
    java, python = (
        _published_layers(load, "llama", name, "aggregated", SHALLOW)["accuracy"].iloc[0]
        for name in ("java", "python")
    )
    return [quoted("llama-3.2-3b, Python less Java", python - java, POSITIVE)]


BELOW_BASE: Region = (-0.05, 0.0)


def below_base(results: Results) -> list[Reading]:
    found = []
    for model, language in results.of("llama", "java"):
        rows = where(results["layers"], model=model, language=language, kind=["base", "aggregated"])
        if len(rows):
            wide = _wide(where(rows, layer=int(rows["layer"].max())), "kind")
            estimate = jackknife(wide, lambda own: (own["aggregated"] - own["base"]).mean(), PER_PROJECT)
            found.append(reading(named(model, language, "last layer"), estimate, "project", BELOW_BASE))
    return found


def below_base_published(load: Load) -> list[Reading]:
    tuned, base = (
        _published_layers(load, "llama", "java", kind, 28)["accuracy"].iloc[0]
        for kind in ("aggregated", "base")
    )
    return [quoted("llama-3.2-3b, Java, last layer", tuned - base, BELOW_BASE)]


LAYERS = [
    Claim(
        "example", "1.1, Fig. 1.1", "Layer 14 says all, layer 4 most",
        "Layer 14 predicts 10 of 10 tokens as the last layer does, and layer 4 predicts 8 of 10.",
        "10 of 10; 8 of 10", "share of tokens that are the last layer's", "at least these, less 0.10",
        "Figure 1.1 (notebook 02), Figure 4.9 (notebook 03)", (1,), example, example_published,
        "a model of the Llama family",
    ),
    Claim(
        "base-silent", "4.4.1", "Base models are silent in layers 1-12",
        "Without fine-tuning, next-token accuracy is near zero in the first 12 layers.",
        "near 0", "mean accuracy of layers 1 to 12", "at most 0.05", "Figure 4.9 (notebook 03)", (1, 3),
        base_silent, base_silent_published, "the base models' layers",
    ),
    Claim(
        "layer-six", "4.4.1", "Layer 6 is right on 60 to 70%",
        "Fine-tuned, layer 6 predicts about 60% of Java's and 70% of Python's next tokens.",
        "about 0.60 (Java), 0.70 (Python)", "next-token accuracy at layer 6", "within 0.10",
        "Figure 4.9 (notebook 03)", (1, 3), layer_six, layer_six_published, "a model of the Llama family",
    ),
    Claim(
        "last-adds", "4.4.1", "The last layers add 10 to 15 points",
        "From layer 6 to the last layer next-token accuracy improves by 10 to 15 points only.",
        "0.10 to 0.15", "accuracy at the last layer less that at layer 6", "within 0.05 to 0.20",
        "Figure 4.9 (notebook 03)", (1, 3), last_adds, last_adds_published, "a model of the Llama family",
    ),
    Claim(
        "dips", "4.4.1", "Untrained layers dip",
        "Layers that the loss leaves out are worse than their trained neighbours.",
        "drops", "accuracy of layers between exit points, less the straight line between these", "below 0",
        "Figure 4.9 (notebook 03)", (1,), dips, dips_published, "all layers' accuracy",
    ),
    Claim(
        "llama-dips-more", "4.4.1", "Llama's layers dip more than OPT's",
        "Layers that the loss leaves out drop more in Llama than in OPT.",
        "more pronounced", "difference of the mean dips", "below 0", "Figure 4.9 (notebook 03)", (1,),
        llama_dips_more, llama_dips_more_published, "models of both families",
    ),
    Claim(
        "python-early-layers", "4.4.1", "Early layers know Python better",
        "Python has a higher next-token accuracy than Java in early layers.",
        "higher", "difference of the accuracies at layer 6", "above 0", "Figure 4.9 (notebook 03)", (1,),
        python_earlier, python_earlier_published, "a model of the Llama family and both languages",
    ),
    Claim(
        "below-base", "4.4.1", "Java's last layer loses a little",
        "On Java the last layer of the fine-tuned model is a few points less accurate than the base model's.",
        "a few points below", "difference of the accuracies at the last layer", f"below 0, by at most {-BELOW_BASE[0]:g}",
        "Figure 4.9 (notebook 03)", (1, 3), below_base, below_base_published, "a model of the Llama family",
    ),
]  # fmt: skip
