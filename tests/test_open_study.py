"""What a notebook gets from its parameters, and the one sentence it gets when something is wrong with them."""

import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import papermill
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from papermill.exceptions import PapermillExecutionError

from eelib import paths
from eelib.errors import InputError
from eelib.study import notebook
from eelib.study.notebook import open_study


@pytest.fixture(autouse=True)
def as_it_was():
    """open_study changes torch's threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


# --- parameters ---


def test_without_parameters_the_study_is_the_profiles(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    study = open_study("05", "ci")
    assert Path.cwd() == tmp_path
    assert study.settings == [
        ("llama-random", "java"),
        ("llama-random", "python"),
        ("opt-random", "java"),
        ("opt-random", "python"),
    ]
    assert (study.variant, study.force) == ("ci", False)
    assert study.root == paths.ROOT / "results/ci/stages"
    assert study.dtype == torch.float32
    assert torch.get_num_threads() == 1


def test_parameters_narrow_the_study_and_name_its_folder():
    study = open_study(
        "05",
        "ci",
        "evaluation.samples=3",
        force=True,
        model="opt-random",
        language="java",
        threshold=0.9,
        context_fraction=0.3,
    )
    assert study.settings == [("opt-random", "java")]
    assert study.profile.evaluation.thresholds == [0.9]
    assert study.profile.evaluation.context_fractions == [0.3]
    assert study.profile.evaluation.samples == 3
    assert study.force
    assert study.variant == (
        "ci+context_fraction=0.3+evaluation.samples=3+language=java+model=opt-random+threshold=0.9"
    )
    # Stages are found by their content: a narrowed study shares them with the whole one.
    assert study.root == open_study("05", "ci").root


def test_a_folders_name_holds_no_separator():
    study = open_study("05", "ci", "models=facebook/opt-125m 'data.path=../else where'")
    assert re.fullmatch(r"[\w.,=+\[\]-]+", study.variant)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"threshold": "high"}, "The parameter threshold is 'high': allowed is a number."),
        ({"threshold": "0.9"}, "The parameter threshold is '0.9': allowed is a number."),
        ({"threshold": True}, "The parameter threshold is True: allowed is a number."),
        ({"threshold": 1.5}, "The threshold is 1.5: allowed are probabilities from 0 to 1."),
        ({"threshold": -0.1}, "The threshold is -0.1: allowed are probabilities from 0 to 1."),
        ({"threshold": float("nan")}, "The threshold is nan: allowed are probabilities from 0 to 1."),
        ({"context_fraction": [0.2]}, "The parameter context_fraction is [0.2]: allowed is a number."),
        (
            {"context_fraction": 1},
            "The context fraction is 1: allowed are fractions between 0 and 1, both excluded.",
        ),
        (
            {"context_fraction": 0.0},
            "The context fraction is 0.0: allowed are fractions between 0 and 1, both excluded.",
        ),
        ({"model": "gpt"}, "The model is 'gpt': allowed are llama-random, opt-random."),
        ({"model": 5}, "The model is 5: allowed are llama-random, opt-random."),
        ({"language": "cobol"}, "The language is 'cobol': allowed are java, python."),
        (
            {"profile": "desktop"},
            "There is no profile 'desktop': allowed are ci, gpu, laptop, paper, smollm.",
        ),
        ({"profile": 5}, "The parameter profile is 5: allowed is text."),
        ({"settings": 5}, "The parameter settings is 5: allowed is text."),
        ({"settings": "evaluation.samples=0"}, "evaluation.samples is 0: allowed are values from 1."),
        ({"settings": "samples=5"}, "There is no setting 'samples': allowed are models, "),
        ({"force": "yes"}, "The parameter force is 'yes': allowed is True or False."),
    ],
)
def test_a_wrong_parameter_is_one_sentence(parameters, sentence):
    with pytest.raises(InputError) as error:
        open_study("05", **{"profile": "ci"} | parameters)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


# --- undeclared parameters ---

DECLARED = 'profile: str = "ci"  # a profile\nthreshold: float = None  # one\nforce = False'


@pytest.mark.parametrize(
    ("injected", "unknown"),
    [
        ("# Parameters\nthreshold = 0.5\nforce = True\n", None),
        ('# Parameters\nprofile = "ci"\ntreshold = 0.5\n', "treshold"),
        ("# Parameters\nx: int = 5\n", "x"),
    ],
)
def test_only_declared_parameters_may_be_injected(monkeypatch, injected, unknown):
    shell = SimpleNamespace(user_ns={"In": ["", "print('before')", DECLARED, injected, "open_study()"]})
    monkeypatch.setattr(notebook, "get_ipython", lambda: shell)
    if unknown is None:
        assert open_study("05", "ci").variant == "ci"
    else:
        with pytest.raises(
            InputError, match=f"no parameter '{unknown}': allowed are force, profile, threshold"
        ):
            open_study("05", "ci")


def test_papermill_cannot_inject_an_undeclared_parameter(tmp_path):
    cells = [
        new_code_cell(DECLARED, metadata={"tags": ["parameters"]}),
        new_code_cell(
            'from eelib.study.notebook import open_study\nopen_study("05", profile, "", force, threshold=threshold)'
        ),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), tmp_path / "in.ipynb")
    with pytest.raises(PapermillExecutionError) as error:
        papermill.execute_notebook(
            tmp_path / "in.ipynb",
            tmp_path / "out.ipynb",
            parameters={"threshold": 0.5, "treshold": 0.5},
            kernel_name="python3",
            progress_bar=False,
        )
    assert error.value.ename == "InputError"
    assert error.value.evalue == (
        "The notebook has no parameter 'treshold': allowed are force, profile, threshold."
    )
    assert error.value.traceback == [f"InputError: {error.value.evalue}"]
