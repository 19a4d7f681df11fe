"""Steps a second of the environments, and of PPO whole, at the width of the pico models and at 3072.

    .venv/bin/python benchmarks/rl.py [--steps 50000] [--threads 1]

PPO runs with Table 6.6's buffer, batch, epochs and network; its time for 500,000 steps is scaled up from `--steps`. The live
environment completes a prompt with opt-pico at each reset, as the thesis does with its models. Writes
`results/benchmarks/rl.json`.
"""

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from measuring import interleaved, model_named, random_prompts, report

from eelib.models.exits import exit_points
from eelib.profile import load_profile
from eelib.rl.agent import coefficients_for, train_agent
from eelib.rl.env import EarlyExitEnv, RolloutVecEnv
from eelib.rl.rollouts import LiveEpisodes, Rollouts

LAYERS, TOKENS, PROMPT = 28, 15, 120
WIDTHS = {128: 60, 3072: 180}  # and seconds that 500,000 steps of PPO may take
PROMPTS = {128: 500, 3072: 100}
STEPS = 2_000  # of an environment, timed
PAPER_STEPS = 500_000
CONFIG = load_profile("paper").reinforcement
COEFFICIENTS = coefficients_for("java", CONFIG)


def random_rollouts(width: int) -> Rollouts:
    """Random states; their values do not change how long anything takes."""
    rng, points = np.random.default_rng(0), exit_points(LAYERS)
    shape = (PROMPTS[width], TOKENS, len(points))
    return Rollouts(
        states=rng.standard_normal((*shape, width), dtype=np.float32),
        predictions=rng.integers(3, size=shape),
        confidences=rng.random(shape, dtype=np.float32),
        last=rng.integers(3, size=shape[:2]),
        exit_points=points,
        total_layers=LAYERS,
    )


def play(env: EarlyExitEnv, steps: int) -> None:
    """Random decisions in one environment."""
    rng, terminated = np.random.default_rng(0), True
    for action in rng.integers(2, size=steps):
        if terminated:
            env.reset()
        terminated = env.step(action)[2]


def play_together(env: RolloutVecEnv, steps: int) -> None:
    """The same in a vectorised one, `steps` in all."""
    rng = np.random.default_rng(0)
    env.reset()
    for _ in range(steps // env.num_envs):
        env.step(rng.integers(2, size=env.num_envs))


def ppo_seconds(rollouts: Rollouts, steps: int, environments: int) -> float:
    """Seconds of a whole training."""
    config = replace(CONFIG, steps=steps, environments=environments)
    started = time.perf_counter()
    train_agent(rollouts, COEFFICIENTS, config, seed=0, model="benchmark")
    return time.perf_counter() - started


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=50_000, help="of PPO")
    parser.add_argument("--environments", type=int, default=128, help="side by side in PPO")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recorded = {width: random_rollouts(width) for width in WIDTHS}
    parts = model_named("opt-pico", torch.float32)
    prompts = random_prompts(parts, 64, PROMPT)
    live = EarlyExitEnv(
        LiveEpisodes(parts, lambda rng: prompts[rng.integers(len(prompts))], TOKENS),
        parts.width,
        COEFFICIENTS,
    )
    seconds = interleaved(
        {
            "live": lambda: play(live, STEPS // 10),
            "scalar": lambda: play(EarlyExitEnv(recorded[128], 128, COEFFICIENTS), STEPS),
            "vectorised": lambda: play_together(
                RolloutVecEnv(recorded[128], 128, COEFFICIENTS, 0), 50 * STEPS
            ),
        },
        args.repeats,
    )
    rates = {
        "live": STEPS / 10 / seconds["live"],
        "scalar": STEPS / seconds["scalar"],
        "vectorised": 50 * STEPS / seconds["vectorised"],
    }
    ratios = {f"environment steps a second, {name}": (rate, "") for name, rate in rates.items()}
    ratios["environment: vectorised over live"] = (rates["vectorised"] / rates["live"], "aim 100 or more")
    for width, most in WIDTHS.items():
        whole = ppo_seconds(recorded[width], args.steps, args.environments)
        ratios[f"PPO steps a second, width {width}"] = (args.steps / whole, "")
        ratios[f"PPO, seconds for 500,000 steps, width {width}"] = (
            whole * PAPER_STEPS / args.steps,
            f"aim {most} or less",
        )
        seconds[f"PPO, width {width}"] = whole
    # What a training on the live environment would take, by the rate of its steps alone.
    ratios["PPO, hours for 500,000 steps on the live environment, at least"] = (
        PAPER_STEPS / rates["live"] / 3600,
        "",
    )
    report("rl", ratios, {"seconds": seconds, "steps": args.steps, "environments": args.environments})


if __name__ == "__main__":
    main()
