"""What every layer of a model can decode (Figures 1.1, 4.8 to 4.10)."""

import pandas as pd
import torch

from eelib.data.corpus import CodeFile
from eelib.decoding.criteria import FullDepth
from eelib.decoding.generate import generate
from eelib.evaluation.predict import projects_of, test_samples
from eelib.evaluation.statistics import bootstrap_interval, paired_difference
from eelib.evaluation.sweep import summarise, summarise_timings
from eelib.models.exits import exit_points
from eelib.models.loading import CodeModel
from eelib.profile import Context


def layer_accuracy(
    tuned: CodeModel, corpus: list[CodeFile], context_fraction: float, samples: int, context: Context
) -> pd.DataFrame:
    """Next-token accuracy and agreement with the last layer, of every layer (Figure 4.9).

    The model reads context and reference at once (teacher forcing), so every layer predicts each reference token from
    the same prefix.

    Returns
    -------
    One row a sample x layer: `layer`, `sample`, `project`, `accuracy`, `agreement` (of the sample's tokens), `tokens`.
    """
    parts, projects, tables = tuned.parts, projects_of(corpus), []
    for sample in test_samples(corpus, tuned.tokenizer, context_fraction, samples, context)[0]:
        ids = torch.tensor([sample.context + sample.reference], device=parts.device)
        target = ids[0, len(sample.context) :]
        with torch.inference_mode():
            states = parts.hidden_states(ids[:, :-1])
            chosen = torch.stack([state[0, -len(target) :] for state in states])
            predicted = parts.logits(chosen).argmax(-1)
        table = pd.DataFrame(
            {
                "layer": range(1, parts.total_layers + 1),
                "sample": sample.id,
                "project": projects[sample.id],
                "accuracy": (predicted == target).double().mean(1).cpu().numpy(),
                "agreement": (predicted == predicted[-1]).double().mean(1).cpu().numpy(),
                "tokens": len(target),
            }
        )
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def token_grid(
    tuned: CodeModel, corpus: list[CodeFile], context: Context, tokens: int = 10
) -> list[list[str]]:
    """Figure 1.1: for one completion of the full model, what each exit point and the last layer predict.

    Returns
    -------
    One list of at most `tokens` decoded tokens an exit point, then the last layer's.
    """
    parts, tokenizer = tuned.parts, tuned.tokenizer
    sample = test_samples(corpus, tokenizer, 0.3, 1, context)[0][0]
    completion = generate(parts, sample.context, tokens, FullDepth(), end=tokenizer.eos_token_id).tokens
    with torch.inference_mode():
        states = parts.hidden_states(torch.tensor([sample.context + completion[:-1]], device=parts.device))
        chosen = [
            states[layer - 1][0, -len(completion) :] for layer in [*parts.exit_points, parts.total_layers]
        ]
        ids = [parts.logits(state).argmax(-1).tolist() for state in chosen]
    return [[tokenizer.decode([token]).strip() for token in row] for row in ids]


def fixed_exit_frame(predictions: pd.DataFrame, timings: pd.DataFrame, language: str) -> pd.DataFrame:
    """Fixed exits of one model, a row a layer: metrics over all samples, `time_s` and `energy_j` over the timed ones, `flops`
    a token (Figure 4.10).

    Time and energy are NaN at layers that are no exit points.
    """
    metrics = summarise(predictions, language)
    costs = summarise_timings(timings)
    frame = metrics.merge(costs[["threshold", "seconds", "joules"]], on="threshold", how="left")
    frame = frame.rename(columns={"threshold": "layer", "seconds": "time_s", "joules": "energy_j"})
    return frame.astype({"layer": int})


def epoch_frame(predictions: pd.DataFrame, log: pd.DataFrame, language: str) -> pd.DataFrame:
    """Metrics by layer over the steps of a fine-tuning (Figure 4.8).

    Parameters
    ----------
    predictions: rows of `predict.epoch_predictions` with their `step`.
    log: of the training, for the `epoch` of a step.

    Returns
    -------
    `epoch` (passes over the training files as text, "base" for none), `step`, `layer`, and `summarise`'s.
    """
    epochs, frames = log.set_index("step")["epoch"], []
    for step, rows in predictions.groupby("step", sort=False):
        epoch = f"{epochs[step]:.2g}" if step else "base"
        frames.append(summarise(rows, language).assign(epoch=epoch, step=step))
    frame = pd.concat(frames, ignore_index=True)
    return frame.rename(columns={"threshold": "layer"}).astype({"layer": int})


def accuracy_frame(samples: pd.DataFrame) -> pd.DataFrame:
    """`model`, `language`, `kind`, `layer`, `accuracy`, `agreement`, `tokens`: over all samples' tokens (Figure 4.9).

    Every sample has as many tokens, so that a mean of samples is one of tokens.
    """
    groups = samples.groupby(["model", "language", "kind", "layer"], sort=False)
    frame = groups[["accuracy", "agreement"]].mean()
    frame["tokens"] = groups["tokens"].sum()
    return frame.reset_index()


def kinds_frame(samples: pd.DataFrame) -> pd.DataFrame:
    """The kinds of model compared at the first exit point and the last layer, with 95% bootstrap intervals over projects.

    One row a setting, layer and kind: `accuracy` with `low` and `high`; `over_plain` is the mean paired difference to the
    plainly fine-tuned model on the same samples, with `over_plain_low` and `over_plain_high`.
    """
    rows = []
    for (model, language), setting in samples.groupby(["model", "language"], sort=False):
        last = setting["layer"].max()
        for layer in (exit_points(last)[0], last):
            at = setting[setting["layer"] == layer]
            by_kind = at.pivot(index=["project", "sample"], columns="kind", values="accuracy")
            groups = by_kind.index.get_level_values("project")
            for kind in at["kind"].unique():
                values = by_kind[kind]
                own = bootstrap_interval(values, groups)
                paired = paired_difference(values, by_kind["plain"], groups)
                row = {"model": model, "language": language, "layer": layer, "kind": kind}
                row |= {"accuracy": own.mean, "low": own.low, "high": own.high}
                row |= {
                    "over_plain": paired.mean,
                    "over_plain_low": paired.low,
                    "over_plain_high": paired.high,
                    "samples": len(values),
                    "projects": groups.nunique(),
                }
                rows.append(row)
    return pd.DataFrame(rows)
