"""CodeXGLUE's corpora: the hub's dataset through the real loader, and line-completion files."""

import dataclasses
import gzip
import json
from pathlib import Path

import datasets
import huggingface_hub.constants
import pandas as pd
import pytest

from eelib.data import codexglue
from eelib.data.codexglue import HUB_NAME, HUB_REVISION, hub_records, line_completion_records
from eelib.data.corpus import codexglue_corpus, load_corpus
from eelib.errors import InputError
from eelib.profile import Data

# The head of the dataset's README on the hub, with the numbers of records below.
README = """\
---
dataset_info:
- config_name: java
  features: &features
  - name: id
    dtype: int32
  - name: code
    sequence: string
  splits:
  - {name: train, num_examples: 3}
  - {name: validation, num_examples: 2}
  - {name: test, num_examples: 1}
- config_name: python
  features: *features
  splits:
  - {name: train, num_examples: 41}
  - {name: test, num_examples: 2}
configs:
- config_name: java
  data_files:
  - split: train
    path: java/train-*
  - split: validation
    path: java/validation-*
  - split: test
    path: java/test-*
- config_name: python
  data_files:
  - split: train
    path: python/train-*
  - split: test
    path: python/test-*
---
# Dataset Card for "code_x_glue_cc_code_completion_token"
"""
SIZES = {"java": {"train": 3, "validation": 2, "test": 1}, "python": {"train": 41, "test": 2}}


def write_split(folder: Path, language: str, split: str, count: int, code: str = "code") -> None:
    """A Parquet file as on the hub: `id` (int32) and `code` (list of tokens with `<s>` and `</s>`)."""
    frame = pd.DataFrame(
        {
            "id": pd.Series(range(count), dtype="int32"),
            code: [["<s>", split, f"x{i}", "<EOL>", "</s>"] for i in range(count)],
        }
    )
    path = folder / language / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """A local copy in the hub's layout; what the loader keeps goes to the test's folder, and nothing asks the network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    copy = tmp_path / "copy"
    for language, splits in SIZES.items():
        for split, count in splits.items():
            write_split(copy, language, split, count)
    (copy / "README.md").write_text(README)
    return copy


# --- the hub's dataset ---


def data(folder: Path) -> Data:
    """A profile's data section: all files of a local copy."""
    nothing = {field.name: None for field in dataclasses.fields(Data)}
    return Data(**nothing | {"source": "hub", "path": str(folder)})


def test_hub_records_are_split_id_and_code_without_markers(hub):
    assert list(hub_records("java", str(hub))) == [
        ("train", "0", ["train", "x0", "<EOL>"]),
        ("train", "1", ["train", "x1", "<EOL>"]),
        ("train", "2", ["train", "x2", "<EOL>"]),
        ("validation", "0", ["validation", "x0", "<EOL>"]),
        ("validation", "1", ["validation", "x1", "<EOL>"]),
        ("test", "0", ["test", "x0", "<EOL>"]),
    ]


def test_a_corpus_keeps_the_hubs_splits(hub):
    files = load_corpus(data(hub), "java")
    assert [(file.split, file.id) for file in files] == [
        *[("train", f"train:{i}") for i in range(3)],
        *[("validation", f"validation:{i}") for i in range(2)],
        ("test", "test:0"),
    ]


def test_without_a_validation_split_every_20th_training_file_becomes_it(hub):
    files = load_corpus(data(hub), "python")
    by_split = {split: [file.id for file in files if file.split == split] for split in ("train", "test")}
    assert [file.id for file in files if file.split == "validation"] == ["train:0", "train:20", "train:40"]
    assert by_split["train"] == [f"train:{i}" for i in range(41) if i % 20]
    assert by_split["test"] == ["test:0", "test:1"]


def test_a_changed_copy_is_read_anew(hub):
    list(hub_records("java", str(hub)))  # `datasets` keeps what it read, and would find that again
    frame = pd.DataFrame({"id": pd.Series([9], dtype="int32"), "code": [["<s>", "new", "</s>"]]})
    frame.to_parquet(hub / "java" / "test-00000-of-00001.parquet", index=False)
    assert list(hub_records("java", str(hub)))[-1] == ("test", "9", ["new"])


def test_without_a_copy_the_pinned_revision_is_asked_for(monkeypatch):
    asked = []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        return datasets.DatasetDict(test=datasets.Dataset.from_dict({"id": [5], "code": [["<s>", "a"]]}))

    monkeypatch.setattr(codexglue, "load_dataset", load_dataset)
    assert list(hub_records("java")) == [("test", "5", ["a"])]
    assert asked == [((HUB_NAME, "java"), {"revision": HUB_REVISION})]


def test_no_network_and_nothing_cached_is_one_sentence(hub):
    with pytest.raises(InputError, match=f"'{HUB_NAME}'.*cannot be loaded.*allowed are the hub") as error:
        list(hub_records("java"))
    assert "\n" not in str(error.value)


def test_a_wrong_copy_is_one_sentence(hub, tmp_path):
    with pytest.raises(InputError, match=r"data\.path is '.*nowhere': allowed is the folder"):
        list(hub_records("java", str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match="cobol"):
        list(hub_records("cobol", str(hub)))
    (hub / "java" / "test-00000-of-00001.parquet").write_text("no Parquet")
    with pytest.raises(InputError, match="'.*copy' .java. cannot be loaded .*Parquet") as error:
        list(hub_records("java", str(hub)))
    assert "\n" not in str(error.value)
    for split, count in SIZES["java"].items():
        write_split(hub, "java", split, count, code="tokens")
    (hub / "README.md").write_text(README.replace("name: code", "name: tokens"))
    with pytest.raises(InputError, match="lacks the field 'code' in split train"):
        list(hub_records("java", str(hub)))


# --- line-completion files ---


def record(identifier: int, code: str, following: str) -> str:
    return json.dumps({"id": identifier, "input": code, "gt": following}) + "\n"


def test_plain_and_compressed_files_give_input_and_line(tmp_path):
    (tmp_path / "java_test.jsonl").write_text(record(3, "<s> int x ; if (", "x ) {"), encoding="utf-8")
    with gzip.open(tmp_path / "java_train.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(record(1, "<s> é", ";") + record(2, "<s> b", "; </s>"))
    (tmp_path / "python_test.jsonl").write_text(record(4, "<s> pass", ""))
    assert list(line_completion_records("java", tmp_path)) == [
        ("test", "3", ["int", "x", ";", "if", "(", "x", ")", "{"]),
        ("train", "1", ["é", ";"]),
        ("train", "2", ["b", ";"]),
    ]
    assert list(line_completion_records("python", tmp_path)) == [("test", "4", ["pass"])]


def test_the_development_split_is_the_validation_split(tmp_path):
    for split in ("train", "dev", "test"):
        (tmp_path / f"java_{split}.jsonl").write_text(record(1, "<s> a", ";"))
    files = codexglue_corpus("java", line_completion_records("java", tmp_path))
    assert [file.split for file in files] == ["train", "validation", "test"]


GOOD = record(0, "<s> a", "b")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (GOOD + "{oops}\n", "java_train.jsonl, line 2: not JSON"),
        (GOOD + GOOD + "\n", "java_train.jsonl, line 3: not JSON"),
        ('{"id": 1, "input": "a"}\n', "java_train.jsonl, line 1: the field 'gt' is missing"),
        ('{"input": "a", "gt": "b"}\n', "java_train.jsonl, line 1: the field 'id' is missing"),
        (GOOD + '{"id": 1, "gt": "b"}\n', "java_train.jsonl, line 2: the field 'input' is missing"),
        (GOOD + "5\n", "java_train.jsonl, line 2: the field 'id' is missing"),
        (GOOD.encode() + b"\xff\n", "java_train.jsonl cannot be read as text in UTF-8"),
    ],
)
def test_a_wrong_line_is_named_with_file_and_number(tmp_path, content, sentence):
    (tmp_path / "java_train.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        list(line_completion_records("java", tmp_path))
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(InputError, match=f"The folder {tmp_path} has no java_<split>.jsonl"):
        list(line_completion_records("java", tmp_path))
    with pytest.raises(InputError, match="nowhere has no python_<split>.jsonl"):
        list(line_completion_records("python", tmp_path / "nowhere"))
    compressed = gzip.compress((GOOD * 100).encode())
    (tmp_path / "java_train.jsonl.gz").write_bytes(compressed[:-20])
    with pytest.raises(InputError, match=r"java_train\.jsonl\.gz cannot be read"):
        list(line_completion_records("java", tmp_path))
    (tmp_path / "java_train.jsonl.gz").write_bytes(compressed)
    (tmp_path / "java_train.jsonl").write_text(GOOD)
    with pytest.raises(InputError, match=r"java_train\.jsonl and java_train\.jsonl\.gz are the same split"):
        list(line_completion_records("java", tmp_path))
    (tmp_path / "python_tests.jsonl").write_text(GOOD)
    with pytest.raises(InputError, match=r"python_tests\.jsonl names the split 'tests': allowed are train"):
        list(line_completion_records("python", tmp_path))
