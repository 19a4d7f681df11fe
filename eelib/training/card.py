"""The card of a pretrained base model, written from its training record.

python -m eelib.training.card models/llama-pico
"""

import json
import sys
from pathlib import Path

CARD = """# {model}

A base model for the laptop profile of this study: {layers} layers of width {width}, {parameters:.1f}M parameters, {positions} positions, a byte-pair vocabulary
of {vocabulary} entries over CodeXGLUE-style code tokens. It has the depth of the thesis's model at a size that trains on a laptop, and knows nothing of
early exits: plain next-token loss on the last layer.

| | |
|---|---|
| Tokens seen | {tokens_seen:.2f}M, Java and Python half each ({steps} steps of {batch} sequences of {positions}) |
| Optimizer | AdamW (0.9, 0.95), weight decay 0.1, clipping 1.0, learning rate {learning_rate:g}: 60 steps of warm-up, constant, last 40% falling linearly |
| Precision | bf16 autocast, `torch.compile`; weights shipped as bf16 |
| Hardware | {device}; energy not measured |
| Seed | {seed} |
| Training loss | {first_loss:.2f} at step {first_step}, {last_loss:.2f} at step {last_step} (nats a BPE token) |
| Loss on held-out blocks of the training files | {validation} |

**Data.** {data}
Sources with version, hash and licence: `eelib/data/pretraining_packages.csv` and the training rows of `eelib/data/packages.csv`. Near-duplicates are removed, and so is every file
that shares 50 consecutive tokens with an evaluation file of the packages corpus.{remark}

**Limits.** A few million tokens are far below what a model of this size can use: it knows syntax and common idioms, little more. It is meant for studying early exit
on a laptop and for nothing else. Its accuracy by layer on the test split is Figure 4.9 of the study's notebook 03.

**Licence.** The weights are released under MIT like the code. They were trained on sources under the licences listed in those tables, OpenJDK's GPL-2.0 with the Classpath exception among them.

**Again:** `python -m eelib.training.pretrain --model {model} --steps {steps}`. The loss curve is in `training.json`.
"""


def write_card(folder: Path) -> Path:
    """Write `folder/README.md` from `folder/training.json` and `folder/config.json`."""
    record = json.loads((folder / "training.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    losses = [entry for entry in record["log"] if "loss" in entry]
    evaluations = [entry for entry in record["log"] if "eval_loss" in entry]
    data = " ".join(
        f"{language.capitalize()}: {part['files']:,} files of {len(part['projects'])} projects, "
        f"{part['code_tokens'] / 1e6:.1f}M code tokens, {part['bpe_tokens'] / 1e6:.1f}M BPE tokens."
        for language, part in record["corpus"].items()
    )
    card = CARD.format(
        model=record["model"],
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        positions=config["max_position_embeddings"],
        vocabulary=config["vocab_size"],
        parameters=record["parameters"] / 1e6,
        tokens_seen=record["tokens_seen"] / 1e6,
        steps=record["steps"],
        batch=record["batch_size"],
        learning_rate=record["learning_rate"],
        device=record["device"],
        seed=record["seed"],
        first_loss=float(losses[0]["loss"]),
        first_step=losses[0]["step"],
        last_loss=float(losses[-1]["loss"]),
        last_step=losses[-1]["step"],
        validation=", ".join(f"{entry['eval_loss']:.3f} at step {entry['step']}" for entry in evaluations)
        or "not measured",
        data=data,
        remark=f" {record['remark']}" if "remark" in record else "",
    )
    path = folder / "README.md"
    path.write_text(card, encoding="utf-8")
    return path


if __name__ == "__main__":
    print(write_card(Path(sys.argv[1])))
