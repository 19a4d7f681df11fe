"""Cards of the fine-tunings that models ship, and of the model that others pretrained: from records, never by hand."""

import pandas as pd

from eelib.report.figures import LANGUAGES

SMOLLM = "smollm2-135m"

CARD = """# {model}

SmolLM2-135M-Instruct (Allal et al. 2025): a Llama of 30 layers, width 576, 9 heads, 3 key-value heads, 8,192 positions, tied head. It is the Llama of this study
where no hub is at hand: a real language model, at a size that two cores can run.

| | |
|---|---|
| Base | the file `{member}` of the package `{project}` {version}, sha256 of the package `{sha256}`; nothing of the package is imported or run |
| Licence | {licence}, base and differences |
| Rounding | quantised by others to Q4_1, {bits}; dequantised here to float32. It is not exactly the model that its authors released |
| Vocabulary | its 49,152 tokens and ` <EOL>`, one token of its own as in the thesis (Section 4.2.2), which begins as the line break's embedding |
| Start and end of a file | `<|endoftext|>`, which stood between documents in its pretraining |
| What it has read | two trillion tokens of web text, textbooks and public code, then instructions. Any public file of the corpora, test projects included, may be among them: as for the thesis's own models, nobody can tell |
"""

FINE_TUNINGS = """## Fine-tunings that ship

`load_model("{model}+aggregated")` adds a difference to the base: low-rank factors in int8 for every matrix, norms and the `<EOL>` row as they are.

{recipes}

Accuracy of the next token and agreement with the last layer on test projects of `data/`, of the base, the tuned model, and the base with the difference as it ships:

{layers}

Both languages are trained together. Every step of the last run, loss by layer: `*_log.csv`. Validation projects over the tokens seen: `*_curve.csv`. Recipe and ranks: `*.json`.

Tokens seen are few: middle layers gain with every further token, and a later version of these files is to be expected. Exits of such a model are for studying early exit.

Made by, and made longer by, a run after the other:

{commands}
"""


def card(source: dict, records: dict[str, dict], layers: dict[str, pd.DataFrame]) -> str:
    """The card's Markdown.

    Parameters
    ----------
    source: `source.json`.
    records: `<kind>.json` of each kind that ships.
    layers: `<kind>_layers.csv` of the same kinds.
    """
    head = CARD.format(
        model=SMOLLM,
        bits="about 5 bits a weight, its embeddings to Q8_0",
        **{key: source[key] for key in ("member", "project", "version", "sha256", "licence")},
    )
    return f"{head}\n{fine_tunings(SMOLLM, records, layers)}"


def fine_tunings(model: str, records: dict[str, dict], layers: dict[str, pd.DataFrame]) -> str:
    """The part of a card, or the card of its own, that tells the fine-tunings a model ships: arguments as for `card`."""
    rows = [
        "| Fine-tuning | Run | Loss | Tokens seen | Steps | Learning rate |",
        "|" + "---|" * 6,
    ]
    for kind, record in records.items():
        for number, run in enumerate(runs(record), 1):
            recipe = run["recipe"]
            rows.append(
                f"| {kind} | {number} | {_loss(kind, recipe)} | {run['tokens_of_run']:,} "
                f"| {recipe['steps']} of {recipe['batch_size']} x {recipe['sequence_length']} | {recipe['learning_rate']:g} |"
            )
    rows += ["", "| File | Size | Tokens seen | Energy of the difference kept |", "|" + "---|" * 4]
    for kind, record in records.items():
        rows.append(
            f"| `{kind}.safetensors` | {record['bytes'] / 1e6:.1f} MB | {record['tokens_seen']:,} | {record['energy_kept']:.1%} |"
        )
    commands = "\n".join(
        f"{number}. {kind}: `{_command(model, kind, run['recipe'], number > 1)}`"
        for kind, record in records.items()
        for number, run in enumerate(runs(record), 1)
    )
    return FINE_TUNINGS.format(
        model=model,
        recipes="\n".join(rows),
        layers="\n\n".join(_table(kind, frame) for kind, frame in layers.items()),
        commands=commands,
    )


def runs(record: dict) -> list[dict]:
    """`recipe`, `tokens_of_run` and more of each run that a fine-tuning came from, the first one first."""
    return [*record["earlier"], record]


def _loss(kind: str, recipe: dict) -> str:
    if kind == "plain":
        return "last layer alone, same files, order and steps"
    targets = "the last layer's distribution" if recipe["distilled"] else "the true tokens"
    return f"exit points and last layer, {recipe['loss_weights']} weights, exits learn {targets}"


def _command(model: str, kind: str, recipe: dict, goes_on: bool) -> str:
    words = [f"python -m eelib.training.adapt --model {model}", f"--loss {kind}"]
    words += [] if model == SMOLLM else ["--profile laptop"]  # whose recipe it is
    words += ["--start FOLDER-OF-THE-RUN-BEFORE"] if goes_on else []
    words += [f"--steps {recipe['steps']}", f"--learning-rate {recipe['learning_rate']:g}"]
    words += [f"--loss-weights {recipe['loss_weights']}", f"--shallow-steps {recipe['shallow_steps']:g}"]
    return " ".join([*words, *(["--distilled"] if recipe["distilled"] else []), "--export"])


def _table(kind: str, frame: pd.DataFrame) -> str:
    """Accuracy / agreement by layer (rows), model and language (columns)."""
    columns = [
        (model, language) for language in frame["language"].unique() for model in frame["kind"].unique()
    ]
    lines = [
        f"**{kind}**, accuracy / agreement\n",
        "| Layer | " + " | ".join(f"{LANGUAGES[language]}, {model}" for model, language in columns) + " |",
        "|" + "---|" * (len(columns) + 1),
    ]
    at = frame.set_index(["kind", "language", "layer"])
    for layer in sorted(frame["layer"].unique()):
        cells = [
            f"{at.loc[(model, language, layer), 'accuracy']:.3f} / {at.loc[(model, language, layer), 'agreement']:.3f}"
            for model, language in columns
        ]
        lines.append(f"| {layer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
