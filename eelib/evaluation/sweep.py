"""Running criteria over samples: tidy rows of predictions, and of time and energy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from eelib.data.samples import Sample
from eelib.decoding.batch import BatchDecoder
from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import ExitCriterion
from eelib.decoding.generate import Generation, generate
from eelib.decoding.shared import decode_shared
from eelib.evaluation.energy import EnergyMonitor
from eelib.evaluation.flops import generation_flops
from eelib.evaluation.metrics import corpus_metrics, token_accuracy
from eelib.models.parts import ModelParts

KEYS = ["criterion", "threshold", "seed", "cache"]
NVML_WINDOW = 2.0  # seconds: twenty steps of NVML's counter, so that a step at either end is at most a tenth


@dataclass(frozen=True)
class Setting:
    """One way to decode: a criterion, its name, and the threshold and agent it stands for.

    `threshold` is NaN and `seed` -1 where there is none; for a fixed exit `threshold` is the layer. `rule` is the criterion, or
    one for each sample by its id, such as the replay of its own trace. `kind` says which model decodes. `timings` alone takes both.
    `depth` ends the model after that layer (`predictions` alone does so).
    """

    criterion: str
    rule: ExitCriterion | Mapping[str, ExitCriterion]
    threshold: float = math.nan
    seed: int = -1
    cache: CacheMode = CacheMode.NONE
    depth: int | None = None
    kind: str = "aggregated"

    @property
    def keys(self) -> dict:
        return {
            "criterion": self.criterion,
            "threshold": self.threshold,
            "seed": self.seed,
            "cache": self.cache.value,
        }


def predictions(
    parts: ModelParts,
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Sample],
    settings: Sequence[Setting],
    new_tokens: int,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Decode every sample in every setting, in batches that share their prefill: at most `new_tokens` tokens, up to the
    tokenizer's end token.

    Returns
    -------
    One row a sample x setting: `KEYS`, `sample`, `prompt_tokens`, `prediction` and `reference` (text without special
    tokens), `tokens`, `exit_layers` and `agrees` (lists with one entry a token, the end token's included; the last says
    whether the token is the one that the last layer predicts after the same prefix), `token_accuracy`, `flops`.
    """
    rows = []
    starts = range(0, len(samples), batch_size)
    progress = tqdm(
        total=len(starts) * len(settings), desc="decoding in batches", unit="setting", leave=False
    )
    for start in starts:
        batch = samples[start : start + batch_size]
        decoder = BatchDecoder(parts, [sample.context for sample in batch], new_tokens)
        decoded = _decoded(decoder, settings, tokenizer.eos_token_id, progress)
        for setting, completions in zip(settings, decoded, strict=True):
            for sample, (generation, last) in zip(batch, completions, strict=True):
                agrees = [] if last is None else np.equal(generation.tokens, last).tolist()
                rows.append(
                    setting.keys
                    | {
                        "sample": sample.id,
                        "prompt_tokens": len(sample.context),
                        "prediction": tokenizer.decode(generation.tokens, skip_special_tokens=True).strip(),
                        "reference": tokenizer.decode(sample.reference, skip_special_tokens=True).strip(),
                        "tokens": generation.tokens,
                        "exit_layers": generation.exit_layers,
                        "agrees": agrees,
                        "token_accuracy": token_accuracy(generation.tokens, sample.reference),
                        "flops": generation_flops(
                            parts.model.config,
                            len(sample.context),
                            generation.exit_layers,
                            setting.cache.value,
                        ),
                    }
                )
    progress.close()
    return pd.DataFrame(rows)


def _decoded(
    decoder: BatchDecoder, settings: Sequence[Setting], end: int | None, progress: tqdm
) -> list[list[tuple[Generation, list[int] | None]]]:
    """For each setting and prompt the completion, and the last layer's tokens in its places; None where they are not known.

    Settings without a cache, or with an exact one, share what their prefixes share.
    """
    found: dict[int, list[tuple[Generation, list[int] | None]]] = {}
    shared = [
        place for place, setting in enumerate(settings) if setting.cache.exact and setting.depth is None
    ]
    if shared:
        together = decode_shared(decoder, [settings[place].rule for place in shared], end)
        found |= dict(zip(shared, together, strict=True))
        progress.update(len(shared))
    for place in [place for place in range(len(settings)) if place not in found]:
        setting = settings[place]
        # Deeper layers run on from what the cache approximates, or do not run: the last layer's token is not known.
        generations = decoder.decode(setting.rule, setting.cache, depth=setting.depth, end=end)
        found[place] = [(generation, None) for generation in generations]
        progress.update()
    return [found[place] for place in range(len(settings))]


def timings(
    models: Mapping[str, ModelParts],
    samples: Sequence[Sample],
    settings: Sequence[Setting],
    new_tokens: int,
    repeats: int,
    monitor: EnergyMonitor,
    end: int | None = None,
) -> pd.DataFrame:
    """Time and energy of decoding one prompt at a time, settings interleaved so that drift hits all alike.

    Parameters
    ----------
    models: by the `kind` of the settings.
    end: the token id that ends a completion before it has `new_tokens` tokens.

    Returns
    -------
    One row a repeat x sample x setting: `kind`, `KEYS`, `repeat`, `sample`, `tokens` (how many were generated), `seconds`, `joules`
    (NaN when not measured), `energy_source`. What is not recorded warms up: two tokens of each model, criterion and cache.

    NVML's counter advances about every 100 ms, more than a short completion takes. With it, energy is measured in further
    passes, a window a setting over all samples, of which each row gets its share: `repeats` times, or as often as it takes
    for the window to last `NVML_WINDOW` by the times just measured.
    """

    def decode(setting: Setting, sample: Sample, longest: int = new_tokens) -> Generation:
        rule = setting.rule[sample.id] if isinstance(setting.rule, Mapping) else setting.rule
        return generate(models[setting.kind], sample.context, longest, rule, setting.cache, end)

    for setting in {(one.kind, one.criterion, one.cache): one for one in settings}.values():
        decode(setting, samples[0], longest=min(2, new_tokens))
    rows = []
    progress = tqdm(total=repeats * len(samples), desc="timing one by one", unit="prompt", leave=False)
    for repeat in range(repeats):
        for sample in samples:
            progress.update()
            for setting in settings:
                with monitor.measure() as measured:
                    generation = decode(setting, sample)
                rows.append(
                    {"kind": setting.kind}
                    | setting.keys
                    | {
                        "repeat": repeat,
                        "sample": sample.id,
                        "tokens": len(generation.tokens),
                        "seconds": measured.seconds,
                        "joules": measured.joules,
                        "energy_source": measured.source,
                    }
                )
    progress.close()
    frame = pd.DataFrame(rows)
    if monitor.source == "nvml":
        for place, setting in enumerate(settings):
            own = frame.index[place :: len(settings)]  # settings take turns
            passes = max(repeats, math.ceil(NVML_WINDOW * repeats / frame.loc[own, "seconds"].sum()))
            with monitor.measure() as measured:
                for _ in range(passes):
                    for sample in samples:
                        decode(setting, sample)
            frame.loc[own, "joules"] = measured.joules / (passes * len(samples))
            frame.loc[own, "energy_source"] = measured.source
    return frame


def summarise(rows: pd.DataFrame, language: str, by: Sequence[str] = KEYS) -> pd.DataFrame:
    """Corpus-level metrics of `predictions` rows, one row a group of `by`.

    Adds the metrics of `corpus_metrics`, `token_accuracy`, `mean_layers`, `agreement` (NaN where unknown) and `flops`, all
    three of a token, and `samples`.
    """
    table = []
    for values, group in rows.groupby(list(by), dropna=False, sort=False):
        agrees = np.concatenate(group["agrees"].to_numpy())
        layers = np.concatenate(group["exit_layers"].to_numpy())
        table.append(
            dict(zip(by, values, strict=True))
            | corpus_metrics(group["prediction"].tolist(), group["reference"].tolist(), language)
            | {
                "token_accuracy": group["token_accuracy"].mean(),
                "mean_layers": layers.mean(),
                "agreement": agrees.mean() if len(agrees) else math.nan,
                "flops": group["flops"].sum() / len(layers),
            }
        )
    return pd.DataFrame(table)


def summarise_timings(rows: pd.DataFrame, by: Sequence[str] = KEYS) -> pd.DataFrame:
    """Median over repeats, then sums over samples: `seconds`, `joules`, and `throughput` (all tokens over all time)."""
    per_sample = rows.groupby([*by, "sample"], dropna=False, sort=False)[
        ["seconds", "joules", "tokens"]
    ].median()
    # A sum over unmeasured energies is unmeasured, not zero.
    table = per_sample.groupby(list(by), dropna=False, sort=False).agg(
        lambda column: column.sum(skipna=False)
    )
    table["throughput"] = table["tokens"] / table["seconds"]
    return table.drop(columns="tokens").reset_index()
