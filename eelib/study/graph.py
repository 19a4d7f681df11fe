"""The study's nodes: what is made, by which function, from what, and which profile fields decide it. The map of the study.

`./run_all.sh --graph` prints it. How a node's function gets its arguments is said in `node.py`.
"""

from pathlib import Path

from eelib.data import corpus
from eelib.data.shipped import shipped_hash
from eelib.decoding.policy import ExitPolicy
from eelib.evaluation import (
    equal_cost,
    layers,
    observations,
    offline,
    overhead,
    predict,
    probe_data,
    promises,
    reward_audit,
    stopping,
    timed,
    variants,
)
from eelib.models.loading import CodeModel, fingerprint
from eelib.profile import Profile
from eelib.provenance import folder_hash
from eelib.rl import trained
from eelib.rl.rollouts import load_rollouts
from eelib.study.node import Input, Node, Place
from eelib.study.notebooks import notebooks
from eelib.training import finetune, tuned
from eelib.training.callbacks import snapshot_steps

# What the values of an axis are.
AXES = {
    "model": lambda profile: profile.models,
    "language": lambda profile: profile.languages,
    "kind": lambda profile: list(tuned.KINDS),
    "split": lambda profile: ["train", "validation", "test"],
    "seed": lambda profile: list(range(profile.reinforcement.seeds)),
    "context_fraction": lambda profile: profile.evaluation.context_fractions,
    "threshold": lambda profile: profile.evaluation.thresholds,
    "step": lambda profile: [0, *snapshot_steps(profile.fine_tuning.steps, profile.epoch_study.snapshots)],
    "variant": lambda profile: list(variants.VARIANTS),
}
SETTING = ("model", "language")
CORPUS = {"corpus": Input("corpus")}
TUNED = {"tuned": Input("model", at={"kind": "aggregated"})}
FIRST_AGENT = {"agent": Input("agent", at={"seed": 0})}
LEARNT = {"rollouts": Input("rollouts", at={"split": "train"}), "prefixes": Input("prefixes")}
CHOSEN = {"chosen": Input("rollouts", at={"split": "validation"})}
UNSEEN = {"unseen": Input("rollouts", at={"split": "test"})}
RIVALS = {
    **CHOSEN,
    **UNSEEN,
    "agents": Input("agent", over="seed"),
    "probes": Input("probe", over="seed"),
    "stopping": Input("stopping", over="seed"),
}
DECODED = ("context", "evaluation.samples")
TIMED = ("context", "evaluation.timing_samples", "evaluation.timing_repeats")
DECIDED = ("evaluation.thresholds", "evaluation.temperature")
FIXED = ("context", "fixed_exits.context_fraction")
# A single agent's training depends on no other field.
PPO = "reinforcement without seeds train_prompts validation_prompts test_prompts prefix_windows probe_steps stopping_steps states_dtype"


def _content(profile: Profile, place: Place) -> dict:
    """What a corpus is read from."""
    data = profile.data
    if data.source == "shipped":
        return {"content": shipped_hash(place["language"])}
    return {"content": folder_hash(Path(data.path)) if data.path else "the hub's pinned revision"}


def _studied(profile: Profile, place: Place) -> bool:
    """Whether a place is of the model and language whose layers are studied over the steps of a fine-tuning."""
    return (place["model"], place["language"]) == (profile.epoch_study.model, profile.epoch_study.language)


def _trained_from(profile: Profile, place: Place) -> dict:
    """What a fine-tuning starts from; it keeps the finished model alone."""
    return {"fingerprint": fingerprint(place["model"]), "snapshots": 1}


def _watched_from(profile: Profile, place: Place) -> dict:
    """The same for the fine-tuning whose steps are studied: always one of this run, since what ships has no snapshots."""
    return {"fingerprint": fingerprint(place["model"]), "kind": "aggregated"}


def _there_already(profile: Profile, place: Place) -> dict | None:
    return tuned.there_already(place["model"], place["kind"], profile.fine_tuning.shipped)


def _is_timed(profile: Profile, place: Place) -> bool:
    return place["context_fraction"] in profile.evaluation.timed_fractions


def _is_of_all_languages(profile: Profile, place: Place) -> bool:
    """Whether one fine-tuned model is that of all languages, of which there are several."""
    ready = tuned.there_already(place["model"], "aggregated", profile.fine_tuning.shipped)
    return ready is not None and len(profile.languages) > 1


def _is_first(profile: Profile, place: Place) -> bool:
    """Whether a place is of the first setting."""
    return place["model"] == profile.models[0] and _is_first_language(profile, place)


def _is_first_language(profile: Profile, place: Place) -> bool:
    return place["language"] == profile.languages[0]


def _load_corpus(folder: Path, profile: Profile) -> list[corpus.CodeFile]:
    return corpus.read_corpus(folder / "corpus.parquet")


def _load_model(folder: Path, profile: Profile) -> CodeModel:
    return tuned.load_tuned(folder, profile.dtype)


def _load_rollouts(folder: Path, profile: Profile) -> object:
    return load_rollouts(folder)


def _load_agent(folder: Path, profile: Profile) -> ExitPolicy:
    return trained.load_agent(folder)


_NODES = [
    Node(
        "corpus", "01", corpus.keep_corpus, ("language",), fields=("data",), given=_content, load=_load_corpus
    ),
    # --- 02: fine-tuning ---
    Node(
        "model",
        "02",
        finetune.train,
        (*SETTING, "kind"),
        CORPUS,
        ("fine_tuning",),
        given=_trained_from,
        ready=_there_already,
        take=tuned.take,
        load=_load_model,
        loaded_by=("dtype",),
    ),
    Node(
        "validation_losses",
        "02",
        tuned.validation_losses,
        (*SETTING, "kind"),
        CORPUS | {"tuned": Input("model")},
        ("fine_tuning.sequence_length", "fine_tuning.exit_positions"),
        dataset="validation_losses",
    ),
    Node(
        "epoch_tuning",
        "02",
        finetune.train,
        SETTING,
        CORPUS,
        ("fine_tuning", "epoch_study.snapshots"),
        given=_watched_from,
        where=_studied,
    ),
    Node(
        "epoch_predictions",
        "02",
        predict.epoch_predictions,
        (*SETTING, "step"),
        CORPUS | {"tuned": Input("epoch_tuning", unread=True)},
        ("epoch_study", "context", "dtype"),
        where=_studied,
        dataset="predictions",
    ),
    # --- 03: fixed exits ---
    Node(
        "layer_accuracy",
        "03",
        layers.layer_accuracy,
        (*SETTING, "kind"),
        CORPUS | {"tuned": Input("model")},
        (*FIXED, "fixed_exits.samples"),
        dataset="layers",
    ),
    Node(
        "fixed_exit_predictions",
        "03",
        predict.fixed_exit_predictions,
        SETTING,
        CORPUS | TUNED,
        (*FIXED, "fixed_exits.samples"),
        dataset="predictions",
    ),
    Node(
        "fixed_exit_timings",
        "03",
        timed.fixed_exit_timings,
        SETTING,
        CORPUS | TUNED,
        (*FIXED, "fixed_exits.timing_samples"),
        timed=True,
        dataset="timings",
    ),
    # --- 04: agents ---
    Node(
        "rollouts",
        "04",
        trained.record_rollouts,
        (*SETTING, "split"),
        CORPUS | TUNED,
        ("prompts=reinforcement.{split}_prompts", "reinforcement.states_dtype", "context"),
        load=_load_rollouts,
    ),
    Node(
        "prefixes",
        "04",
        trained.keep_prefixes,
        SETTING,
        CORPUS | TUNED,
        ("reinforcement.prefix_windows", "reinforcement.states_dtype", "context"),
        load=_load_rollouts,
    ),
    Node(
        "agent",
        "04",
        trained.train,
        (*SETTING, "seed"),
        LEARNT | TUNED,
        (PPO,),
        load=_load_agent,
    ),
    Node(
        "probe",
        "04",
        trained.fit_probe,
        (*SETTING, "seed"),
        LEARNT | CHOSEN | TUNED,
        ("reinforcement.probe_steps",),
        load=_load_agent,
    ),
    Node(
        "stopping",
        "04",
        stopping.fit_stopping,
        (*SETTING, "seed"),
        LEARNT | CHOSEN | TUNED,
        ("context.max_tokens", "reinforcement.stopping_steps"),
        load=_load_agent,
    ),
    Node(
        "probe_data",
        "04",
        probe_data.probe_data,
        SETTING,
        LEARNT | CHOSEN | UNSEEN | {"probe": Input("probe", at={"seed": 0})},
        ("context.max_tokens", "reinforcement.probe_steps"),
        where=_is_first,
        dataset="probe_data",
    ),
    Node(
        "equal_cost",
        "04",
        equal_cost.equal_cost,
        SETTING,
        RIVALS,
        ("context.max_tokens",),
        dataset="equal_cost",
    ),
    Node(
        "cost_curves",
        "04",
        equal_cost.cost_curves,
        SETTING,
        RIVALS,
        ("context.max_tokens",),
        dataset="cost_curves",
    ),
    Node(
        "promises",
        "04",
        promises.promises,
        SETTING,
        UNSEEN | {"policy": Input("stopping", at={"seed": 0})},
        dataset="promises",
    ),
    Node(
        "promises_across",
        "04",
        promises.promises_across,
        SETTING,
        {
            "unseen": Input("rollouts", at={"split": "test"}, over="language"),
            "policy": Input("stopping", at={"seed": 0}),
        },
        where=_is_of_all_languages,
        dataset="promises_across",
    ),
    Node(
        "recovered",
        "04",
        offline.recovered,
        SETTING,
        {"rollouts": Input("rollouts", at={"split": "test"}), "agents": Input("agent", over="seed")},
        DECIDED,
        dataset="agents",
    ),
    Node(
        "reward_audit",
        "04",
        reward_audit.reward_audit,
        SETTING,
        LEARNT | CHOSEN | UNSEEN | TUNED,
        ("context.max_tokens", "reinforcement"),
        where=_is_first,
        dataset="reward_audit",
    ),
    Node(
        "variant",
        "04",
        variants.variant,
        (*SETTING, "variant"),
        LEARNT | UNSEEN | {"tuned": Input("model", at={"kind": "aggregated"}, unread=True)},
        (PPO, "evaluation.temperature", "dtype"),
        where=_is_first,
        dataset="variants",
    ),
    Node(
        "observation_cost",
        "04",
        observations.observation_cost,
        SETTING,
        TUNED,
        ("evaluation.decisions", "context.max_tokens"),
        where=_is_first_language,
        timed=True,
        dataset="decisions",
    ),
    # --- 05: evaluation ---
    Node(
        "full_predictions",
        "05",
        predict.full_predictions,
        (*SETTING, "context_fraction", "kind"),
        CORPUS | {"tuned": Input("model")},
        DECODED,
        dataset="predictions",
    ),
    Node(
        "agent_predictions",
        "05",
        predict.agent_predictions,
        (*SETTING, "context_fraction", "threshold"),
        CORPUS | TUNED | {"agents": Input("agent", over="seed")},
        (*DECODED, "evaluation.temperature"),
        together="threshold",
        dataset="predictions",
    ),
    Node(
        "timings",
        "05",
        timed.setting_timings,
        (*SETTING, "context_fraction"),
        CORPUS | TUNED | FIRST_AGENT | {"base": Input("model", at={"kind": "base"})},
        (*TIMED, *DECIDED),
        where=_is_timed,
        timed=True,
        dataset="timings",
    ),
    # --- 06: overhead ---
    Node(
        "decision_cost",
        "06",
        overhead.decision_cost,
        SETTING,
        TUNED | FIRST_AGENT,
        ("evaluation.decisions",),
        timed=True,
        dataset="decisions",
    ),
    # --- 07: caches ---
    Node(
        "cached_predictions",
        "07",
        predict.cached_predictions,
        (*SETTING, "context_fraction"),
        CORPUS | TUNED | FIRST_AGENT,
        (*DECODED, *DECIDED),
        where=_is_timed,
        dataset="predictions",
    ),
]
NODES = {node.name: node for node in _NODES}


def described() -> str:
    """The graph as text: a paragraph a node."""
    paragraphs = []
    for node in NODES.values():
        function = f"{node.function.__module__}.{node.function.__name__}"
        sources = {
            name: source.node
            + "".join(f", {axis} {value}" for axis, value in source.at.items())
            + (f", every {source.over}" if source.over else "")
            for name, source in node.inputs.items()
        }
        lines = [
            f"{node.name}  (notebook {node.notebook}{', timed' if node.timed else ''})",
            f"  by    {function}",
            f"  for   every {', '.join(node.axes)}",
            *[f"  from  {name}: {source}" for name, source in sources.items()],
            *([f"  by profile fields  {', '.join(node.fields)}"] if node.fields else []),
        ]
        paragraphs.append("\n".join(line for line in lines if line.strip()))
    return "\n\n".join(paragraphs)


def drawn() -> str:
    """The graph as a Mermaid diagram, a box a notebook."""
    lines = ["flowchart LR"]
    for number, notebook in notebooks().items():
        of_it = [node.name for node in NODES.values() if node.notebook == number]
        if of_it:
            lines += [f'  subgraph "{notebook.stem}"', *[f"    {name}" for name in of_it], "  end"]
    edges = {(source.node, node.name): None for node in NODES.values() for source in node.inputs.values()}
    return "\n".join([*lines, *[f"  {source} --> {name}" for source, name in edges]])
