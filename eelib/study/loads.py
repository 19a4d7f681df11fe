"""How what a node made is loaded, where it is not a table: for the nodes that are computed from it."""

from pathlib import Path

import pandas as pd

from eelib.data.corpus import CodeFile, read_corpus
from eelib.decoding.policy import ExitPolicy
from eelib.models.loading import CodeModel
from eelib.profile import Profile
from eelib.rl import trained
from eelib.rl.rollouts import Rollouts, load_rollouts
from eelib.systems import fitted
from eelib.training import tuned


def corpus(folder: Path, profile: Profile) -> list[CodeFile]:
    return read_corpus(folder / "corpus.parquet")


def model(folder: Path, profile: Profile) -> CodeModel:
    return tuned.load_tuned(folder, profile.dtype)


def rollouts(folder: Path, profile: Profile) -> Rollouts:
    return load_rollouts(folder)


def agent(folder: Path, profile: Profile) -> ExitPolicy:
    return trained.load_agent(folder)


def settings(folder: Path, profile: Profile) -> pd.DataFrame:
    return pd.read_parquet(folder / fitted.SETTINGS)
