"""The tidy datasets of a run, one a kind of row, and what their columns mean: the data dictionary of `docs/data.md`.

`pandas.read_parquet("results/laptop/predictions")` is one table of everything that the laptop run predicted, whichever node made
it. Every node's table is written with the columns of its dataset; what a node does not have is missing.
"""

from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

Column = tuple[pa.DataType, str]
TEXT, NUMBER, COUNT = pa.string(), pa.float64(), pa.int64()

NODE: dict[str, Column] = {
    "node": (TEXT, "the node of the study's graph that made the row (`docs/graph.md`)")
}
SETTING: dict[str, Column] = {"model": (TEXT, "model"), "language": (TEXT, "java or python")}
DECODED: dict[str, Column] = {
    **NODE,
    **SETTING,
    "kind": (TEXT, "base, plain or aggregated: how the model was fine-tuned; missing: aggregated"),
    "context_fraction": (NUMBER, "share of the file that is the context; missing: that of the profile's section"),
    "criterion": (TEXT, "full, agent, fixed, scripted (an agent's exits again, without it) or never (an agent that never leaves)"),
    "threshold": (NUMBER, "of the agent's probability; of a fixed exit its layer; missing for a full model"),
    "seed": (COUNT, "of the agent; -1 where there is none"),
    "cache": (TEXT, "cache mode; none: the prefix runs again for every token"),
    "sample": (TEXT, "the file that is completed"),
}  # fmt: skip

DATASETS: dict[str, dict[str, Column]] = {
    "predictions": {
        **DECODED,
        "step": (COUNT, "of the fine-tuning, in the study of its epochs; 0: the base"),
        "project": (TEXT, "the file's project: intervals are over projects"),
        "prompt_tokens": (COUNT, "tokens of the context"),
        "prediction": (TEXT, "the completion, without special tokens"),
        "reference": (TEXT, "what the file goes on with"),
        "tokens": (pa.list_(COUNT), "of the completion, an end token included"),
        "exit_layers": (pa.list_(COUNT), "layers run for each token"),
        "agrees": (pa.list_(pa.bool_()), "whether each token is the last layer's after the same prefix; empty where not known"),
        "token_accuracy": (NUMBER, "share of tokens that are the reference's"),
        "flops": (COUNT, "of the completion, prompt included, without the criterion's own"),
    },
    "timings": {
        **DECODED,
        "repeat": (COUNT, "from 0"),
        "tokens": (COUNT, "how many were generated"),
        "seconds": (NUMBER, "of one completion"),
        "joules": (NUMBER, "of one completion; missing where no counter is"),
        "energy_source": (TEXT, "the counter: nvml, rapl or none"),
        "decisions": (NUMBER, "how many the agent took, where its exits are run again without it"),
    },
    "layers": {
        **NODE,
        **SETTING,
        "kind": (TEXT, "base, plain or aggregated"),
        "layer": (COUNT, "1 to L"),
        "sample": (TEXT, "the file"),
        "project": (TEXT, "its project"),
        "accuracy": (NUMBER, "share of the sample's tokens that the layer predicts, after the true prefix"),
        "agreement": (NUMBER, "share where it predicts what the last layer does"),
        "tokens": (COUNT, "of the sample"),
    },
    "validation_losses": {
        **NODE,
        **SETTING,
        "kind": (TEXT, "base, plain or aggregated"),
        "layer": (COUNT, "exit point or L"),
        "loss": (NUMBER, "nats a token on validation files"),
    },
    "agents": {
        **NODE,
        **SETTING,
        "against": (TEXT, "what lies at 0: the best fixed exit, or a coin between two"),
        "over": (TEXT, "all depths, or the depths of the profile's thresholds"),
        "method": (TEXT, "agent or confidence"),
        "share": (NUMBER, "of what an oracle wins (1)"),
        "low": (NUMBER, "end of the 95% interval over prompts"),
        "high": (NUMBER, "its other end"),
        "least": (NUMBER, "of a single agent"),
        "most": (NUMBER, "of a single agent"),
    },
    "equal_cost": {
        **NODE,
        **SETTING,
        "method": (TEXT, "confidence, agent, probe, stopping, fixed, coin or oracle"),
        "share": (NUMBER, "won of what lies between coin (0) and oracle (1), over all costs; mean over seeds"),
        "low": (NUMBER, "end of the 95% interval over prompts"),
        "high": (NUMBER, "its other end"),
        "over_agent": (NUMBER, "share less that of the agents, on the same prompts"),
        "over_agent_low": (NUMBER, "end of its interval"),
        "over_agent_high": (NUMBER, "its other end"),
        "over_probe": (NUMBER, "share less that of the probes, on the same prompts"),
        "over_probe_low": (NUMBER, "end of its interval"),
        "over_probe_high": (NUMBER, "its other end"),
        "over_confidence": (NUMBER, "share less that of confidence, on the same prompts"),
        "over_confidence_low": (NUMBER, "end of its interval"),
        "over_confidence_high": (NUMBER, "its other end"),
        "agreement_at_0.7": (NUMBER, "share of tokens that are the last layer's, at 0.7 of the full model's cost"),
        "agreement_at_0.8": (NUMBER, "the same at 0.8"),
    },
    "reward_audit": {
        **NODE,
        **SETTING,
        "reward": (TEXT, "printed, position-scaled or expected-cost"),
        "before": (NUMBER, "reward of exiting less that of going on, mean at exit points before the first right one"),
        "at": (NUMBER, "the same at the first right exit point"),
        "past": (NUMBER, "the same past it, where the token is right"),
        "share": (NUMBER, "won of what lies between coin (0) and oracle (1), over all costs, by a network fitted to that difference"),
        "low": (NUMBER, "end of the 95% interval over prompts"),
        "high": (NUMBER, "its other end"),
    },
    "probe_data": {
        **NODE,
        **SETTING,
        "learnt_from": (TEXT, "completions of the full model, real text, or both"),
        "tokens": (COUNT, "learnt from, each at all exit points"),
        "share": (NUMBER, "won of what lies between coin (0) and oracle (1), over all costs, by the probe of the first seed"),
        "low": (NUMBER, "end of the 95% interval over prompts"),
        "high": (NUMBER, "its other end"),
    },
    "cost_curves": {
        **NODE,
        **SETTING,
        "method": (TEXT, "confidence, agent, probe, stopping, fixed, coin or oracle"),
        "cost": (NUMBER, "of a token, as a share of the full model's with its cache"),
        "agreement": (NUMBER, "share of tokens that are the last layer's; mean over seeds"),
    },
    "systems": {
        **NODE,
        **SETTING,
        "system": (TEXT, "as the thesis's Table 3.1 calls it; this study: its own policies, and fixed exits alone"),
        "method": (TEXT, "how it decides"),
        "seeds": (COUNT, "how many were fitted"),
        "trials": (COUNT, "settings tried on validation prompts"),
        "decision": (NUMBER, "price of one decision, as a share of the full model's token with its cache"),
        "share": (NUMBER, "won of what lies between coin (0) and oracle (1), over all costs; mean over seeds"),
        "low": (NUMBER, "end of the 95% interval over prompts"),
        "high": (NUMBER, "its other end"),
        "least": (NUMBER, "of a single seed"),
        "most": (NUMBER, "of a single seed"),
        **{
            f"over_{rival}{end}": (NUMBER, f"share less that of {whose}, on the same prompts{what}")
            for rival, whose in (("probe", "the probes"), ("stopping", "optimal stopping"))
            for end, what in (("", ""), ("_low", ": end of its interval"), ("_high", ": its other end"))
        },
        "agreement_at_0.7": (NUMBER, "share of tokens that are the last layer's, at 0.7 of the full model's cost"),
        "agreement_at_0.8": (NUMBER, "the same at 0.8"),
        **{
            f"{name}_{points}{end}": (NUMBER, f"{meaning} {points} on validation prompts{what}")
            for points in (1, 2, 5)
            for name, meaning in (
                ("cost", "cost of the cheapest setting that loses at most this many points of agreement:"),
                ("lost", "points that it loses on the prompts reported on; chosen to lose at most"),
            )
            for end, what in (("", ""), ("_low", "; end of its interval"), ("_high", "; its other end"))
        },
    },
    "system_curves": {
        **NODE,
        **SETTING,
        "method": (TEXT, "as in systems, and coin and oracle"),
        "cost": (NUMBER, "of a token, as a share of the full model's with its cache"),
        "agreement": (NUMBER, "share of tokens that are the last layer's; mean over seeds"),
    },
    "speculation": {
        **NODE,
        **SETTING,
        "split": (TEXT, "validation or test"),
        "layer": (COUNT, "exit point that drafts"),
        "block": (COUNT, "tokens drafted in a round"),
        "accepted": (NUMBER, "of them, mean over rounds"),
        **{
            f"{cost}{end}": (NUMBER, f"{meaning}, as a share of the full model's{what}")
            for cost, meaning in (("flops", "FLOPs of a token"), ("reads", "weights read for a token"))
            for end, what in (
                ("", ""),
                ("_low", ": end of the 95% interval over prompts"),
                ("_high", ": its other end"),
            )
        },
    },
    "stopped": {
        **NODE,
        **SETTING,
        "bar": (NUMBER, "of the probability of stopping, above which a completion ends"),
        "saved": (NUMBER, "share of tokens that are not written"),
        "lost": (NUMBER, "share of the leading tokens equal to the file's that are among them"),
        "lost_by_chance": (NUMBER, "the same if completions of these lengths were dealt out at random"),
    },
    "promises": {
        **NODE,
        **SETTING,
        "tolerated": (NUMBER, "share of tokens that may differ from the full model's"),
        "prompts": (COUNT, "for calibration"),
        "method": (TEXT, "how the threshold is chosen from them"),
        "broken": (NUMBER, "share of draws whose threshold's risk is above the tolerated share"),
        "early": (NUMBER, "share of draws that promise any early exit"),
        "depth": (NUMBER, "mean layers of a token, as a share of all"),
    },
    "promises_across": {
        **NODE,
        **SETTING,
        "tested_on": (TEXT, "the language whose prompts are decoded; those of `language` calibrate"),
        "tolerated": (NUMBER, "share of tokens that may differ from the full model's"),
        "prompts": (COUNT, "for calibration"),
        "method": (TEXT, "how the threshold is chosen from them"),
        "broken": (NUMBER, "share of draws whose threshold's risk there is above the tolerated share"),
        "early": (NUMBER, "share of draws that promise any early exit"),
        "depth": (NUMBER, "mean layers of a token, as a share of all"),
    },
    "variants": {
        **NODE,
        **SETTING,
        "variant": (TEXT, "what is other than configured"),
        "reward": (NUMBER, "mean a step at the end of training"),
        "share": (NUMBER, "recovered over all depths, against the best fixed exit"),
        "low": (NUMBER, "end of the 95% interval over prompts"),
        "high": (NUMBER, "its other end"),
    },
    "decisions": {
        **NODE,
        **SETTING,
        "method": (TEXT, "how it is decided, or what is looked at"),
        "microseconds": (NUMBER, "of one decision or look"),
        "joules": (NUMBER, "of one; missing where no counter is"),
    },
    "serving": {
        **NODE,
        **SETTING,
        "measured": (TEXT, "sweep: prompts by thresholds; session: a file that is typed"),
        "prompt": (NUMBER, "of the sweep, from 0"),
        "key": (NUMBER, "of the session: after which key the editor asks"),
        "threshold": (NUMBER, "of the request; 1: full depth"),
        "milliseconds": (NUMBER, "from request to answer"),
        "tokens": (COUNT, "of the answer"),
        "mean_layers": (NUMBER, "run for a token"),
        "total_layers": (COUNT, "L"),
        "flops": (COUNT, "of the answer, prompt included"),
        "energy_j": (NUMBER, "of the answer; missing where no counter is"),
    },
}  # fmt: skip


def as_part(rows: pd.DataFrame, node: str, dataset: str) -> pa.Table:
    """A node's rows as a part of a dataset. A column that the dataset does not declare gives ValueError."""
    columns = DATASETS[dataset]
    rows = rows.assign(node=node)
    if unknown := set(rows) - set(columns):
        raise ValueError(f"{node} has columns that the dataset {dataset} does not declare: {sorted(unknown)}")
    schema = pa.schema([(name, kind) for name, (kind, _) in columns.items()])
    arrays = [
        pa.array(rows[name], kind, from_pandas=True) if name in rows else pa.nulls(len(rows), kind)
        for name, (kind, _) in columns.items()
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def write_rows(rows: pd.DataFrame, node: str, dataset: str, path: Path) -> None:
    """Write a node's rows as a part of a dataset, whole or not at all."""
    partial = path.with_suffix(".tmp")
    parquet.write_table(as_part(rows, node, dataset), partial)
    partial.replace(path)


def dictionary() -> str:
    """The data dictionary as Markdown."""
    parts = []
    for name, columns in DATASETS.items():
        rows = "\n".join(f"| `{column}` | {kind} | {what} |" for column, (kind, what) in columns.items())
        parts.append(f"## {name}\n\n| Column | Type | |\n|---|---|---|\n{rows}\n")
    return "\n".join(parts)
