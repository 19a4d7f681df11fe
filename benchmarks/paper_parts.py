"""The parts of the measurement at the thesis's sizes: which sides each compares."""

import numpy as np
import torch
from measuring import random_policy
from paper_sides import FULL, NEW_TOKENS, Side, always, captured, eager, full, hugging_face

from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import Agent, FixedLayer, Scripted, Shadowed
from eelib.decoding.generate import generate
from eelib.errors import InputError
from eelib.gpu.geometries import build
from eelib.gpu.graphs import COMPILER, MODES, GraphDecoder, generate_captured
from eelib.models.parts import ModelParts, take_apart
from eelib.report.thesis_numbers import load_exit_layers

PARTS = ("reference", "generate-compiled", "fixed", "traces-java", "traces-python")
DECODERS = {"graphs": None, "graphs-compiled": COMPILER}


def reference(parts: ModelParts, context: int, decoders: list[str]) -> list[Side]:
    """The full model: `generate` in its kinds, our decoders, and an agent that never exits."""
    sides = [hugging_face(parts, context, kind) for kind in ("uncached", "dynamic", "static")]
    sides += [hugging_face(parts, context, kind, new_tokens=1) for kind in ("dynamic", "static")]
    sides += [
        eager(parts, context, FULL, CacheMode.NONE, full()),
        eager(parts, context, FULL, CacheMode.PROPAGATE, full()),
    ]
    never = always(Agent(random_policy(parts).to(parts.device), 1.0))
    for kind in decoders:
        decoder = graph_decoder(parts, context, kind)
        sides.append(captured(decoder, kind, context, FULL, CacheMode.PROPAGATE, full()))
        sides.append(captured(decoder, kind, context, never, CacheMode.PROPAGATE, full(agent=True)))
    return sides


def generate_compiled(parts: ModelParts, context: int, decoders: list[str]) -> list[Side]:
    """`generate` with its static cache and compiled, beside our full depth. Compiling takes minutes."""
    if parts.device.type != "cuda":
        raise InputError("generate compiles on a GPU only: the part generate-compiled needs one.")
    decoder = graph_decoder(parts, context, decoders[0])
    return [
        hugging_face(parts, context, "compiled"),
        hugging_face(parts, context, "compiled", new_tokens=1),
        captured(decoder, decoders[0], context, FULL, CacheMode.PROPAGATE, full()),
    ]


def fixed(parts: ModelParts, context: int, decoders: list[str]) -> list[Side]:
    """Every exit point and the last layer, cached and not."""
    decoder = graph_decoder(parts, context, decoders[0])
    sides = []
    for layer in [*parts.exit_points, parts.total_layers]:
        name = {"criterion": "fixed", "layer": layer, "agent": False}
        leave = always(FixedLayer(layer))
        for mode in (CacheMode.PROPAGATE, CacheMode.PROPAGATE_LATER):
            sides.append(captured(decoder, decoders[0], context, leave, mode, name))
        sides.append(eager(parts, context, leave, CacheMode.NONE, name))
    return sides


def traces(parts: ModelParts, context: int, decoders: list[str], geometry: str, language: str) -> list[Side]:
    """The published exits of every threshold, by cache mode, with and without the agent's decisions; the full model beside."""
    asked = Agent(random_policy(parts).to(parts.device), 1.0)
    decoder = graph_decoder(parts, context, decoders[0], asked)
    sides = [
        captured(decoder, decoders[0], context, FULL, CacheMode.PROPAGATE, full()),
        eager(parts, context, FULL, CacheMode.NONE, full()),
    ]
    for threshold, scripts in published(geometry, language).items():
        for agent in (False, True):

            def replay(index, scripts=scripts, agent=agent):
                script = scripts[index % len(scripts)]
                return Shadowed(asked, script) if agent else script

            name = {"criterion": "trace", "language": language, "threshold": threshold, "agent": agent}
            sides.append(eager(parts, context, replay, CacheMode.NONE, name))
            for mode in MODES:
                sides.append(captured(decoder, decoders[0], context, replay, mode, name))
    return sides


def published(geometry: str, language: str) -> dict[float, list[Scripted]]:
    """By threshold, runs of 15 consecutive published exits, in an order in which any first few are spread over all.

    The files do not tell where a completion ends; nearly all are 15 tokens long.
    """
    exits = load_exit_layers()
    chosen = exits[(exits["model"] == geometry.removesuffix("-tiny")) & (exits["language"] == language)]
    if chosen.empty:
        known = ", ".join(sorted(exits["model"].unique()))
        raise InputError(f"No exits were published for {geometry!r}: allowed are {known}.")
    scripts = {}
    for threshold, rows in chosen.groupby("threshold"):
        layers = rows["layer"].to_numpy()[: len(rows) // NEW_TOKENS * NEW_TOKENS].reshape(-1, NEW_TOKENS)
        order = np.random.default_rng(0).permutation(len(layers))
        scripts[threshold] = [Scripted([layers[index].tolist()]) for index in order]
    return scripts


def graph_decoder(parts: ModelParts, context: int, kind: str, asked: Agent | None = None) -> GraphDecoder:
    """A decoder with room for a context and its answer; what any exit needs is captured, with decisions and without."""
    decoder = GraphDecoder(parts, context + NEW_TOKENS, DECODERS[kind])
    for layer in [*parts.exit_points, parts.total_layers]:
        leave = Scripted([[layer]])
        for criterion in [leave] if asked is None else [leave, Shadowed(asked, leave)]:
            decoder.start([5] * context)
            decoder.step(criterion)
    return decoder


def sides_of(part: str, parts: ModelParts, context: int, decoders: list[str], geometry: str) -> list[Side]:
    """The sides of one of `PARTS`."""
    if part.startswith("traces-"):
        return traces(parts, context, decoders, geometry, part.removeprefix("traces-"))
    makers = {"reference": reference, "generate-compiled": generate_compiled, "fixed": fixed}
    return makers[part](parts, context, decoders)


def check(device: torch.device, compiled: bool) -> tuple[dict[str, str], bool]:
    """Captured decoding against the plain decoder, on tiny models in float64, where rounding decides nothing.

    Compiled layers attend in float32: there one completion in twenty may differ.

    Returns
    -------
    How many completions are the same, by geometry and decoder; whether that is enough.
    """
    verdicts, good = {}, True
    for geometry in ("opt-2.7b-tiny", "llama-3.2-3b-tiny"):
        model = build(geometry, torch.float64, device)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.data.mul_(10)  # so that layers disagree
        parts = take_apart(model)
        agent = Agent(random_policy(parts).to(device), 0.5)
        scripts = [replays[0] for replays in published(geometry, "java").values()]
        criteria = [*scripts, agent, FixedLayer(14), Shadowed(agent, scripts[0])]
        cases = [(criterion, mode) for criterion in criteria for mode in MODES]
        for kind in DECODERS if compiled else ["graphs"]:
            decoder, same = GraphDecoder(parts, 60, DECODERS[kind]), 0
            for number, (criterion, mode) in enumerate(cases):
                prompt = [7, 11, *range(5, 25 + number % 10)]
                expected = generate(parts, prompt, NEW_TOKENS, criterion, mode)
                same += generate_captured(decoder, prompt, NEW_TOKENS, criterion, mode) == expected
            verdicts[f"{geometry}, {kind}"] = f"{same} of {len(cases)} completions are the same"
            good &= same >= (len(cases) if kind == "graphs" else 0.95 * len(cases))
    return verdicts, good
