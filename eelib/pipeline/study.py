"""A notebook's view of the study: its profile and settings, its stages, and where its figures and tables go."""

import ast
import hashlib
import itertools
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from IPython import get_ipython
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from eelib.report.figures import save_figure
from eelib.report.tables import save_table, shown
from eelib.study import provenance
from eelib.study.errors import InputError
from eelib.study.profile import (
    Profile,
    check_choice,
    check_context_fraction,
    check_threshold,
    load_profile,
    parse_settings,
    variant_name,
)
from eelib.study.provenance import source_hash
from eelib.study.stages import Artifact, Stage, find, make

NOTEBOOKS = {
    "01": "01_data_analysis",
    "02": "02_fine_tuning",
    "03": "03_fixed_exits",
    "04": "04_rl_training",
    "05": "05_evaluation",
    "06": "06_overhead",
    "07": "07_kv_caching",
    "09": "09_deployment",
}


# Keys of the stages that `force` has made anew in this run: once is enough.
made_keys: set[str] = set()


class MissingStage(InputError):
    """A stage that an earlier notebook makes has not been made."""


@dataclass(frozen=True)
class Study:
    """An opened study. `profile` is already narrowed to the models, languages, thresholds and contexts asked for.

    Attributes
    ----------
    notebook: "01" ... "09"; it makes its own stages and only finds those of earlier notebooks.
    variant: name of the folders of its figures and tables: the profile's, or the profile's with what was overridden.
    force: make this notebook's stages anew.
    """

    notebook: str
    profile: Profile
    variant: str
    force: bool = False

    @property
    def settings(self) -> list[tuple[str, str]]:
        """(model, language) of every setting."""
        return [(model, language) for model in self.profile.models for language in self.profile.languages]

    @property
    def stages(self) -> Path:
        return Path("results") / self.profile.name / "stages"

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.profile.dtype)

    def stage(
        self, stage: Stage, made_in: str, function: Callable[[Path], None], timed: bool = False
    ) -> Artifact:
        """Find a stage's artifact; make it if it is this notebook's, else say which notebook makes it.

        What is `timed` belongs to the profile's threads and the kind of device, and is measured again for others.
        """
        config = stage.config | {"maker": source_hash(function)}
        if timed:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            config |= {"threads": self.profile.threads, "device": device}
        stage = replace(stage, config=config)
        if made_in == self.notebook:
            artifact = make(stage, self.stages, function, self.force and stage.key not in made_keys)
            made_keys.add(stage.key)
            return artifact
        artifact = find(stage, self.stages)
        if artifact is None:
            raise MissingStage(
                f"{stage.name} is missing for the {self.profile.name} profile as it is configured now: run "
                f"notebooks/{NOTEBOOKS[made_in]}.ipynb first (./run_all.sh --profile {self.profile.name} --only {made_in})."
            )
        return artifact

    def only_finding(self) -> "Study":
        """The same study as a reader of it sees it: it makes nothing."""
        return replace(self, notebook="", force=False)

    def stamp(self, *inputs: Artifact) -> str:
        """Profile, commit and inputs of an exhibit, as its footer says them.

        The commits are those that made the inputs. What their hash stands for is in `results/<profile>/stamps/`.
        """
        if not inputs:
            return f"{self.variant} profile · commit {provenance.commit()} · from the configuration alone"
        inputs = sorted(inputs, key=lambda artifact: artifact.key)
        name = hashlib.sha256("".join(artifact.key for artifact in inputs).encode()).hexdigest()[:8]
        kept = self.stages.with_name("stamps") / f"{name}.json"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps([artifact.path.as_posix() for artifact in inputs], indent=1) + "\n")
        commits = ", ".join(sorted({artifact.record["commit"] for artifact in inputs}))
        return f"{self.variant} profile · commit {commits} · inputs {name}"

    def figure(self, figure: Figure, name: str, *inputs: Artifact, published_by: str | None = None) -> Figure:
        """Save a figure as PNG and PDF with its stamp, and return it for the notebook to show.

        One of others' published numbers says whose they are instead (`published_by`).
        """
        stamp = self.stamp(*inputs) if published_by is None else f"published numbers of {published_by}"
        save_figure(figure, name, Path("figures") / self.variant, stamp)
        return figure

    def table(
        self, frame: pd.DataFrame, name: str, *inputs: Artifact, floats: dict[str, str] | None = None
    ) -> Styler:
        """Save a table as CSV and Markdown with its stamp, and return it for the notebook to show."""
        save_table(frame, name, Path("tables") / self.variant, self.stamp(*inputs), floats or {})
        return shown(frame, floats)


def open_study(
    notebook: str,
    profile: str = "laptop",
    settings: str | None = None,
    force: bool = False,
    model: str | None = None,
    language: str | None = None,
    threshold: float | None = None,
    context_fraction: float | None = None,
) -> Study:
    """Open the study for a notebook, from its parameters; anything wrong with them gives InputError.

    Parameters
    ----------
    profile: name of a file in `profiles/`.
    settings: profile settings to override, `"evaluation.samples=50 context.new_tokens=10"`.
    model, language, threshold, context_fraction: narrow the profile to one; None keeps all of its own.
    """
    refuse_undeclared_parameters()
    os.chdir(provenance.PACKAGE.parent)
    settings = settings or ""
    for name, value in {"profile": profile, "settings": settings}.items():
        if not isinstance(value, str):
            raise InputError(f"The parameter {name} is {value!r}: allowed is text.")
    if not isinstance(force, bool):  # papermill's `-p force no` is a text, and a text is true
        raise InputError(f"The parameter force is {force!r}: allowed is True or False.")
    overrides = parse_settings(settings)
    chosen = load_profile(profile, overrides)
    labels = dict(overrides)
    if model is not None:
        check_choice("model", model, chosen.models)
        chosen, labels["model"] = replace(chosen, models=[model]), model
    if language is not None:
        check_choice("language", language, chosen.languages)
        chosen, labels["language"] = replace(chosen, languages=[language]), language
    if threshold is not None:
        check_threshold(_number("threshold", threshold))
        evaluation = replace(chosen.evaluation, thresholds=[float(threshold)])
        chosen, labels["threshold"] = replace(chosen, evaluation=evaluation), str(threshold)
    if context_fraction is not None:
        check_context_fraction(_number("context_fraction", context_fraction))
        fractions = [float(context_fraction)]
        evaluation = replace(chosen.evaluation, context_fractions=fractions, untimed_fractions=[])
        chosen, labels["context_fraction"] = replace(chosen, evaluation=evaluation), str(context_fraction)
    if chosen.threads is not None:
        torch.set_num_threads(chosen.threads)
    quieten_libraries()
    return Study(notebook, chosen, variant_name(chosen.name, labels), force)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"The parameter {name} is {value!r}: allowed is a number.")
    return value


def quieten_libraries() -> None:
    """Keep notices that no reader can act on out of the notebooks; warnings about the computation stay."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()  # of loading weights, a blink for each
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")


def refuse_undeclared_parameters() -> None:
    """InputError when papermill injected a parameter that the notebook's `parameters` cell does not declare.

    papermill itself only warns of one, so that a typing error would run the default. It marks the injected cell with a
    first line `# Parameters`; the cell before it is the notebook's own.
    """
    shell = get_ipython()
    cells = list(shell.user_ns["In"]) if shell is not None else []
    for before, cell in itertools.pairwise(cells):
        if cell.startswith("# Parameters\n"):
            declared = set(_assigned(before))
            for name in _assigned(cell):
                if name not in declared:
                    raise InputError(
                        f"The notebook has no parameter {name!r}: allowed are {', '.join(sorted(declared))}."
                    )


def _assigned(source: str) -> Iterator[str]:
    """Names that the statements of a cell assign."""
    for statement in ast.parse(source).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))
