"""The card of a model that others pretrained and that ships fine-tunings of this study: from their records, never by hand."""

import pandas as pd

from eelib.report.figures import LANGUAGES

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

## Fine-tunings that ship

`load_model("{model}+aggregated")` adds a difference to the base: low-rank factors in int8 for every matrix, norms and the `<EOL>` row as they are.

{recipes}

Accuracy of the next token and agreement with the last layer on test projects of `data/`, of the base, the tuned model, and the base with the difference as it ships:

{layers}

Both languages are trained together. Every step, loss by layer: `*_log.csv`. Validation projects over the tokens seen: `*_curve.csv`. Recipe and ranks: `*.json`.

Tokens seen are few: middle layers gain with every further token, and a later version of these files is to be expected. Exits of such a model are for studying early exit.

Again, and longer: {commands}
"""


def card(source: dict, records: dict[str, dict], layers: dict[str, pd.DataFrame]) -> str:
    """The card's Markdown.

    Parameters
    ----------
    source: `source.json`.
    records: `<kind>.json` of each kind that ships.
    layers: `<kind>_layers.csv` of the same kinds.
    """
    rows = [
        "| Fine-tuning | Loss | Tokens seen | Steps | Learning rate | File | Energy of the difference kept |",
        "|" + "---|" * 7,
    ]
    for kind, record in records.items():
        recipe = record["recipe"]
        loss = {
            "aggregated": f"exit points and last layer, {recipe['loss_weights']} weights"
            + (", exits learn the last layer's distribution" if recipe["distilled"] else ""),
            "plain": "last layer alone, same files, order and steps",
        }[kind]
        rows.append(
            f"| {kind} | {loss} | {record['tokens_seen']:,} | {recipe['steps']} of {recipe['batch_size']} x {recipe['sequence_length']} | "
            f"{recipe['learning_rate']:g} | `{kind}.safetensors`, {record['bytes'] / 1e6:.1f} MB | {record['energy_kept']:.1%} |"
        )
    commands = "; ".join(
        f"`python -m eelib.training.adapt --loss {kind} --steps {record['recipe']['steps']} "
        f"--learning-rate {record['recipe']['learning_rate']:g}{' --distilled' if record['recipe']['distilled'] else ''} --export`"
        for kind, record in records.items()
    )
    return CARD.format(
        model="smollm2-135m",
        bits="about 5 bits a weight, its embeddings to Q8_0",
        recipes="\n".join(rows),
        layers="\n\n".join(_table(kind, frame) for kind, frame in layers.items()),
        commands=commands,
        **{key: source[key] for key in ("member", "project", "version", "sha256", "licence")},
    )


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
