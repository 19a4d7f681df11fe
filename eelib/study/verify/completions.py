"""What must hold between completions: predictions and timings, by what decoding is.

Each function is a relation and says why it holds. It gives the rows that break it.
"""

import itertools
from collections.abc import Iterator
from functools import cache

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from eelib.errors import InputError
from eelib.evaluation.flops import generation_flops
from eelib.evaluation.metrics import token_accuracy
from eelib.models import loading
from eelib.models.exits import exit_points

CONTEXT = ["model", "language", "context_fraction", "sample"]
load_config, load_tokenizer = cache(loading.load_config), cache(loading.load_tokenizer)
Broken = Iterator[tuple[str, pd.DataFrame]]  # why it must hold, and the rows for which it does not


def lengths(rows: pd.DataFrame) -> Broken:
    """Lists of one completion are as long as it."""
    size = rows["tokens"].map(len)
    yield "a completion has an exit layer a token", rows[rows["exit_layers"].map(len) != size]
    judged = rows["agrees"].map(len)
    yield "a completion is judged whole or not at all", rows[(judged != size) & (judged > 0)]
    yield "a completion has at least one token", rows[size == 0]


def layers(rows: pd.DataFrame) -> Broken:
    """Where a model can stop."""
    for model, own in rows.groupby("model"):
        total = load_config(model).num_hidden_layers
        stops = {*exit_points(total), total}
        used = own["exit_layers"].map(set)
        full, fixed = own["criterion"] == "full", own["criterion"] == "fixed"
        yield "a full model runs all layers", own[full & (used != {total})]
        at_its_layer = [at == {depth} for at, depth in zip(used, own["threshold"], strict=True)]
        yield "a fixed exit runs its layer", own[fixed & ~np.array(at_its_layer)]
        agent = ~full & ~fixed
        yield (
            f"an agent leaves at an exit point of {model} or its last layer",
            own[agent & ~used.map(stops.issuperset)],
        )


def flops(rows: pd.DataFrame) -> Broken:
    """FLOPs follow from prompt, exit layers and cache."""
    for model, own in rows.groupby("model"):
        config, count = load_config(model), []
        for row in own.itertuples():
            try:
                count.append(generation_flops(config, row.prompt_tokens, list(row.exit_layers), row.cache))
            except InputError:  # layers or caches that are none
                count.append(-1)
        yield "FLOPs follow from prompt, exit layers and cache", own[own["flops"] != count]


def texts(rows: pd.DataFrame) -> Broken:
    """A prediction is its tokens' text, and is as accurate as its tokens are."""
    for model, own in rows.groupby("model"):
        tokenizer = load_tokenizer(model)
        said = [tokenizer.decode(list(tokens), skip_special_tokens=True).strip() for tokens in own["tokens"]]
        yield "a prediction is the text of its tokens", own[own["prediction"] != said]
        longest = own.groupby("node")["tokens"].transform(lambda lists: lists.map(len).max())
        hits = own["token_accuracy"] * longest
        yield "accuracy is a number of tokens of the reference", own[(hits - hits.round()).abs() > 1e-6]
        ids = {text: _readings(text, tokenizer) for text in own["reference"].unique()}
        scores = [
            {token_accuracy(list(row.tokens), one) for one in ids[row.reference] if len(one) == size}
            for row, size in zip(own.itertuples(), longest, strict=True)
        ]
        apart = [
            len(found) > 0 and min(abs(score - value) for score in found) > 1e-9
            for found, value in zip(scores, own["token_accuracy"], strict=True)
        ]
        # A text that begins within a word may be read back as other tokens: a reading counts where many hits confirm it.
        group, apart = [own["language"], own["reference"]], pd.Series(apart, own.index)
        hitting = apart.where(own["token_accuracy"] > 0)
        shares = hitting.groupby(group).transform("mean"), hitting.groupby(group).transform("count")
        # Fifty tokens after an early step repeat each other, and confirm nothing.
        broken = own[apart & own["step"].isna() & (shares[0] < 0.1) & (shares[1] >= 10)]
        yield "accuracy is the share of the reference's tokens that are predicted", broken


def _readings(text: str, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The tokens that a reference may have been before it was stripped of blanks."""
    return [tokenizer(start + text, add_special_tokens=False).input_ids for start in ("", " ")]


def samples(rows: pd.DataFrame) -> Broken:
    """What belongs to a sample is the same wherever the sample is completed."""
    for column, by in {
        "project": ["language", "sample"],
        "reference": ["node", *CONTEXT],
        "prompt_tokens": ["node", *CONTEXT],
    }.items():
        different = rows.groupby(by, dropna=False)[column].transform("nunique") > 1
        yield f"{column} belongs to the sample, not to the setting", rows[different]
    contexts = rows[rows["context_fraction"].notna()]
    for column in ("reference", "prompt_tokens"):
        different = contexts.groupby(CONTEXT)[column].transform("nunique") > 1
        yield f"{column} belongs to the sample, not to the node", contexts[different]
    sets = contexts.groupby(CONTEXT[:-1])["sample"].nunique()
    per_node = contexts.groupby([*CONTEXT[:-1], "node"])["sample"].nunique().reset_index()
    expected = sets.reindex(pd.MultiIndex.from_frame(per_node[CONTEXT[:-1]])).to_numpy()
    yield "all nodes complete the same samples", per_node[per_node["sample"] != expected]


def greedy(rows: pd.DataFrame) -> Broken:
    """Greedy decoding: a prefix and the layer that reads it have one next token, and the last layer's is what others agree with.

    Caches that approximate are left out: with them a prefix's states are not its own.
    """
    tuned = (rows["kind"] == "aggregated") | (rows["node"] == "cached_predictions")
    exact = rows[tuned & rows["context_fraction"].notna() & rows["cache"].isin(["none", "recompute"])]
    depth = {model: load_config(model).num_hidden_layers for model in exact["model"].unique()}
    next_token: dict[tuple, int] = {}
    last: dict[tuple, int] = {}
    broken, disagreeing = [], []
    for row in exact.itertuples():
        total, ids = depth[row.model], list(row.tokens)
        where = (row.model, row.language, row.context_fraction, row.sample)
        for place, (token, layer) in enumerate(zip(ids, row.exit_layers, strict=False)):
            prefix = (*where, *ids[:place])
            if next_token.setdefault((*prefix, layer), token) != token:
                broken.append(row.Index)
            agrees = row.agrees[place] if len(row.agrees) > place else None
            of_last = layer == total or agrees
            if of_last and (last.setdefault(prefix, token) != token or agrees is False):
                disagreeing.append(row.Index)
    for row in exact[exact["agrees"].map(len) > 0].itertuples():
        ids, where = list(row.tokens), (row.model, row.language, row.context_fraction, row.sample)
        total = depth[row.model]
        for place, (token, agrees, layer) in enumerate(zip(ids, row.agrees, row.exit_layers, strict=False)):
            if not agrees and (layer == total or last.get((*where, *ids[:place])) == token):
                disagreeing.append(row.Index)
    yield "the same prefix and layer have one next token", exact.loc[list(dict.fromkeys(broken))]
    yield "a token agrees if it is the last layer's", exact.loc[list(dict.fromkeys(disagreeing))]


def thresholds(rows: pd.DataFrame) -> Broken:
    """A higher threshold of the same agent, after the same tokens, does not leave earlier."""
    agents = rows[(rows["node"] == "agent_predictions")].sort_values("threshold")
    broken = []
    for _, own in agents.groupby([*CONTEXT, "seed"]):
        ordered = list(own.itertuples())
        for careless, careful in itertools.pairwise(ordered):
            for place, (early, late) in enumerate(
                zip(careless.exit_layers, careful.exit_layers, strict=False)
            ):
                if list(careless.tokens[:place]) != list(careful.tokens[:place]):
                    break
                if early > late:
                    broken.append(careful.Index)
    yield (
        "a higher threshold does not leave earlier after the same tokens",
        agents.loc[list(dict.fromkeys(broken))],
    )


def caches(rows: pd.DataFrame) -> Broken:
    """A cache that is exact gives what no cache gives: `recompute`, and any at full depth."""
    plain = rows[
        (rows["cache"] == "none") & rows["context_fraction"].notna() & (rows["kind"] == "aggregated")
    ]
    exact = rows[
        (rows["node"] == "cached_predictions")
        & ((rows["cache"] == "recompute") | (rows["criterion"] == "full"))
    ]
    keys = [*CONTEXT, "criterion", "threshold", "seed"]
    pairs = exact.reset_index().merge(plain, on=keys, suffixes=("", "_uncached"))
    other = [
        list(a) != list(b) or list(c) != list(d)
        for a, b, c, d in zip(
            pairs["tokens"],
            pairs["tokens_uncached"],
            pairs["exit_layers"],
            pairs["exit_layers_uncached"],
            strict=True,
        )
    ]
    yield "an exact cache changes nothing", pairs[np.array(other, dtype=bool)]


RELATIONS = (lengths, layers, flops, texts, samples, greedy, thresholds, caches)
