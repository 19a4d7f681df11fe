"""Models that a package ships as GGUF: a tiny one goes the whole way, and what is refused."""

import hashlib
import json
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from eelib import paths
from eelib.errors import InputError
from eelib.models.loading import fingerprint, load_config, load_model, load_tokenizer
from eelib.models.packaged import checkpoint
from eelib.models.parts import take_apart
from eelib.models.tokenizer import end_of_line

LAYERS, WIDTH, VOCABULARY = 8, 32, 300


def write_gguf(path: Path) -> None:
    """A random Llama of 8 layers, 4 heads and 2 key-value heads, and a byte-level vocabulary."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    alphabet = [
        *map(chr, range(33, 127)),
        *map(chr, range(161, 173)),
        *map(chr, range(174, 256)),
        *map(chr, range(256, 324)),
    ]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet, "12", "ab"]
    tokens += [f"unused{i}" for i in range(VOCABULARY - len(tokens))]
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (VOCABULARY - 3))
    writer.add_token_merges(["1 2", "a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, rng.normal(0, 0.3, shape).astype(np.float32))

    tensor("token_embd.weight", VOCABULARY, WIDTH)
    tensor("output_norm.weight", WIDTH)
    for layer in range(LAYERS):
        for name, *shape in (
            ("attn_norm", WIDTH),
            ("ffn_norm", WIDTH),
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", WIDTH // 2, WIDTH),
            ("attn_v", WIDTH // 2, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_gate", 48, WIDTH),
            ("ffn_up", 48, WIDTH),
            ("ffn_down", WIDTH, 48),
        ):
            tensor(f"blk.{layer}.{name}.weight", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def gguf_bytes(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path)
    return path.read_bytes()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes `models/tiny/source.json` and its package in the cache, and lets `load_model` find both."""

    def make(content: bytes, member: str = "pkg/tiny.gguf") -> Path:
        folder, packages = tmp_path / "shipped" / "tiny", tmp_path / "packages"
        for path in (folder, packages):
            path.mkdir(parents=True, exist_ok=True)
        wheel = packages / "tiny-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("pkg/tiny.gguf", content)
        source = {
            "project": "tiny",
            "version": "1.0",
            "file": wheel.name,
            "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
            "bytes": wheel.stat().st_size,
            "licence": "MIT",
            "member": member,
        }
        (folder / "source.json").write_text(json.dumps(source))
        return folder

    monkeypatch.setattr(paths, "CACHE", tmp_path)
    monkeypatch.setattr(paths, "MODELS", tmp_path / "shipped")
    return make


def test_a_packaged_model_loads_by_name_like_any_other(gguf_bytes, package, capsys):
    folder = package(gguf_bytes)
    model, tokenizer = load_model("tiny"), load_tokenizer("tiny")
    assert "Dequantising tiny.gguf" in capsys.readouterr().out
    assert load_config("tiny").vocab_size == len(tokenizer) == VOCABULARY + 1
    ids = tokenizer("x = 12 ; <EOL> ab").input_ids
    pieces = tokenizer.convert_ids_to_tokens(ids)
    assert " <EOL>" in pieces and "ab" in pieces
    assert "12" not in pieces  # digits stand alone, as in the model's pretraining
    assert tokenizer.decode(ids) == "x = 12 ; <EOL> ab"
    assert tokenizer.bos_token == tokenizer.eos_token == "<|endoftext|>"
    new = end_of_line(tokenizer)
    line_break = tokenizer("\n").input_ids[0]
    weight = model.get_input_embeddings().weight
    assert torch.equal(weight[new], weight[line_break])
    assert take_apart(model).total_layers == LAYERS
    assert fingerprint("tiny") == hashlib.sha256((folder / "source.json").read_bytes()).hexdigest()
    load_model("tiny")
    assert capsys.readouterr().out == ""  # dequantised once


def test_its_weights_are_those_of_the_file(gguf_bytes, package, tmp_path):
    package(gguf_bytes)
    model = load_model("tiny")
    path = tmp_path / "again.gguf"
    path.write_bytes(gguf_bytes)
    stored = {tensor.name: torch.tensor(tensor.data) for tensor in gguf.GGUFReader(path).tensors}
    torch.testing.assert_close(model.model.layers[3].mlp.down_proj.weight, stored["blk.3.ffn_down.weight"])
    torch.testing.assert_close(model.model.norm.weight, stored["output_norm.weight"])
    torch.testing.assert_close(model.lm_head.weight[:VOCABULARY], stored["token_embd.weight"])


def test_what_cannot_be_had_is_one_sentence(gguf_bytes, package, tmp_path):
    folder = package(gguf_bytes, member="pkg/other.gguf")
    with pytest.raises(InputError, match="has no file 'pkg/other.gguf'"):
        checkpoint(folder)
    folder = package(gguf_bytes[:2000])
    with pytest.raises(InputError, match="tiny.gguf cannot be dequantised"):
        checkpoint(folder)
    assert list((paths.CACHE / "models").iterdir()) == []  # nothing half made is left


def test_a_difference_that_is_not_shipped_is_named(gguf_bytes, package):
    package(gguf_bytes)
    with pytest.raises(InputError, match="The model 'tiny' has no difference 'plain': allowed are none"):
        load_model("tiny+plain")
