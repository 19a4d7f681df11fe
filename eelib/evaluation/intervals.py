"""Intervals of notebook 05: how far scores could move had other samples been drawn, and the difference to the full model."""

import numpy as np
import pandas as pd

from eelib.evaluation.metrics import per_sample_metrics
from eelib.evaluation.statistics import bootstrap_interval, paired_difference

# BLEU and CodeBLEU are scores of a corpus, not means over samples, and have no interval here.
SCORES = ["rouge_l", "chrf", "levenshtein", "exact_match", "token_accuracy", "agreement", "mean_layers"]


def sample_scores(rows: pd.DataFrame, language: str) -> pd.DataFrame:
    """Scores of every sample, means over agents: index `label` (as in `evaluation_frame`) and `sample`, columns `SCORES`.

    Agreement and mean layers are means over a sample's own tokens, so that one that ended early weighs like the others.
    """
    scores = per_sample_metrics(rows["prediction"].tolist(), rows["reference"].tolist(), language)
    scores.index = rows.index
    scores["token_accuracy"] = rows["token_accuracy"]
    scores["agreement"] = [np.mean(agrees) for agrees in rows["agrees"]]
    scores["mean_layers"] = [np.mean(layers) for layers in rows["exit_layers"]]
    labels = (
        rows["threshold"]
        .map("{:g}".format)
        .where(rows["criterion"] == "agent", rows["kind"].replace("aggregated", "full"))
    )
    return scores.groupby([labels.rename("label"), rows["sample"]], sort=False)[SCORES].mean()


def interval_frame(predictions: pd.DataFrame, language: str) -> pd.DataFrame:
    """One row a label and score: `mean`, `low`, `high`, and `over_full`, `over_full_low`, `over_full_high`, paired by sample.

    95%, percentile bootstrap over projects, `projects` of them: files of one project resemble each other. The base model has
    its own tokens at every position, so all are compared on text, token accuracy apart.

    Parameters
    ----------
    predictions: rows as of `results.evaluation_frame`, of one model, corpus and context.
    """
    scores, rows = sample_scores(predictions, language), []
    projects = predictions.drop_duplicates("sample").set_index("sample")["project"]
    for label in scores.index.get_level_values("label").unique():
        of_label, full = scores.loc[label], scores.loc["full"]
        full = full.loc[of_label.index]
        groups = projects[of_label.index].tolist()
        for score in SCORES:
            mean = bootstrap_interval(of_label[score], groups)
            difference = paired_difference(of_label[score], full[score], groups)
            rows.append(
                {"label": label, "score": score, "projects": len(set(groups))}
                | dict(zip(["mean", "low", "high"], mean, strict=True))
                | dict(zip(["over_full", "over_full_low", "over_full_high"], difference, strict=True))
            )
    return pd.DataFrame(rows)
