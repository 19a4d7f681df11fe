"""The fine-tuned model and the agent that a server runs: those that ship, those of a profile's run, or given by path."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from eelib import paths
from eelib.decoding.policy import ExitPolicy, load_policy
from eelib.errors import InputError
from eelib.models.loading import device, fingerprint, load_model, load_tokenizer
from eelib.models.parts import ModelParts, take_apart
from eelib.profile import check_choice, load_profile
from eelib.server.promises import Promises, read_promises
from eelib.study.notebook import open_study
from eelib.study.store import RECORD
from eelib.study.study import MissingStage
from eelib.training.tuned import tuned_name

WHERE = (
    "./run_all.sh makes models in results/PROFILE/stages/model and agents in results/PROFILE/stages/agent."
)


@dataclass(frozen=True)
class Artifacts:
    """Where a model and its agent lie, before they are loaded.

    Attributes
    ----------
    model: what `load_model` calls it.
    key: what the agent says it was trained on: the key of the fine-tuned model's stage, or the checkpoint's fingerprint.
    """

    name: str
    language: str
    model: str
    agent: Path
    key: str
    dtype: torch.dtype = torch.float32

    def load(self) -> "Loaded":
        """Load both; an agent of another model gives InputError."""
        parts = take_apart(load_model(self.model, self.dtype).to(device()))
        policy = load_policy(self.agent, self.key).to(parts.device)
        return Loaded(
            self.name, self.language, parts, load_tokenizer(self.model), policy, read_promises(self.agent)
        )


@dataclass(frozen=True, eq=False)
class Loaded:
    """What serves."""

    name: str
    language: str
    parts: ModelParts
    tokenizer: PreTrainedTokenizerBase
    policy: ExitPolicy
    promises: Promises = Promises()  # noqa: RUF009 - frozen


Load = Callable[[], Loaded]


def of_shipped(model: str, language: str) -> Artifacts:
    """A model and an agent as they ship; InputError where none do."""
    check_choice("model", model, sorted(path.parent.name for path in paths.MODELS.glob("*/agents")))
    check_choice(
        "language",
        language,
        sorted(path.parent.name for path in (paths.MODELS / model / "agents").glob("*/policy.json")),
    )
    name = f"{model}+aggregated"
    return Artifacts(model, language, name, paths.MODELS / model / "agents" / language, fingerprint(name))


def of_profile(profile: str, model: str, language: str, seed: int) -> Artifacts:
    """The artifacts that a profile's run has made; InputError with the command that makes them if it has not."""
    chosen = load_profile(profile)
    check_choice("model", model, chosen.models)
    check_choice("language", language, chosen.languages)
    if not 0 <= seed < chosen.reinforcement.seeds:
        raise InputError(
            f"The agent's seed is {seed}: allowed are 0 to {chosen.reinforcement.seeds - 1} of the profile."
        )
    study = open_study("", profile, model=model, language=language)
    try:
        tuned = study.need("model", model=model, language=language, kind="aggregated")
        trained = study.need("agent", model=model, language=language, seed=seed)
    except MissingStage as error:
        raise InputError(
            f"{model} for {language} and its agent have not been made under the {profile} profile as it is now: "
            f"run ./run_all.sh --profile {profile}, which makes them."
        ) from error
    return Artifacts(model, language, tuned_name(tuned.path), trained.path, tuned.key, study.dtype)


def of_paths(model: Path, agent_folder: Path, language: str) -> Artifacts:
    """Artifacts in given folders: a fine-tuned stage's or any checkpoint's, and an agent's stage."""
    check_choice("language", language, ["java", "python"])
    stage = next((folder for folder in (model, model.parent) if (folder / RECORD).is_file()), None)
    name = str(model) if stage is None else tuned_name(stage)
    if stage is None and not (model / "config.json").is_file():
        raise InputError(f"There is no model in {model} (config.json is missing): {WHERE}")
    if not (agent_folder / "policy.json").is_file():
        raise InputError(f"There is no agent in {agent_folder} (policy.json is missing): {WHERE}")
    key = fingerprint(name) if stage is None else json.loads((stage / RECORD).read_text())["key"]
    return Artifacts((stage or model).resolve().name, language, name, agent_folder, key)
