"""The study's flow: corpus, fine-tuned model, rollouts, agent, results. What the notebooks call."""

from eelib.pipeline.study import Study, open_study

__all__ = ["Study", "open_study"]
