"""Checks as in `contradiction_checks.py`, of the thesis's formulas, layers and small tables."""

from rouge_score.rouge_scorer import RougeScorer

from eelib.models.exits import DECAY, exit_points
from eelib.report.contradiction_checks import CHECKS, LAYERS, LLAMA, computes
from eelib.report.thesis_numbers import load

__all__ = ["CHECKS"]  # all of them, those of this file included

# --- small tables ---


@computes("fewer-decoders")
def _encoders_beyond_decoders() -> float:
    models = load("table_3_1")["model"]
    return models.str.contains("Encoder-Only").sum() - models.str.contains("Decoder-Only").sum()


@computes("elbayad-encoder")
def _encoders_of_section_11() -> float:
    cited = load("table_3_1").query("reference in [20, 89, 71, 72]")
    return cited["model"].str.startswith("Encoder-Only").sum()


CHECKS["cheap-candidates"] = lambda: load("table_5_1")["overhead"].str.startswith("High").sum()
CHECKS["three-splits"] = lambda: (load("table_4_1")["name"] == "PY150").sum()


@computes("samples-15k")
def _training_samples() -> float:
    return load("table_4_1").query("name == 'JavaCorpus' and split == 'train'")["samples"].item()


def _hyperparameter(name: str) -> str:
    return load("table_6_6").set_index("hyperparameter").loc[name, "value"]


CHECKS["one-or-two-layers"] = lambda: len(_hyperparameter("Number of hidden layers").split(","))
CHECKS["discount"] = lambda: float(_hyperparameter("gamma"))


# --- formulas, applied ---


@computes("layer-three")
def _named_layers_that_are_exits() -> float:
    return len({3, 5, 13, 17, 21, 25} & set(exit_points(28)))


CHECKS["trajectory"] = lambda: exit_points(28).index(26)


@computes("weights-sum")
def _weights_by_the_printed_sum() -> float:
    """Eq. 4.4 as printed, the sum from j = 1, for the first half of 28 layers."""
    ratios = [DECAY**i for i in range(sum(layer <= 14 for layer in exit_points(28)))]
    return sum(ratio / sum(ratios[1:]) * 0.7 for ratio in ratios)


@computes("missing-caches")
def _missing_layers_named() -> float:
    """Figure 4.5: an exit at layer 2, then one at layer 4, of a model deeper than that."""
    named = {layer for layer in range(1, LAYERS[LLAMA]) if layer > 4}  # l'' > l' and l'' < L
    return len(named & {3, 4})


@computes("expected-reward")
def _reward_by_equation_54() -> float:
    """Eq. 5.4 for a token whose layers are right from 4 of 28 on, all coefficients 1, distances over the depth."""
    optimal, depth = 4, 28
    right = sum(layer == optimal for layer in range(1, depth + 1))
    late = sum((layer - optimal) / depth for layer in range(1, depth + 1) if layer > optimal)
    early = sum((optimal - layer) / depth for layer in range(1, optimal))
    return right - late - early


@computes("rouge-l-ngrams")
def _rouge_of_swapped_words() -> float:
    return RougeScorer(["rougeL"]).score("a b", "b a")["rougeL"].fmeasure
