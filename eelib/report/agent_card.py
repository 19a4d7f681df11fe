"""The card of the agents that ship with a model: from their records, never by hand."""

from typing import Any

from eelib.report.figures import LANGUAGES
from eelib.report.findings import interval

CARD = """# Agents of {model}

For each language, the small network that looks at a hidden state and weighs leaving now against what going on is worth: optimal stopping, learnt from recorded rollouts by a network of the size of the thesis's agent
(`eelib/rl/stopping.py`), kept as plain tensors (`policy.safetensors`, read by `eelib.decoding.policy.load_policy`). A threshold T stands for the price of a full token in right tokens, 1/T - 1: 0 always exits, 1 never. They belong to `{model}+aggregated` as it ships, and refuse any other model.
`python -m eelib.server` serves them.

| | {languages} |
|---|{rules}
{rows}

The *share* is what the agent wins of what lies between a coin between two fixed exits (0) and an oracle (1), at equal cost with every look charged; with its 95% interval over prompts of projects that no training saw.

**What they promise**, with {confidence:.0%} confidence, of prompts like those of the study's test projects ({prompts} a language, contexts of at most {context} tokens): at this threshold, no more than the tolerated share of
tokens differs from the full model's on its own text, and a token runs this share of the layers. Chosen by Learn-then-Test with a betting bound (`eelib/evaluation/promises.py`); where the tolerated share is too small for so few prompts, nothing is promised.

{promises}

They have learnt from few files and a small model: they are for studying early exit. Licence: Apache-2.0, as the model's. Made by `.venv/bin/python scripts/ship_agents.py {profile}` from a run at commit {commit}.
"""


def card(model: str, records: dict[str, dict[str, Any]]) -> str:
    """The card's Markdown.

    Parameters
    ----------
    records: `record.json` of each language.
    """
    first = next(iter(records.values()))
    cells = {
        "Tokens learnt from, each at all exit points": lambda record: f"{record['tokens']:,}",
        "FLOPs of a decision": lambda record: f"{record['flops']:,}",
        "Share": interval,
        "Agreement at 0.7 of the full model's cost": lambda record: f"{record['agreement_at_0.7']:.2f}",
    }
    rows = [f"| {name} | " + " | ".join(map(cell, records.values())) + " |" for name, cell in cells.items()]
    return CARD.format(
        model=model,
        profile=first["profile"],
        commit=first["commit"],
        languages=" | ".join(LANGUAGES[language] for language in records),
        rules="---|" * len(records),
        rows="\n".join(rows),
        confidence=1 - first["delta"],
        prompts=first["prompts"],
        context=first["max_tokens"],
        promises=_promises(records),
    )


def _promises(records: dict[str, dict[str, Any]]) -> str:
    lines = ["| Tolerated | Language | Threshold | Layers run |", "|---|---|---|---|"]
    for language, record in records.items():
        for promise in record["promises"]:
            tolerated = f"| {promise['tolerated']:.0%} | {LANGUAGES[language]} | "
            if promise["threshold"] is None:
                lines.append(f"{tolerated}none: full depth | 1.00 |")
            else:
                lines.append(f"{tolerated}{promise['threshold']:.2f} | {promise['depth']:.2f} |")
    return "\n".join(lines)
