"""Measuring the shipped base models and writing their cards.

    python -m eelib.report.cards opt-pico --codexglue <folder of line-completion files>

Writes `layers.csv`, `layers.png`, `curves.png` and `README.md` beside the model's weights; of a model that others pretrained only
the card, from the records of its fine-tunings.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

from eelib import paths
from eelib.data.codexglue import line_completion_file
from eelib.data.corpus import load_corpus
from eelib.data.lexing import LANGUAGES
from eelib.errors import InputError
from eelib.models.exits import exit_points
from eelib.models.layer_scores import base_model_scores
from eelib.models.packaged import SOURCE
from eelib.profile import load_profile
from eelib.report import shipped_models
from eelib.report.base_models import card, curves_figure, layers_figure
from eelib.report.figures import save_figure

LAYERS_FILE = "layers.csv"


def held_out_files(codexglue: Path | None) -> dict[tuple[str, str], list[list[str]]]:
    """Code of the test files by (corpus, language): of the shipped corpora, and of CodeXGLUE where its files are at hand."""
    corpora = {}
    for language in LANGUAGES:
        files = load_corpus(load_profile("laptop").data, language)
        corpora["shipped", language] = [file.code for file in files if file.split == "test"]
    if codexglue is not None:
        for language in LANGUAGES:
            found = sorted(codexglue.glob(f"{language}_test.jsonl*"))
            if not found:
                raise InputError(f"The folder {codexglue} has no {language}_test.jsonl or .jsonl.gz file.")
            corpora["CodeXGLUE", language] = [code for _, code in line_completion_file(found[0])]
    return corpora


def write_report(folder: Path, scores: pd.DataFrame) -> None:
    """Scores, figures and card of the model in `folder`, from its `training.json`, `config.json` and the scores."""
    record = json.loads((folder / "training.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    rounded = scores.assign(accuracy=scores["accuracy"].round(4), perplexity=scores["perplexity"].round(3))
    rounded.to_csv(folder / LAYERS_FILE, index=False)
    for name, figure in {"curves": curves_figure(record), "layers": layers_figure(scores)}.items():
        pdf = save_figure(figure, name, folder, record["model"])[1]
        pdf.unlink()  # a card shows the PNG
    # Of what is kept, so that a card's digits are those that its file rounds to.
    text = card(record, config, rounded, exit_points(config["num_hidden_layers"]))
    (folder / "README.md").write_text(text, encoding="utf-8")


def write_card(folder: Path) -> None:
    """What is known of the fine-tunings that a model ships, from their records: in its card where others pretrained it, beside it else."""
    kinds = [kind for kind in ("aggregated", "plain") if (folder / f"{kind}.json").exists()]
    records = {kind: json.loads((folder / f"{kind}.json").read_text()) for kind in kinds}
    layers = {kind: pd.read_csv(folder / f"{kind}_layers.csv") for kind in kinds}
    if (folder / SOURCE).exists():
        text = shipped_models.card(json.loads((folder / SOURCE).read_text()), records, layers)
        (folder / "README.md").write_text(text, encoding="utf-8")
    else:
        text = f"# {folder.name}\n\n{shipped_models.fine_tunings(folder.name, records, layers)}"
        (folder / "FINE_TUNINGS.md").write_text(text, encoding="utf-8")


def last_layer_scores(models: list[str]) -> pd.DataFrame:
    """Last-layer scores of the shipped ones among `models`: a row a model, corpus and language, as their cards say them."""
    frames = []
    for name in models:
        path = paths.MODELS / name / LAYERS_FILE
        if path.exists():
            scores = pd.read_csv(path)
            frames.append(scores[scores["layer"] == scores["layer"].max()].assign(model=name))
    columns = ["model", "corpus", "language", "layer", "accuracy", "perplexity", "tokens"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def main() -> None:
    """Command line; bad input ends in one sentence and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", help="a shipped model's name")
    parser.add_argument("--codexglue", type=Path, help="folder of <language>_test.jsonl(.gz) files")
    parser.add_argument(
        "--fine-tunings", action="store_true", help="only what is known of those it ships, from their records"
    )
    args = parser.parse_args()
    folder = paths.MODELS / args.model
    if args.fine_tunings or (folder / SOURCE).exists():
        write_card(folder)
        return
    try:
        if not (folder / "training.json").exists():
            shipped = sorted(path.parent.name for path in paths.MODELS.glob("*/training.json"))
            raise InputError(
                f"There is no pretrained model {args.model!r}: allowed are {', '.join(shipped)}."
            )
        scores = base_model_scores(args.model, held_out_files(args.codexglue))
        write_report(folder, scores)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    last = scores[scores["layer"] == scores["layer"].max()]
    print(last.to_string(index=False, float_format="%.3f"))


if __name__ == "__main__":
    main()
