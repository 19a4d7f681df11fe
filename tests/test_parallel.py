"""Stages made side by side are those made one after the other."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eelib.pipeline.parallel import side_by_side
from eelib.pipeline.study import MissingStage, Study, made_keys
from eelib.study.errors import InputError
from eelib.study.profile import load_profile
from eelib.study.stages import Artifact, Stage


def toy(study: Study, number: int) -> Artifact:
    """A stage that writes a seeded result, and which process made it."""

    def build(folder: Path) -> None:
        if number < 0:
            raise InputError(f"The number is {number}: allowed are numbers from 0.")
        draw = torch.randn(64, 64, generator=torch.Generator().manual_seed(number))
        (folder / "result").write_text(str((draw @ draw).sum().item()))
        (folder / "process").write_text(str(os.getpid()))

    return study.stage(Stage(f"toy/{number}", layer="data", config={"number": number}), "02", build)


@pytest.fixture
def study(tmp_path, monkeypatch) -> Iterator[Study]:
    """A study in an empty folder, in a process that has made nothing yet."""
    profile = replace(load_profile("ci"), threads=2)
    monkeypatch.chdir(tmp_path)
    made_keys.clear()
    yield Study("02", profile, "ci")
    made_keys.clear()


def test_side_by_side_in_other_processes_and_in_order(study):
    artifacts = side_by_side(study, toy, [(3,), (1,), (2,)])
    assert [artifact.path.name.split("-")[0] for artifact in artifacts] == ["3", "1", "2"]
    assert str(os.getpid()) not in {(artifact.path / "process").read_text() for artifact in artifacts}
    first = (artifacts[0].path / "result").read_text()
    draw = torch.randn(64, 64, generator=torch.Generator().manual_seed(3))
    assert float(first) == pytest.approx((draw @ draw).sum().item(), rel=1e-4)


def test_what_is_there_is_found_and_not_made_again(study):
    made = side_by_side(study, toy, [(1,), (2,)])
    before = [(artifact.path / "process").stat().st_mtime_ns for artifact in made]
    assert side_by_side(study, toy, [(1,), (2,)]) == made
    assert [(artifact.path / "process").stat().st_mtime_ns for artifact in made] == before


def test_force_makes_each_stage_anew_once(study):
    made = side_by_side(study, toy, [(1,), (2,)])
    made_keys.clear()
    forced = replace(study, force=True)
    before = (made[0].path / "process").stat().st_mtime_ns
    side_by_side(forced, toy, [(1,), (2,)])
    anew = (made[0].path / "process").stat().st_mtime_ns
    assert anew > before
    toy(forced, 1)
    assert (made[0].path / "process").stat().st_mtime_ns == anew


def test_bad_input_in_another_process_is_still_one_sentence(study):
    with pytest.raises(InputError, match="number is -1: allowed are numbers from 0"):
        side_by_side(study, toy, [(1,), (-1,)])


def test_a_reader_makes_nothing(study):
    with pytest.raises(MissingStage, match="02_fine_tuning"):
        toy(study.only_finding(), 7)


def pair(study: Study, number: int) -> list[Artifact]:
    """A job that makes two stages."""
    return [toy(study, number), toy(study, number + 1)]


def test_a_job_may_make_several_stages(study):
    made = side_by_side(study, pair, [(10,), (20,)])
    assert [[item.path.name.split("-")[0] for item in items] for items in made] == [
        ["10", "11"],
        ["20", "21"],
    ]
    assert {item.key for items in made for item in items} == made_keys
