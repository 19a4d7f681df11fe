"""What systems are fitted to beside the recorded rollouts: the tokens that were read, the files' own next ones, the last layer's states."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from eelib.data.corpus import CodeFile, split_of
from eelib.data.samples import RandomPrompts, encode, random_windows
from eelib.models.loading import CodeModel
from eelib.models.parts import ModelParts
from eelib.profile import Context
from eelib.rl.rollouts import Rollouts
from eelib.systems import sec
from eelib.systems.depth_adaptive import correctness
from eelib.systems.harness import Bench, Looks, Split, own_looks
from eelib.systems.heads import Heads, fit_heads
from eelib.systems.mat import fit_maps
from eelib.systems.network import Classifier

UNKNOWN = -1  # where a file has no further token
HEADS_PART = 16  # heads learn for this part of a policy's steps: one of theirs takes as long as many of those
LIKELIHOOD_TOKENS = 4000  # of real text, at which the likelihood of the last layer's token is computed


def prompts_and_references(
    files: Sequence[CodeFile], code_model: CodeModel, count: int, context: Context, seed: int = 0
) -> tuple[list[list[int]], np.ndarray]:
    """The prompts of `data.samples.random_prompts` of the same seed, and (count, T) tokens that follow in their files, -1 past the end."""
    prompts, drawn, references = RandomPrompts(files, code_model.tokenizer, context), [], []
    rng, places = np.random.default_rng(seed), np.random.default_rng(seed)
    for _ in range(count):
        drawn.append(prompts.draw(rng))
        index, fraction = int(places.integers(len(files))), float(places.uniform(*prompts.fractions))
        ids = encode(files[index], code_model.tokenizer)
        end = max(1, int(fraction * len(ids)))
        follows = ids[end : end + context.new_tokens]
        references.append(follows + [UNKNOWN] * (context.new_tokens - len(follows)))
    return drawn, np.array(references)


def inputs_of(prompts: list[list[int]], rollouts: Rollouts) -> np.ndarray:
    """(N, T) the token read before each one that was said: the prompt's last, then those said."""
    return np.concatenate([np.array([[ids[-1]] for ids in prompts]), rollouts.last[:, :-1]], 1)


@dataclass(frozen=True)
class Text:
    """Real text as `rl.rollouts.record_prefixes` recorded it, and what it left out, all (N, T, ...).

    Attributes
    ----------
    truth: the file's next tokens, -1 at the end of a window.
    last_states: of the last layer, float32.
    """

    split: Split
    truth: np.ndarray
    last_states: np.ndarray


@torch.inference_mode()
def along_text(parts: ModelParts, windows: list[list[int]], recorded: Rollouts) -> Text:
    """Run the windows that `recorded` comes from again, for the last layer's states."""
    episodes = recorded.last.shape
    positions = recorded.last.size // len(windows)
    last = torch.empty(len(windows), positions, parts.width)
    for row, window in enumerate(windows):
        last[row] = (
            parts.hidden_states(torch.tensor([window], device=parts.device))[-1][0, -positions:].float().cpu()
        )
    ids = np.array(windows)
    follows = np.concatenate([ids[:, 1:], np.full((len(ids), 1), UNKNOWN)], 1)
    inputs, truth = (tokens[:, -positions:].reshape(episodes) for tokens in (ids, follows))
    return Text(Split(recorded, inputs), truth, last.numpy().reshape(*episodes, -1))


@dataclass(frozen=True)
class Material:
    """Everything that the systems of one model and language are fitted to and judged on.

    Attributes
    ----------
    train: completions of training files and real text.
    text: the real text of it.
    references: (N, T) of the unseen prompts.
    steps: of a policy's training.
    seeds: of what is fitted.
    """

    parts: ModelParts
    bench: Bench
    train: Split
    text: Text
    references: np.ndarray
    steps: int
    seeds: list[int]

    @cached_property
    def heads(self) -> Heads:
        """Heads of their own, of one seed."""
        steps = max(1, self.steps // HEADS_PART)
        return fit_heads(self.parts, self.train.rollouts, self.bench.chosen.rollouts, 0, steps)

    @cached_property
    def said_by_heads(self) -> tuple[Looks, Looks, Looks]:
        """What heads of their own say of what is learnt from, of what chooses and of what is reported on."""
        return tuple(self.heads.looks(split.rollouts) for split in (self.train, *self.bench.splits))

    @cached_property
    def rights_of_heads(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N, T, E) bool of the same: where they are right."""
        splits = (self.train, *self.bench.splits)
        return tuple(
            looks.tokens == split.rollouts.last[..., None]
            for looks, split in zip(self.said_by_heads, splits, strict=True)
        )

    @property
    def rights(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same of the model's own head."""
        return tuple(split.rollouts.correct for split in (self.train, *self.bench.splits))

    @cached_property
    def controllers(self) -> dict[int, Classifier]:
        """SEC's, by seed."""
        text = self.text
        return {
            seed: sec.controller(text.split.rollouts, text.truth, seed, self.steps) for seed in self.seeds
        }

    @cached_property
    def maps(self) -> np.ndarray:
        """MAT's."""
        return fit_maps(self.text.split.rollouts, self.text.last_states)

    @property
    def embeddings(self) -> np.ndarray:
        """(V, D) float32 of the input."""
        return self.parts.model.get_input_embeddings().weight.detach().float().cpu().numpy()

    @property
    def correct_gains(self) -> tuple[Rollouts, np.ndarray]:
        """What is learnt from, and 1 for every right token."""
        return self.train.rollouts, correctness(self.train.rollouts)

    @cached_property
    def likely_gains(self) -> tuple[Rollouts, np.ndarray]:
        """Real text, and the log-likelihood of the last layer's token at every stop."""
        recorded = self.text.split.rollouts
        recorded = recorded.first(max(1, LIKELIHOOD_TOKENS // recorded.last.shape[1]))
        states = torch.from_numpy(self.text.last_states[: len(recorded)]).to(self.parts.device)
        with torch.inference_mode():
            ends = [
                self.parts.logits(own.to(self.parts.model.dtype))
                .float()
                .log_softmax(-1)
                .amax(-1)
                .cpu()
                .numpy()
                for own in states
            ]
        own = own_looks(self.parts, recorded).likelihood
        return recorded, np.concatenate([own, np.stack(ends)[..., None]], -1)


def gather(
    corpus: list[CodeFile],
    tuned: CodeModel,
    rollouts: Rollouts,
    prefixes: Rollouts,
    chosen: Rollouts,
    unseen: Rollouts,
    prefix_windows: int,
    context: Context,
    steps: int,
    seeds: list[int],
) -> Material:
    """The material of a setting of the study: the prompts and windows that its rollouts were recorded on, drawn again."""
    parts, inputs, references = tuned.parts, {}, {}
    for split, recorded in (("train", rollouts), ("validation", chosen), ("test", unseen)):
        drawn = prompts_and_references(split_of(corpus, split), tuned, len(recorded), context)
        inputs[split], references[split] = inputs_of(drawn[0], recorded), drawn[1]
    windows = random_windows(split_of(corpus, "train"), tuned.tokenizer, prefix_windows, context, seed=1)
    text = along_text(parts, windows, prefixes)
    bench = Bench(
        parts.model.config,
        context.max_tokens,
        Split(chosen, inputs["validation"], own_looks(parts, chosen)),
        Split(unseen, inputs["test"], own_looks(parts, unseen)),
    )
    read = np.concatenate([inputs["train"], text.split.inputs])
    return Material(
        parts, bench, Split(rollouts.joined(prefixes), read), text, references["test"], steps, seeds
    )
