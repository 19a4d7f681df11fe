"""Ship the first stopping policy of a run with its model: `models/<model>/agents/<language>/`, and a card.

    .venv/bin/python scripts/ship_agents.py laptop

For every model of the profile whose fine-tuning ships and whose policy is better than a coin at equal cost; the run has to be there. What was shipped before is replaced.
"""

import argparse
import json
from dataclasses import replace

from eelib import paths
from eelib.decoding.policy import ExitPolicy
from eelib.errors import InputError
from eelib.evaluation.cost import policy_flops
from eelib.evaluation.promises import DELTA, STEPS, TOLERATED, choose, losses_and_depths, prompts_needed
from eelib.models.loading import fingerprint, ships
from eelib.report.agent_card import card
from eelib.rl.rollouts import Rollouts
from eelib.study.notebook import open_study
from eelib.study.store import RECORD
from eelib.study.study import Study


def promised(recorded: Rollouts, policy: ExitPolicy) -> list[dict]:
    """For each tolerated share that so many prompts can promise: `tolerated`, `threshold` (None for full depth), `depth`."""
    losses, depths = losses_and_depths(recorded, policy)
    rows = []
    for tolerated in TOLERATED:
        place = choose(losses, tolerated) if len(losses) >= prompts_needed(tolerated, DELTA) else None
        row = {"tolerated": tolerated, "threshold": None, "depth": 1.0}
        if place is not None:
            row |= {"threshold": float(STEPS[place]), "depth": float(depths[place])}
        rows.append(row)
    return rows


def ship(study: Study, model: str) -> None:
    """Write the agents of one model and their card."""
    records, folder = {}, paths.MODELS / model / "agents"
    costs = study.table_of("equal_cost", model=model)
    own = costs[costs["method"] == "stopping"]
    if not (own["low"] > 0).all():
        print(f"{model}: no agent ships, for one of {own['share'].min():.2f} is no better than a coin.")
        return
    for language in study.profile.languages:
        here = {"model": model, "language": language}
        made, policy = study.need("stopping", **here, seed=0), study.load("stopping", **here, seed=0)
        learnt = [study.load("rollouts", **here, split="train"), study.load("prefixes", **here)]
        known = study.load("rollouts", **here, split="test")  # which chose nothing
        row = (
            costs[(costs["model"] == model) & (costs["language"] == language)]
            .set_index("method")
            .loc["stopping"]
        )
        records[language] = {
            "profile": study.profile.name,
            "commit": json.loads((made.path / RECORD).read_text())["commit"],
            "tokens": sum(part.last.size for part in learnt),
            "flops": policy_flops(policy),
            "prompts": len(known),
            "max_tokens": study.profile.context.max_tokens,
            "delta": DELTA,
            **row[["share", "low", "high", "agreement_at_0.7"]].astype(float).to_dict(),
            "promises": promised(known, policy),
        }
        own = folder / language
        own.mkdir(parents=True, exist_ok=True)
        replace(policy, model=fingerprint(f"{model}+aggregated")).save(own)
        (own / "record.json").write_text(json.dumps(records[language], indent=1) + "\n")
    (folder / "README.md").write_text(card(model, records))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", help="whose run to take them from, e.g. laptop")
    try:
        study = open_study("", parser.parse_args().profile)
        for model in study.profile.models:
            if ships(model, "aggregated"):
                ship(study, model)
    except InputError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
