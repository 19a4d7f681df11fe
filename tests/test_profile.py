"""Profiles: the four that are shipped, overrides, and one sentence for anything wrong."""

import dataclasses
import re
from dataclasses import replace

import pytest
import yaml

from eelib import paths
from eelib.errors import InputError
from eelib.models.pico import POSITIONS
from eelib.profile import load_profile, parse_settings, profile_names, setting_names, variant_name
from eelib.report import thesis_numbers

THESIS_THRESHOLDS = [0.6, 0.8, 0.9, 0.91, 0.92, 0.94]
THESIS_FRACTIONS = [0.2, 0.3, 0.5, 0.6]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes the ci profile, changed, as the only profile `mine`."""
    text = (paths.PROFILES / "ci.yaml").read_text()
    monkeypatch.setattr(paths, "PROFILES", tmp_path)

    def write_profile(old: str = "", new: str = "", **sections) -> None:
        assert old in text
        values = yaml.safe_load(text.replace(old, new, 1)) | sections
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))

    return write_profile


# --- the shipped profiles ---


def test_the_name_of_many_overrides_fits_a_file_system():
    many = {f"section.field_{i}": "1" for i in range(40)}
    name = variant_name("laptop", many)
    assert len(name) < 200 and name != variant_name("laptop", many | {"section.field_39": "2"})
    assert variant_name("laptop", {"threshold": "0.9"}) == "laptop+threshold=0.9"


def test_there_are_five_profiles():
    assert profile_names() == ["ci", "gpu", "laptop", "paper", "smollm"]
    for name in profile_names():
        assert load_profile(name).name == name


@pytest.mark.parametrize("name", ["ci", "laptop", "gpu"])
def test_without_a_hub_contexts_fit_the_pico_models(name):
    profile = load_profile(name)
    assert profile.data.source == "shipped"
    assert profile.context.max_tokens + profile.context.new_tokens <= POSITIONS
    assert profile.fine_tuning.sequence_length <= POSITIONS


@pytest.mark.parametrize("name", ["laptop", "smollm", "gpu", "paper"])
def test_the_thesis_is_swept(name):
    evaluation = load_profile(name).evaluation
    if name == "laptop":  # half an hour: some of them
        assert set(evaluation.thresholds) < set(THESIS_THRESHOLDS) and len(evaluation.thresholds) == 3
    else:
        assert evaluation.thresholds == THESIS_THRESHOLDS
    # A laptop has no time for all four contexts and keeps the two ends.
    ends = [THESIS_FRACTIONS[0], THESIS_FRACTIONS[-1]]
    assert evaluation.context_fractions == (ends if name == "laptop" else THESIS_FRACTIONS)
    assert evaluation.timed_fractions == (ends[:1] if name == "laptop" else THESIS_FRACTIONS)


def test_some_context_is_timed():
    override = {"evaluation.untimed_fractions": "[0.2, 0.3, 0.5, 0.6]"}
    with pytest.raises(InputError, match="leaves no context fraction to time"):
        load_profile("laptop", override)
    assert load_profile("laptop", {"evaluation.context_fractions": "0.4"}).evaluation.timed_fractions == [0.4]


def test_paper_has_the_thesis_setting():
    paper = load_profile("paper")
    assert paper.models == ["facebook/opt-2.7b", "meta-llama/Llama-3.2-3B"]
    assert (paper.data.source, paper.data.path) == ("hub", None)
    assert (paper.context.max_tokens, paper.context.new_tokens) == (512, 15)
    assert paper.evaluation.samples == 1000


def printed(table: str, names: dict[str, str]) -> dict:
    """The first value of some hyperparameters of a table of the thesis, by our names."""
    values = thesis_numbers.load(table).set_index("hyperparameter")["value"]
    first = {ours: values[theirs].split(",")[0] for ours, theirs in names.items()}
    return {ours: yaml.safe_load(text.replace("e-", ".0e-")) for ours, text in first.items()}


def test_paper_fine_tunes_as_table_6_5():
    names = {
        "batch_size": "batch_size",
        "gradient_accumulation_steps": "gradient_accumulation_steps",
        "sequence_length": "max_seq_length",
        "learning_rate": "learning_rate",
        "adam_beta2": "AdamW beta_2",
        "weight_decay": "weight_decay",
        "max_gradient_norm": "max_gradient_norm",
        "lr_scheduler_type": "lr_scheduler_type",
    }
    table = printed("table_6_5", names)
    assert table["learning_rate"] == 1e-5
    paper = dataclasses.asdict(load_profile("paper").fine_tuning)
    assert table.items() <= paper.items()
    assert paper["decay"] == 0.9 and paper["warmup_steps"] == 0  # Eq. 4.3; a constant rate


@pytest.mark.parametrize("name", ["gpu", "paper"])
def test_agents_are_trained_as_table_6_6(name):
    names = {
        "steps": "steps",
        "batch_size": "batch_size",
        "buffer": "Buffer Size",
        "epochs": "Epochs",
        "learning_rate": "learning_rate",
        "gamma": "gamma",
        "hidden_layers": "Number of hidden layers",
    }
    table = printed("table_6_6", names)
    assert (table["steps"], table["learning_rate"]) == (500_000, 5e-5)
    profile = dataclasses.asdict(load_profile(name).reinforcement)
    assert table.items() <= profile.items()
    assert profile["hidden_units"] == 64  # the second of "32, 64"
    assert (profile["beta_java"], profile["beta_python"]) == (1.0, 0.5)  # Section 6.3
    assert profile["entropy_coefficient"] == profile["observation_noise"] == 0.0  # ours, of the laptop


def test_gpu_is_the_laptops_study_with_larger_numbers():
    laptop, gpu = load_profile("laptop"), load_profile("gpu")
    assert (gpu.models, gpu.data.source) == (laptop.models, laptop.data.source)
    assert gpu.context.max_tokens > laptop.context.max_tokens
    assert gpu.reinforcement.steps == 500_000 and gpu.reinforcement.seeds == 5
    assert gpu.fine_tuning.steps > laptop.fine_tuning.steps
    assert gpu.evaluation.samples > laptop.evaluation.samples


# --- overrides ---


def test_settings_are_words_of_name_and_value():
    assert parse_settings("") == {}
    assert parse_settings(" evaluation.samples=50  data.path=a=b ") == {
        "evaluation.samples": "50",
        "data.path": "a=b",
    }
    assert parse_settings("'evaluation.thresholds=[0.5, 0.9]' models=x") == {
        "evaluation.thresholds": "[0.5, 0.9]",
        "models": "x",
    }
    with pytest.raises(InputError, match="a quotation mark without its partner"):
        parse_settings("data.path='a b")
    for wrong in ("samples", "=5", "evaluation.samples =5"):
        with pytest.raises(InputError, match="is not of the form name=value"):
            parse_settings(wrong)


def test_an_override_changes_its_field_alone():
    plain, changed = load_profile("ci"), load_profile("ci", {"evaluation.samples": "50"})
    assert changed.evaluation.samples == 50
    evaluation = dataclasses.replace(plain.evaluation, samples=50)
    assert changed == dataclasses.replace(plain, evaluation=evaluation)
    assert load_profile("ci") == plain


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("evaluation.thresholds", "[0.5,0.75]", [0.5, 0.75]),
        ("evaluation.thresholds", "[0.5, 0.75]", [0.5, 0.75]),
        ("evaluation.thresholds", "0.5,1", [0.5, 1.0]),
        ("evaluation.thresholds", "0", [0.0]),
        ("evaluation.context_fractions", "0.4", [0.4]),
        ("models", "smollm2-135m,opt-pico", ["smollm2-135m", "opt-pico"]),
        ("models", "facebook/opt-125m", ["facebook/opt-125m"]),
        ("languages", "python", ["python"]),
        ("threads", "null", None),
        ("data.train_files", "7", 7),
        ("data.path", "some/folder", "some/folder"),
        ("fine_tuning.bf16", "false", False),
        ("fine_tuning.learning_rate", "1e-5", 1e-5),  # text to YAML
        ("fine_tuning.max_gradient_norm", "2", 2.0),
    ],
)
def test_values_of_overrides(name, text, value):
    found = load_profile("ci", {name: text})
    for part in name.split("."):
        found = getattr(found, part)
    assert found == value and type(found) is type(value)


def test_every_setting_can_be_overridden():
    names = setting_names()
    assert "evaluation.samples" in names and "models" in names
    assert not {"name", "description", "data", "evaluation", "per_model"} & set(names)
    plain = load_profile("ci")
    for name in names:
        value = plain
        for part in name.split("."):
            value = getattr(value, part)
        assert load_profile("ci", {name: yaml.safe_dump(value, default_flow_style=True)}) == plain


def test_a_model_has_counts_for_itself_unless_others_are_asked_for(write):
    own = {"opt-random": {"evaluation.samples": 9, "fixed_exits.timing_samples": 3}}
    write(per_model=own)
    profile = load_profile("mine")
    of_it, of_other = profile.of("opt-random"), profile.of("llama-random")
    assert (of_it.evaluation.samples, of_it.fixed_exits.timing_samples) == (9, 3)
    assert of_other == profile and of_other.evaluation.samples != 9
    assert replace(of_it, evaluation=profile.evaluation, fixed_exits=profile.fixed_exits) == profile
    asked = load_profile("mine", {"evaluation.samples": "2"})
    assert asked.of("opt-random").evaluation.samples == 2
    assert asked.of("opt-random").fixed_exits.timing_samples == 3


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            {"m": {"evaluation.thresholds": 1}},
            "The setting of m in per_model is 'evaluation.thresholds': allowed are ",
        ),
        (
            {"m": {"evaluation.samples": "many"}},
            "per_model.m.evaluation.samples is 'many': allowed is a whole number.",
        ),
        ({"m": {"evaluation.samples": 0}}, "evaluation.samples is 0: allowed are values from 1."),
        ({"m": 5}, "per_model.m is 5: allowed is a mapping."),
    ],
)
def test_counts_of_a_model_are_checked(write, own, message):
    write(per_model=own)
    with pytest.raises(InputError, match=re.escape(message)):
        load_profile("mine")


# --- anything wrong is one sentence ---


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            "evaluation.sample=5",
            "There is no setting 'evaluation.sample': allowed are models, languages, dtype,",
        ),
        ("evaluation=5", "There is no setting 'evaluation': allowed are models,"),
        ("name=me", "There is no setting 'name': allowed are models,"),
        (
            "evaluation.samples=many",
            "In the settings, evaluation.samples is 'many': allowed is a whole number.",
        ),
        ("evaluation.samples=1.5", "In the settings, evaluation.samples is 1.5: allowed is a whole number."),
        (
            "evaluation.samples=true",
            "In the settings, evaluation.samples is True: allowed is a whole number.",
        ),
        (
            "evaluation.samples=null",
            "In the settings, evaluation.samples is None: allowed is a whole number.",
        ),
        (
            "evaluation.temperature=hot",
            "In the settings, evaluation.temperature is 'hot': allowed is a number.",
        ),
        (
            "evaluation.thresholds=0.5,x",
            "In the settings, evaluation.thresholds is 'x': allowed is a number.",
        ),
        ("fine_tuning.bf16=1", "In the settings, fine_tuning.bf16 is 1: allowed is true or false."),
        ("data.path=5", "In the settings, data.path is 5: allowed is text."),
        ("evaluation.samples=[", "The value of evaluation.samples is '[', which is not a YAML value."),
        ("evaluation.samples=0", "evaluation.samples is 0: allowed are values from 1."),
        ("data.test_files=0", "data.test_files is 0: allowed are values from 1."),
        ("threads=-1", "threads is -1: allowed are values from 1."),
        ("fine_tuning.seed=-1", "fine_tuning.seed is -1: allowed are values from 0."),
        ("evaluation.thresholds=1.5", "The threshold is 1.5: allowed are probabilities from 0 to 1."),
        ("evaluation.thresholds=0.5,-0.1", "The threshold is -0.1: allowed are probabilities from 0 to 1."),
        ("evaluation.thresholds=.nan", "The threshold is nan: allowed are probabilities from 0 to 1."),
        (
            "evaluation.context_fractions=1",
            "The context fraction is 1.0: allowed are fractions between 0 and 1, both excluded.",
        ),
        (
            "fixed_exits.context_fraction=0",
            "The context fraction is 0.0: allowed are fractions between 0 and 1, both excluded.",
        ),
        ("evaluation.thresholds=[]", "evaluation.thresholds is empty: at least one is needed."),
        ("languages=[]", "languages is empty: at least one is needed."),
        ("languages=cobol", "The language is 'cobol': allowed are java, python."),
        ("dtype=int8", "The dtype is 'int8': allowed are float32, bfloat16, float16."),
        ("data.source=web", "The data source is 'web': allowed are shipped, hub, line-completion."),
        (
            "fine_tuning.lr_scheduler_type=steep",
            "The learning-rate schedule is 'steep': allowed are constant, constant_with_warmup, linear, cosine.",
        ),
        (
            "fine_tuning.learning_rate=0",
            "fine_tuning.learning_rate is 0.0: allowed are values above 0, at most 1.",
        ),
        ("reinforcement.epsilon=2", "reinforcement.epsilon is 2.0: allowed are values from 0 to 1."),
        (
            "reinforcement.alpha=0.6",
            "reinforcement.alpha is 0.6, more than beta_python = 0.5: leaving late may not cost more than leaving early.",
        ),
        (
            "reinforcement.buffer=127",
            "reinforcement.buffer is 127: allowed are multiples of the 2 environments.",
        ),
    ],
)
def test_a_wrong_setting(setting, sentence):
    with pytest.raises(InputError) as error:
        load_profile("ci", parse_settings(setting))
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_an_unknown_profile():
    with pytest.raises(InputError) as error:
        load_profile("desktop")
    assert str(error.value) == "There is no profile 'desktop': allowed are ci, gpu, laptop, paper, smollm."


def test_a_profile_has_exactly_its_fields(write, tmp_path):
    write()
    assert load_profile("mine").evaluation == load_profile("mine", {"evaluation.samples": "4"}).evaluation
    write(old="  samples: 4", new="  sample: 4")
    with pytest.raises(
        InputError, match=r"mine\.yaml, fixed_exits\.sample is unknown: allowed are samples, "
    ):
        load_profile("mine")
    write(old="dtype: float32\n", new="")
    with pytest.raises(InputError, match=r"mine\.yaml, dtype is missing"):
        load_profile("mine")
    write(old="new_tokens: 4", new="new_tokens: four")
    with pytest.raises(
        InputError, match=r"mine\.yaml, context\.new_tokens is 'four': allowed is a whole number"
    ):
        load_profile("mine")
    write(context=5)
    with pytest.raises(
        InputError, match=r"mine\.yaml, context is 5: allowed are the fields max_tokens, new_tokens"
    ):
        load_profile("mine", {"context.new_tokens": "4"})
    (tmp_path / "mine.yaml").write_text("models: [a\nb: {")
    with pytest.raises(InputError, match=r"mine\.yaml is not YAML") as error:
        load_profile("mine")
    assert "\n" not in str(error.value)
    (tmp_path / "mine.yaml").write_text("")
    with pytest.raises(InputError, match=r"mine\.yaml, the whole is None: allowed are the fields name"):
        load_profile("mine")
