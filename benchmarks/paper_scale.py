"""Time and energy of early exit at the thesis's sizes: OPT-2.7B and Llama-3.2-3B with random weights, published exits replayed.

    python benchmarks/paper_scale.py --part check
    python benchmarks/paper_scale.py --part reference --geometry opt-2.7b --context 256
    python benchmarks/paper_scale.py --part traces-java --geometry llama-3.2-3b --context 256

One part a call, each shorter than --limit seconds; `scripts/paper_scale.sh` does them all. A part whose file is there is
not measured again (--force does). Needs torch, transformers, pandas, pyarrow and, for energy, nvidia-ml-py; no hub. Writes
`<folder>/<geometry>-<dtype>-<context>-<part>.parquet`, a row a window, and beside it a JSON file that says where it comes from.
Weights are random: tokens mean nothing, and agents answer at random, so exits follow the published traces.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import pandas as pd
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent.parent))  # for machines where eelib is not installed

from paper_parts import DECODERS, PARTS, check, sides_of
from paper_sides import Side, copy_bandwidth, measure, warm_up

from eelib import paths, provenance
from eelib.errors import InputError
from eelib.evaluation.nvml import card_state
from eelib.gpu.geometries import build, decoding_bytes
from eelib.models.parts import take_apart

SHARE_OF_LIMIT = 0.9  # no window is begun after it


def energy_monitor(device: torch.device):
    """Zeus's where it is installed, else NVML's counter itself; the sentence that it describes itself by is kept."""
    try:
        from eelib.evaluation.energy import EnergyMonitor
    except ModuleNotFoundError as error:
        if error.name != "zeus" or device.type != "cuda":
            raise
        from eelib.evaluation.nvml import NvmlMonitor

        return NvmlMonitor(device)
    return EnergyMonitor(device)


def machine(device: torch.device, commit: str) -> dict[str, object]:
    """Card, driver, clocks, versions, commit."""
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    facts = provenance.hardware() | {"commit": commit, "versions": versions}
    facts["software"] = provenance.software()
    facts["state"] = {
        name: None if math.isnan(value) else value for name, value in card_state(device).items()
    }
    return facts


def run(args: argparse.Namespace) -> pd.DataFrame:
    """Measure one part: all sides once a round, in rounds until they are done or the time is up."""
    started = time.monotonic()
    deadline = started + SHARE_OF_LIMIT * args.limit
    device = torch.device(args.device)
    parts = take_apart(build(args.geometry, getattr(torch, args.dtype), device))
    monitor = energy_monitor(device)
    idle = monitor.idle_power(args.window)
    bandwidth = copy_bandwidth(device, args.copy_bytes)
    sides = sides_of(args.part, parts, args.context, args.decoders, args.geometry)
    print(f"{args.part}: {len(sides)} sides after {time.monotonic() - started:.0f} s", flush=True)
    least, counts = args.completions, []
    for side in sides:
        # Sides that replay run the same completions, as many as the first, the cached full model, needs for a window.
        replays = counts and side.name["criterion"] == "trace"
        seconds = warm_up(side, counts[0] if replays else least, device)
        counts.append(counts[0] if replays else max(least, math.ceil(args.window / seconds)))
    print(f"warm after {time.monotonic() - started:.0f} s", flush=True)
    frame = tidy(args, parts.model, rounds(args, sides, counts, device, monitor, deadline))
    frame["idle_watts"], frame["copy_bandwidth"] = idle, bandwidth
    facts = machine(device, args.commit) | {
        "energy": monitor.describe(),
        "rounds": int(frame["round"].max()) + 1,
        "arguments": {name: str(value) for name, value in sorted(vars(args).items())},
    }
    write(args, frame, facts)
    return frame


def rounds(args, sides: list[Side], counts: list[int], device, monitor, deadline: float) -> list[dict]:
    """All sides once a round, so that a card that warms up does so for all of them; rows of whole rounds only."""
    rows: list[dict] = []
    for number in range(args.rounds):
        begun = time.monotonic()
        this_round = []
        for side, count in zip(sides, counts, strict=True):
            this_round.append(measure(side, count, device, monitor) | {"round": number})
            if time.monotonic() > deadline:
                break
        if len(this_round) < len(sides):
            break
        rows += this_round
        took = time.monotonic() - begun
        print(f"round {number + 1} of {args.rounds}: {took:.0f} s", flush=True)
        if time.monotonic() + took > deadline:
            break
    if not rows:
        raise InputError(
            f"--limit is {args.limit:g} s, and one round of {args.window:g} s windows took longer: allow more, or less a window."
        )
    return rows


def tidy(args: argparse.Namespace, model, rows: list[dict]) -> pd.DataFrame:
    """The rows with the columns that all share, and the bytes that a token must read."""
    frame = pd.DataFrame(rows)
    frame.insert(0, "geometry", args.geometry)
    frame.insert(1, "dtype", args.dtype)
    frame.insert(2, "context", args.context)
    frame.insert(3, "part", args.part)
    for column, missing in (("layer", pd.NA), ("language", ""), ("threshold", math.nan)):
        frame[column] = frame.get(column, missing)
    frame["layer"] = frame["layer"].astype("Int64")
    frame["language"] = frame["language"].fillna("")
    read = args.context + frame["new_tokens"] / 2
    frame["bytes_per_token"] = [
        decoding_bytes(model, layers, length)
        for layers, length in zip(frame["mean_layers"], read, strict=True)
    ]
    return frame


def path_of(args: argparse.Namespace) -> Path:
    """The file of a part's rows."""
    return args.folder / f"{args.geometry}-{args.dtype}-{args.context}-{args.part}.parquet"


def write(args: argparse.Namespace, frame: pd.DataFrame, facts: dict) -> None:
    """Write rows and provenance, the rows last and whole: where they are, the part is done."""
    args.folder.mkdir(parents=True, exist_ok=True)
    path = path_of(args)
    path.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    temporary = path.with_suffix(".tmp")
    frame.to_parquet(temporary, index=False)
    temporary.rename(path)


def show(frame: pd.DataFrame) -> None:
    """A line a side: medians over rounds."""
    names = ["decoder", "cache", "criterion", "layer", "language", "threshold", "agent"]
    frame = frame.assign(
        ms_a_token=frame["step_seconds"] / frame["completions"] / frame["new_tokens"] * 1000,
        ms_a_completion=frame["seconds"] / frame["completions"] * 1000,
        joules_a_completion=frame["joules"] / frame["completions"],
        of_bandwidth=frame["bytes_per_token"]
        * frame["completions"]
        * frame["new_tokens"]
        / frame["step_seconds"]
        / frame["copy_bandwidth"],
    )
    shown = ["mean_layers", "ms_a_token", "ms_a_completion", "joules_a_completion", "of_bandwidth"]
    print(frame.groupby(names, dropna=False, sort=False)[shown].median().round(3).reset_index().to_string())


def main(arguments: list[str] | None = None) -> int:
    """Measure one part; a bad argument is one sentence and exit code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cuda = torch.cuda.is_available()
    parser.add_argument("--part", required=True, help=f"check, {', '.join(PARTS)}")
    parser.add_argument("--geometry", default="opt-2.7b", help="opt-2.7b, llama-3.2-3b, or a checkpoint")
    parser.add_argument("--tiny", action="store_true", help="the geometry's depth at width 64: for tests")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--context", type=int, default=256, help="tokens of a prompt, at most 512")
    parser.add_argument(
        "--decoders", nargs="+", default=["graphs"], choices=list(DECODERS), help="the first replays exits"
    )
    parser.add_argument("--window", type=float, default=2.0, help="seconds of one window, at least")
    parser.add_argument("--completions", type=int, default=8, help="of one window, at least")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=560.0, help="seconds for the whole call")
    parser.add_argument(
        "--copy-bytes", type=int, default=2**32 if cuda else 2**26, help="for the measured bandwidth"
    )
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--folder", type=Path, default=paths.PAPER_SCALE)
    parser.add_argument("--commit", default=provenance.commit(), help="where a copy of the tree has no git")
    parser.add_argument("--force", action="store_true", help="measure anew what is there")
    args = parser.parse_args(arguments)
    args.geometry += "-tiny" if args.tiny else ""
    try:
        return part(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def part(args: argparse.Namespace) -> int:
    """Do what the arguments say; 1 when the check fails."""
    for name in ("context", "completions", "rounds", "copy_bytes"):
        least = 2 if name == "context" else 1
        if getattr(args, name) < least:
            raise InputError(
                f"--{name.replace('_', '-')} is {getattr(args, name)}: allowed is {least} or more."
            )
    if args.context > 512:
        raise InputError(f"--context is {args.context}: allowed are at most 512, the thesis's cap.")
    if args.part == "check":
        device = torch.device(args.device)
        verdicts, good = check(device, compiled="graphs-compiled" in args.decoders)
        facts = machine(device, args.commit) | {"verdicts": verdicts}
        args.folder.mkdir(parents=True, exist_ok=True)
        (args.folder / "check.json").write_text(json.dumps(facts, indent=1) + "\n")
        print(json.dumps(facts, indent=1))
        return 0 if good else 1
    if args.part not in PARTS:
        raise InputError(f"The part is {args.part!r}: allowed are check, {', '.join(PARTS)}.")
    if path_of(args).exists() and not args.force:
        print(f"{path_of(args)} is there; --force measures it anew.")
        return 0
    show(run(args))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
