"""Figures and card of a pretrained base model, from its training record and the scores of its layers."""

import pandas as pd

from eelib.report.figures import (
    BLUE,
    GREEN,
    GREY,
    LANGUAGES,
    ORANGE,
    PURPLE,
    VERMILLION,
    Exhibit,
    curve,
    finished,
    label,
    layer_axis,
    legend,
    new_figure,
)

CARD = """# {model}

A base model for the laptop profile of this study: {layers} layers of width {width}, {parameters:.1f}M parameters, {positions} positions, a byte-pair vocabulary of
{vocabulary} entries over CodeXGLUE-style code tokens. It has the depth of the thesis's model at a size that trains on a laptop, and knows nothing of early exits:
plain next-token loss on the last layer.

| | |
|---|---|
| Tokens seen | {tokens_seen:.1f}M, Java and Python half each ({steps} steps of {batch} sequences of {positions}) |
| Optimizer | {optimizer}, weight decay 0.1, clipping 1.0, learning rate {learning_rate:g}: {warmup} steps of warm-up, constant, last {decay} steps falling linearly |
| Depth | {depth} |
| Initialisation | N(0, 0.02), output projections scaled by 1/sqrt(2L) |
| Precision | {precision}, `torch.compile`; weights shipped as bf16 |
| Hardware | {device}, {hours:.1f} hours; energy not measured |
| Seed | {seed} |
| Loss on held-out blocks of the training files | {first_loss:.3f} at step {first_step}, {last_loss:.3f} at step {last_step} (nats a BPE token) |

![Loss and gradient norm over training](curves.png)

**Learning rates tried**, {trial_steps} steps each, the same blocks; the lowest held-out loss went on:

{trials}

## What each layer predicts

Next-token accuracy and perplexity per BPE token, each token with at least 50 tokens of context, decoded by the model's own final norm and head; up to 400 windows of
{positions} tokens a corpus. Every layer: `layers.csv`. CodeXGLUE is the test files of its line-completion task.

{scores}

Largest excess of a layer before the last quarter over the next deeper one, in accuracy: {mark:.3f}. A model grown from a shallower one carries marks of
0.1 and more there; fixed exits at such layers are better than an honest base allows.

![Accuracy and perplexity by layer](layers.png)

## Data

{data}
Sources with version, hash and licence: `eelib/data/pretraining_packages.csv`. Near-duplicates are removed{excluded}. No file of
the study shares 50 consecutive tokens with one of these.

## Limits, use, licence

{tokens_per_parameter:.1f} tokens a parameter is little: the model knows syntax and common idioms. It is meant for studying early exit on a laptop, and for nothing else.
The weights are released under MIT like the code. They were trained on sources under the licences listed in those tables, OpenJDK's GPL-2.0 with the Classpath exception among them.

Again: `python -m eelib.training.pretrain --model {model} --steps {steps}{rates}{exclude}`, then `python -m eelib.report.cards {model}`.
"""

_COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE)


def curves_figure(record: dict) -> Exhibit:
    """Training and held-out loss over steps, the trials beside the long run, and the gradient norm."""
    figure, axes = new_figure(1, 2, panel=(4.2, 2.8))
    loss, norm = axes[0]
    log = pd.DataFrame(record["log"])
    steps = log.dropna(subset="loss")
    curve(loss, steps["step"], steps["loss"], GREY, "training", marker="", linewidth=0.8)
    held_out = log.dropna(subset="eval_loss")
    curve(loss, held_out["step"], held_out["eval_loss"], BLUE, f"held out, {record['learning_rate']:g}")
    others = {rate: log for rate, log in record["trials"].items() if float(rate) != record["learning_rate"]}
    for (rate, trial), colour in zip(others.items(), _COLOURS[1:], strict=False):
        tried = pd.DataFrame(trial).dropna(subset="loss")
        curve(loss, tried["step"], tried["loss"], colour, f"trial, {rate}", marker="", linewidth=0.9)
    label(loss, "Loss", "step", "nats a BPE token")
    legend(loss)
    curve(norm, steps["step"], steps["grad_norm"], GREY, "", marker="", linewidth=0.8)
    norm.set_yscale("log")
    label(norm, "Gradient norm", "step", "before clipping")
    return finished(figure)


def layers_figure(scores: pd.DataFrame) -> Exhibit:
    """Accuracy and perplexity by layer, a curve a corpus and language.

    Parameters
    ----------
    scores: columns `corpus`, `language`, `layer`, `accuracy`, `perplexity`.
    """
    figure, axes = new_figure(1, 2, panel=(4.2, 2.8))
    accuracy, perplexity = axes[0]
    groups = scores.groupby(["language", "corpus"], sort=False)
    for (language, corpus), rows in groups:
        colour = BLUE if language == "java" else VERMILLION
        line = "-" if corpus == "CodeXGLUE" else "--"
        name = f"{LANGUAGES[language]}, {corpus}"
        curve(accuracy, rows["layer"], rows["accuracy"], colour, name, line)
        curve(perplexity, rows["layer"], rows["perplexity"], colour, name, line)
    for ax in (accuracy, perplexity):
        layer_axis(ax, int(scores["layer"].max()))
    accuracy.set_ylim(0, 1)
    perplexity.set_yscale("log")
    label(accuracy, "Next-token accuracy", "layer", "share of BPE tokens")
    label(perplexity, "Perplexity", "layer", "per BPE token")
    legend(accuracy)
    return finished(figure)


def card(record: dict, config: dict, scores: pd.DataFrame, exit_points: list[int]) -> str:
    """The card's Markdown.

    Parameters
    ----------
    record: `training.json` of `eelib.training.pretrain`.
    config: the model's `config.json`.
    scores: as for `layers_figure`.
    """
    corpus = record["corpus"]
    data = " ".join(
        f"{LANGUAGES[language]}: {part['files']:,} files of {len(part['projects'])} projects, "
        f"{part['code_tokens'] / 1e6:.1f}M code tokens, {part['bpe_tokens'] / 1e6:.1f}M BPE tokens."
        for language, part in corpus.items()
        if language in LANGUAGES
    )
    held_out = [entry for entry in record["log"] if "eval_loss" in entry]
    excluded = corpus["excluded"]
    trials = record["trials"]
    return CARD.format(
        model=record["model"],
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        positions=config["max_position_embeddings"],
        vocabulary=config["vocab_size"],
        parameters=record["parameters"] / 1e6,
        tokens_seen=record["tokens_seen"] / 1e6,
        tokens_per_parameter=record["tokens_seen"] / record["parameters"],
        steps=record["steps"],
        batch=record["batch_size"],
        learning_rate=record["learning_rate"],
        warmup=record["warmup_steps"],
        decay=record["decay_steps"],
        precision=record["precision"],
        optimizer=record["optimizer"],
        depth=_depth(record),
        device=record["device"],
        hours=record["hours"],
        seed=record["seed"],
        first_loss=held_out[0]["eval_loss"],
        first_step=held_out[0]["step"],
        last_loss=held_out[-1]["eval_loss"],
        last_step=held_out[-1]["step"],
        trial_steps=next(iter(trials.values()))[-1]["step"] if trials else 0,
        trials=_trials_table(trials) if trials else "none.",
        mark=growth_mark(scores),
        scores=_scores_table(scores, [*exit_points, config["num_hidden_layers"]]),
        data=data,
        excluded=f", and so is every file that shares 50 consecutive tokens with {' and '.join(excluded)} of CodeXGLUE"
        if excluded
        else "",
        rates=f" --learning-rates {' '.join(trials)}"
        if trials
        else f" --learning-rates {record['learning_rate']:g}",
        exclude=f" --exclude {' '.join(excluded)}" if excluded else "",
    )


def _depth(record: dict) -> str:
    """How deep the model was while it trained; `stages` is in the record of one that was grown."""
    if "stages" not in record:
        return "all layers from the first step on"
    stages = ", ".join(f"{stage['steps']} steps at {stage['layers']} layers" for stage in record["stages"])
    return f"grown: {stages}; at each change the layers were stacked on copies of themselves"


def growth_mark(scores: pd.DataFrame) -> float:
    """By how much a layer before the last quarter is at most more accurate than the next deeper one, over all corpora."""
    total = int(scores["layer"].max())
    marks = []
    for _, rows in scores.groupby(["corpus", "language"]):
        accuracy = rows.set_index("layer")["accuracy"].sort_index()
        falls = (accuracy - accuracy.shift(-1))[accuracy.index < 0.75 * total]
        marks.append(falls.max())
    return float(max(marks))


def _trials_table(trials: dict[str, list[dict]]) -> str:
    rows = ["| Learning rate | Held-out loss |", "|---|---|"]
    rows += [f"| {rate} | {records[-1]['eval_loss']:.3f} |" for rate, records in trials.items()]
    return "\n".join(rows)


def _scores_table(scores: pd.DataFrame, layers: list[int]) -> str:
    groups = list(scores.groupby(["corpus", "language"], sort=False))
    names = [f"{corpus}, {LANGUAGES[language]}" for (corpus, language), _ in groups]
    rows = [f"| Layer | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for layer in layers:
        cells = []
        for _, frame in groups:
            row = frame[frame["layer"] == layer].iloc[0]
            cells.append(f"{row['accuracy']:.3f} / {row['perplexity']:.1f}")
        rows.append(f"| {layer} | {' | '.join(cells)} |")
    counts = [f"{frame['tokens'].iloc[0]:,}" for _, frame in groups]
    rows.append(f"| tokens scored | {' | '.join(counts)} |")
    return "\n".join(rows)
