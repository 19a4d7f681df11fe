"""The thesis's research questions answered from the ledger, in sentences whose wording follows the verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from eelib.evaluation.claims.claim import Claim
from eelib.evaluation.claims.verdicts import FAILS, HOLDS, OPEN, UNMEASURED
from eelib.report.ledger import counts, with_interval

QUESTIONS = {
    1: "What influences the trade-off between quality and cost?",
    2: "Which methods find exit points?",
    3: "How does early exit fit into the inference pipeline?",
    4: "How well does it work against a baseline?",
}
# What a question turns on: its claim, and what that claim's verdict says of the question.
LEADS: dict[int, tuple[str, dict[str, str]]] = {
    1: (
        "monotone",
        {
            HOLDS: "The threshold moves the trade-off as the thesis says: higher ones run more layers and complete no worse.",
            FAILS: "The threshold does not move depth and quality together everywhere, as the thesis says.",
            OPEN: "That the threshold moves depth and quality together everywhere cannot be told.",
            UNMEASURED: "The threshold's effect is not measured here.",
        },
    ),
    2: (
        "over-classifier",
        {
            HOLDS: "Reinforcement learning is the better method: a classifier of its size, trained with the same data, stays behind at equal cost.",
            FAILS: "Reinforcement learning is not the better method everywhere: at equal cost a classifier of its size, trained with the same data, is ahead in at least one setting.",
            OPEN: "Whether reinforcement learning or a classifier of its size is the better method cannot be told.",
            UNMEASURED: "Reinforcement learning and a classifier are not compared here.",
        },
    ),
    3: (
        "propagation-depth",
        {
            HOLDS: "It fits into a pipeline with a key-value cache: with propagation the agent skips the same share of layers.",
            FAILS: "A key-value cache changes it: with propagation the agent does not skip the same share of layers in at least one setting.",
            OPEN: "It runs with a key-value cache, but that propagation leaves the agent's depth alone in every setting cannot be told.",
            UNMEASURED: "Early exit with a key-value cache is not measured here.",
        },
    ),
    4: (
        "average-cached",
        {
            HOLDS: "Against the full model with its key-value cache it saves on average what the thesis says.",
            FAILS: "Against the full model with its key-value cache it does not save on average what the thesis says.",
            OPEN: "Whether it saves on average what the thesis says, against the full model with its key-value cache, cannot be told.",
            UNMEASURED: "Savings are not measured here.",
        },
    ),
}
CONCLUSION: dict[str, dict[str, str]] = {
    "average-cached": {
        HOLDS: "*20 to 50% is saved* stands also where the full model has its cache",
        FAILS: "*20 to 50% is saved* does not stand where the full model has its cache, which the thesis left it without",
        OPEN: "*20 to 50% is saved* cannot be told where the full model has its cache",
    },
    "larger-contexts": {
        HOLDS: "*Small contexts suffer less* stands",
        FAILS: "*Small contexts suffer less* does not stand everywhere",
        OPEN: "*Small contexts suffer less* cannot be told",
    },
    "overhead-cached": {
        HOLDS: "*The overhead is at most 20%* stands, with a cache as well",
        FAILS: "*The overhead is at most 20%* does not stand everywhere with a cache",
        OPEN: "*The overhead is at most 20%* cannot be told with a cache",
    },
    "over-classifier": {
        HOLDS: "*A reinforcement-learning agent decides* is the right choice over a classifier",
        FAILS: "*A reinforcement-learning agent decides* is not the right choice everywhere: a supervised classifier of its size wins more at the same cost in at least one setting",
        OPEN: "whether *a reinforcement-learning agent* is the right choice over a classifier cannot be told",
    },
    "plain-ahead": {
        HOLDS: "a plainly fine-tuned model is better than the base model that the thesis compared with, so that what the aggregated loss costs is more than it reported",
        FAILS: "a plainly fine-tuned model is no better than the base model that the thesis compared with, in some setting",
        OPEN: "how much a plainly fine-tuned model is ahead of the base model, which the thesis supposed, cannot be told in every setting",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Ledger:
    """Claims with their verdicts and readings."""

    claims: Mapping[str, Claim]
    rows: pd.DataFrame
    readings: pd.DataFrame

    def verdict(self, key: str) -> str:
        return self.rows.set_index("key").loc[key, "verdict"]

    def numbers(self, key: str) -> str:
        """A claim's numbers with their intervals; of more than two the one with most and the one with least for the claim."""
        own = self.readings[self.readings["key"] == key]
        if len(own) > 2:
            own = (
                own.loc[[own["margin"].idxmin(), own["margin"].idxmax()]]
                if own["margin"].notna().any()
                else own.head(2)
            )
            own = own.loc[~own.index.duplicated()]
        return " and ".join(f"{row.setting}: {with_interval(row._asdict())}" for row in own.itertuples())

    def told(self, key: str) -> str:
        """A claim that holds or fails with what it is judged by; of one that fails, by how many of its numbers."""
        claim, own = self.claims[key], self.readings[self.readings["key"] == key]
        clause = f"{claim.short} ({claim.section}; the thesis: {claim.thesis}; here {claim.number}, {self.numbers(key)}"
        if self.verdict(key) == FAILS and len(own) > 1:
            clause += f"; {(own['margin'] < -1).sum()} of {len(own)} numbers lie outside their regions beyond their intervals"
        return clause + ")"


VERBS = {HOLDS: "hold", FAILS: "do not hold", OPEN: "cannot be told", UNMEASURED: "are not measured"}
HEADS = {
    HOLDS: "These hold",
    FAILS: "These do not hold",
    OPEN: "These cannot be told at this size",
    UNMEASURED: "These are not measured here",
}


def answer(ledger: Ledger, question: int) -> str:
    """One research question in one paragraph: what it turns on, then the claims that bear on it by verdict."""
    lead, wordings = LEADS[question]
    keys = [key for key, claim in ledger.claims.items() if question in claim.questions]
    by = {verdict: [key for key in keys if ledger.verdict(key) == verdict] for verdict in HEADS}
    number = ", ".join(f"{len(own)} {VERBS[verdict]}" for verdict, own in by.items() if own)
    parts = [
        f"**RQ{question} · {QUESTIONS[question]}** {wordings[ledger.verdict(lead)]} Of {len(keys)} claims that bear on it, {number}."
    ]
    for verdict, own in by.items():
        if own and verdict in (HOLDS, FAILS):
            parts.append(f"{HEADS[verdict]}: " + "; ".join(map(ledger.told, own)) + ".")
        elif own:
            parts.append(f"{HEADS[verdict]}: " + "; ".join(ledger.claims[key].short for key in own) + ".")
    return " ".join(parts)


def conclusion(ledger: Ledger) -> str:
    """What changes against Section 7.1 of the thesis, a sentence a claim."""
    lines = []
    for key, wordings in CONCLUSION.items():
        if (verdict := ledger.verdict(key)) in wordings:
            sentence = wordings[verdict]
            lines.append(
                f"- {sentence[0].upper()}{sentence[1:]} ({ledger.claims[key].number}: {ledger.numbers(key)})."
            )
    return "\n".join(lines)


def limitations(ledger: Ledger, settings: list[tuple[str, str]], samples: int) -> str:
    """What the ledger cannot say, from what it stands on."""
    found = counts(ledger.rows)
    units = ledger.readings["unit"].str.extract(r"^(\d+) (\w+(?: \w+)?)$").dropna()
    numbers = units[0].astype(int).groupby(units[1].str.rstrip("s")).agg(["min", "max"])
    spans = ", ".join(
        f"{row['min']}{'' if row['min'] == row['max'] else ' to ' + str(row['max'])} {unit}s"
        for unit, row in numbers.iterrows()
    )
    measured = len(ledger.rows) - found[UNMEASURED]
    models = ", ".join(dict.fromkeys(model for model, _ in settings))
    needs = "; ".join(
        ledger.claims[key].needs for key in ledger.rows.loc[ledger.rows["verdict"] == UNMEASURED, "key"]
    )
    parts = [
        f"Judged on {models}, not on the thesis's OPT-2.7B and Llama-3.2-3B, with {samples} completions a setting; intervals stand on {spans}.",
        f"{measured} claims are measured, and the chance that any verdict is false is held at 5% for all of them together; {found[OPEN]} cannot be told.",
    ]
    if found[UNMEASURED]:
        parts.append(f"{found[UNMEASURED]} would need: {needs}.")
    if (ledger.readings["unit"] == "prompts").any():
        parts.append(
            "Shares at equal cost have intervals over recorded prompts, which do not name their project."
        )
    return " ".join(parts)


def summary(ledger: Ledger) -> str:
    """The ledger in four sentences."""
    found = counts(ledger.rows)
    by = {verdict: ledger.rows.loc[ledger.rows["verdict"] == verdict, "key"] for verdict in (HOLDS, FAILS)}
    theirs = ledger.rows[ledger.rows["theirs"] != ""]
    against = theirs.loc[theirs["theirs"] == FAILS, "key"]
    named = {name: ", ".join(f"“{ledger.claims[key].short}”" for key in keys) for name, keys in by.items()}
    parts = [
        f"Of {len(ledger.rows)} claims of the thesis, {found[HOLDS]} hold here, {found[FAILS]} do not, {found[OPEN]} cannot be told at this size, and {found[UNMEASURED]} are not measured."
    ]
    parts += [
        f"{head}: {named[verdict]}."
        for head, verdict in (("Holding", HOLDS), ("Not holding", FAILS))
        if named[verdict]
    ]
    parts.append(
        f"The authors' own numbers speak to {len(theirs)} of the claims and are outside the claim's region in {len(against)}"
        + (": " + ", ".join(f"“{ledger.claims[key].short}”" for key in against) if len(against) else "")
        + "."
    )
    return " ".join(parts)
