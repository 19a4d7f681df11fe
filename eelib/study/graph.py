"""The study's nodes: what is made, by which function, from what, and which profile fields decide it. The map of the study.

`./run_all.sh --graph` prints it (`described.py`). How a node's function gets its arguments is said in `node.py`.
"""

from eelib.data import corpus
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
from eelib.rl import trained
from eelib.study import conditions, loads
from eelib.study.node import Input, Node
from eelib.systems import fitted, judged
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
FITTED = {"settings": Input("fitted_systems")}
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


_NODES = [
    Node(
        "corpus",
        "01",
        corpus.keep_corpus,
        ("language",),
        fields=("data",),
        given=conditions.content,
        load=loads.corpus,
    ),
    # --- 02: fine-tuning ---
    Node(
        "model",
        "02",
        finetune.train,
        (*SETTING, "kind"),
        CORPUS,
        ("fine_tuning",),
        given=conditions.trained_from,
        ready=conditions.there_already,
        take=tuned.take,
        load=loads.model,
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
        given=conditions.watched_from,
        where=conditions.is_studied,
    ),
    Node(
        "epoch_predictions",
        "02",
        predict.epoch_predictions,
        (*SETTING, "step"),
        CORPUS | {"tuned": Input("epoch_tuning", unread=True)},
        ("epoch_study", "context", "dtype"),
        where=conditions.is_studied,
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
        load=loads.rollouts,
    ),
    Node(
        "prefixes",
        "04",
        trained.keep_prefixes,
        SETTING,
        CORPUS | TUNED,
        ("reinforcement.prefix_windows", "reinforcement.states_dtype", "context"),
        load=loads.rollouts,
    ),
    Node(
        "agent",
        "04",
        trained.train,
        (*SETTING, "seed"),
        LEARNT | TUNED,
        (PPO,),
        load=loads.agent,
    ),
    Node(
        "probe",
        "04",
        trained.fit_probe,
        (*SETTING, "seed"),
        LEARNT | CHOSEN | TUNED,
        ("reinforcement.probe_steps",),
        load=loads.agent,
    ),
    Node(
        "stopping",
        "04",
        stopping.fit_stopping,
        (*SETTING, "seed"),
        LEARNT | CHOSEN | TUNED,
        ("context.max_tokens", "reinforcement.stopping_steps"),
        load=loads.agent,
    ),
    Node(
        "probe_data",
        "04",
        probe_data.probe_data,
        SETTING,
        LEARNT | CHOSEN | UNSEEN | {"probe": Input("probe", at={"seed": 0})},
        ("context.max_tokens", "reinforcement.probe_steps"),
        where=conditions.is_first,
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
        ("model",),
        {
            "unseen": Input("rollouts", at={"split": "test"}, over="language"),
            "policies": Input("stopping", at={"seed": 0}, over="language"),
        },
        where=conditions.is_of_all_languages,
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
        where=conditions.is_first,
        dataset="reward_audit",
    ),
    Node(
        "variant",
        "04",
        variants.variant,
        (*SETTING, "variant"),
        LEARNT | UNSEEN | {"tuned": Input("model", at={"kind": "aggregated"}, unread=True)},
        (PPO, "evaluation.temperature", "dtype"),
        where=conditions.is_first,
        dataset="variants",
    ),
    Node(
        "observation_cost",
        "04",
        observations.observation_cost,
        SETTING,
        TUNED,
        ("evaluation.decisions", "context.max_tokens"),
        where=conditions.is_first_language,
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
        where=conditions.is_timed,
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
        where=conditions.is_timed,
        dataset="predictions",
    ),
    # --- 08: other systems ---
    Node(
        "fitted_systems",
        "08",
        fitted.fit_systems,
        SETTING,
        CORPUS | TUNED | LEARNT | RIVALS,
        ("reinforcement.prefix_windows", "reinforcement.probe_steps", "context"),
        where=conditions.is_last,
        load=loads.settings,
    ),
    Node(
        "systems",
        "08",
        judged.systems,
        SETTING,
        FITTED | UNSEEN,
        ("context.max_tokens",),
        where=conditions.is_last,
        dataset="systems",
    ),
    Node(
        "system_curves",
        "08",
        judged.system_curves,
        SETTING,
        FITTED | UNSEEN,
        ("context.max_tokens",),
        where=conditions.is_last,
        dataset="system_curves",
    ),
    Node(
        "speculation",
        "08",
        judged.speculated,
        SETTING,
        CHOSEN | UNSEEN,
        ("context.max_tokens",),
        where=conditions.is_last,
        dataset="speculation",
    ),
    Node(
        "stopped",
        "08",
        judged.stopped,
        SETTING,
        {"folder_of_systems": Input("fitted_systems", unread=True)},
        where=conditions.is_last,
        dataset="stopped",
    ),
]
NODES = {node.name: node for node in _NODES}
