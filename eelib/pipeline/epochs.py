"""Stages of Figure 4.8, part of notebook 02: how layers learn to decode over the epochs of one fine-tuning."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from eelib.data.samples import evaluation_samples
from eelib.evaluation.sweep import predictions, summarise
from eelib.models.loading import fingerprint, load_model, load_tokenizer
from eelib.models.parts import take_apart
from eelib.pipeline.corpora import corpus, files_of
from eelib.pipeline.fixed_exits import layer_settings
from eelib.pipeline.models import device, fine_tuned
from eelib.pipeline.parallel import side_by_side
from eelib.pipeline.study import Study
from eelib.study.stages import Artifact, Stage
from eelib.training.finetune import snapshot_steps


def setting(study: Study) -> tuple[str, str]:
    """(model, language) that is studied; a narrowed run may leave it out (`study.settings`)."""
    return study.profile.epoch_study.model, study.profile.epoch_study.language


def snapshot_predictions(study: Study, step: int) -> Artifact:
    """Completions from every layer of the model after `step` steps, 0 for the base: `predictions.parquet`."""
    model, language = setting(study)
    data, tuned = corpus(study, language), fine_tuned(study, model, language)
    config = study.profile.epoch_study
    stage = Stage(
        f"epoch_study/{model}-{language}-{step}",
        layer="evaluation",
        config={"step": step, "base": fingerprint(model), "dtype": study.profile.dtype}
        | study.profile.section("epoch_study", "context"),
        inputs=(data, tuned),
    )

    def decode(folder: Path) -> None:
        name = model if step == 0 else str(_checkpoint(tuned.path, step))
        parts = take_apart(load_model(name, study.dtype).to(device()))
        tokenizer = load_tokenizer(model)
        # More new tokens than elsewhere: the context gives way where the model's positions end.
        longest = min(study.profile.context.max_tokens, parts.max_positions - config.new_tokens)
        context = replace(study.profile.context, max_tokens=longest, new_tokens=config.new_tokens)
        files = files_of(data, "test")
        samples, _ = evaluation_samples(files, tokenizer, config.context_fraction, config.samples, context)
        rows = predictions(parts, tokenizer, samples, layer_settings(parts), config.new_tokens)
        rows.to_parquet(folder / "predictions.parquet", index=False)

    return study.stage(stage, "02", decode)


def _checkpoint(tuned: Path, step: int) -> Path:
    """The model kept after a step; the finished one has no snapshot."""
    snapshot = tuned / f"snapshot-{step}"
    return snapshot if snapshot.exists() else tuned / "model"


def _steps(study: Study) -> list[int]:
    return [0, *snapshot_steps(study.profile.fine_tuning.steps, study.profile.epoch_study.snapshots)]


def all_snapshots(study: Study) -> list[Artifact]:
    """Completions of the base and of every snapshot, side by side."""
    return side_by_side(study, snapshot_predictions, [(step,) for step in _steps(study)])


def epoch_frame(study: Study) -> pd.DataFrame:
    """Metrics by layer: `epoch` (passes over the training files, "base" for none), `step`, `layer`, and `summarise`'s."""
    model, language = setting(study)
    log = pd.read_parquet(fine_tuned(study, model, language).path / "log.parquet").set_index("step")
    frames = []
    for step in _steps(study):
        rows = pd.read_parquet(snapshot_predictions(study, step).path / "predictions.parquet")
        epoch = f"{log['epoch'][step]:.2g}" if step else "base"
        frames.append(summarise(rows, language).assign(epoch=epoch, step=step))
    frame = pd.concat(frames, ignore_index=True)
    return frame.rename(columns={"threshold": "layer"}).astype({"layer": int})
