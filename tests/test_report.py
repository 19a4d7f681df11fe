"""Figures: the right series from tidy frames, nothing clipped, the same bytes every time."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from eelib.errors import InputError
from eelib.report import (
    chapter4_corpora,
    chapter4_finetuning,
    chapter6_agent,
    chapter6_cache,
    chapter6_results,
    deployment,
    figures,
    settings,
)
from eelib.report.figures import save_figure
from eelib.report.thesis_numbers import load

STAMP = "laptop profile · commit 1a2b3c4 · inputs 9f8e7d6c"
EXIT_POINTS = {
    "llama-pico": [4, 6, 8, 10, 12, 14, 18, 22, 26],
    "opt-pico": [4, 6, 8, 10, 12, 14, 16, 20, 24, 28],
}
LAYERS = {"llama-pico": 28, "opt-pico": 32}
MODELS, CORPORA = list(LAYERS), ["java", "python"]
THRESHOLDS = [0.6, 0.8, 0.92]


def tidy(**values):
    """Rows of the product of models and corpora, each given the same arrays."""
    rows = [pd.DataFrame({"model": m, "language": g, **values}) for m in MODELS for g in CORPORA]
    return pd.concat(rows, ignore_index=True)


def by_layer(**functions):
    rows = [
        pd.DataFrame({"model": m, "language": g, "layer": np.arange(1, LAYERS[m] + 1)})
        for m in MODELS
        for g in CORPORA
    ]
    frame = pd.concat(rows, ignore_index=True)
    return frame.assign(**{name: function(frame["layer"]) for name, function in functions.items()})


def sweep(model="llama-pico", energy=np.nan, **more):
    labels = ["full", 0.92, "0.6", "base", 0.8]  # in no order, of both types
    cost = np.array([28.0, 20, 8, 28, 12])
    frame = pd.DataFrame({"model": model, "language": "java", "context_fraction": 0.2, "label": labels})
    scores = {name: cost / 60 + i / 50 for i, name in enumerate(figures.METRICS)}
    resources = {
        "energy_wh": cost * energy,
        "time_s": cost,
        "throughput": 200 / cost,
        "mean_layers": cost,
        "flops": cost * 1e9,
    }
    return frame.assign(**scores, **resources, chrf=cost, levenshtein=60 - cost, **more)


def fixed_exits(energy):
    frame = by_layer(
        rouge_l=lambda n: n / 60,
        codebleu=lambda n: n / 70,
        bleu=lambda n: n / 80,
        levenshtein=lambda n: 60 - n,
        time_s=lambda n: 9.0 * n,
        energy_j=lambda n: energy * n,
        flops=lambda n: 1e8 * n,
    )
    frame.loc[frame["layer"] % 2 == 1, ["time_s", "energy_j"]] = np.nan
    return frame[frame["language"] == "python"]


def accuracy_by_layer():
    frame = by_layer(accuracy=lambda n: n / 60, agreement=lambda n: n / 32)
    return pd.concat([frame.assign(kind=kind) for kind in ("base", "plain", "aggregated")])


def agent_shares(energy):
    rows = [(m, c, w, t) for m in MODELS for c, w in ((0.2, "20%"), (0.6, "50%")) for t in THRESHOLDS]
    frame = pd.DataFrame(rows, columns=["model", "context_fraction", "thesis_context", "threshold"])
    times = {"of_full_time": 0.1 * frame["threshold"], "of_exit_time": 0.2 * frame["threshold"]}
    return frame.assign(**times, of_full_energy=energy, of_exit_energy=2 * energy)


def criteria():
    rows = [
        (m, g, name, x, min(1.0, 0.5 + x / 60 + bonus))
        for m in MODELS
        for g in CORPORA
        for name, bonus in [("agent", 0.1), ("fixed", 0.0), ("my own rule", 0.05)]
        for x in (8.0, 16.0, 24.0)
    ]
    rows += [(m, g, "full", float(LAYERS[m]), 1.0) for m in MODELS for g in CORPORA]
    frame = pd.DataFrame(rows, columns=["model", "language", "criterion", "mean_layers", "agreement"])
    return frame.assign(agreement_low=frame["agreement"] - 0.02, agreement_high=frame["agreement"] + 0.02)


def draw_all():
    """Every exhibit once, from small synthetic frames."""
    tokens = [
        ".",
        "(",
        "<EOL>",
        "$x$",
        "a$b",
        "_",
        "\n",
        " ",
        "\u65e5\u672c",
        "\\frac{",
        "{",
        "AVeryLongIdentifierName",
    ]
    grid = [tokens[i:] + tokens[:i] for i in range(9)] + [tokens]
    steps = np.arange(0.0, 300, 10)
    epochs = by_layer(rouge_l=lambda n: n / 60, codebleu=lambda n: n / 70)
    epochs = epochs[(epochs["model"] == "llama-pico") & (epochs["language"] == "java")]
    rewards = np.concatenate([np.linspace(-1, 1, 200), np.linspace(-0.8, 1, 180)])
    cached = pd.concat([sweep(m, cache=c, bonus=0) for m in MODELS for c in ("none", "propagate")])
    costs = pd.DataFrame(
        {"method": ["agent", "norm + head + softmax"], "microseconds": [30.0, 400], "joules": np.nan}
    )
    return {
        "lengths": chapter4_corpora.length_distribution(tidy(tokens=[10, 400, 900, 7000]), "java"),
        "tokens": chapter4_corpora.frequent_tokens(pd.DataFrame({"token": tokens, "count": range(100, 112)}), "python"),
        "imports": chapter4_corpora.import_share(tidy(share=[0.1, 0.3])),
        "grid": chapter4_finetuning.token_grid(grid, EXIT_POINTS["llama-pico"], 28),
        "weights": chapter4_finetuning.loss_weights(
            pd.DataFrame({"model": "llama-pico", "layer": [4, 18, 28], "weight": [0.7, 0.2, 0.1], "half": ["first", "second", "last"]})
        ),
        "training": chapter4_finetuning.training_curves(tidy(step=steps, loss=4 / (1 + steps), grad_norm=1.0)),
        "epochs": chapter4_finetuning.epoch_metrics(pd.concat([epochs.assign(epoch=e) for e in [*range(1, 11), "base"]])),
        "layer_accuracy": chapter4_finetuning.layer_accuracy(accuracy_by_layer(), EXIT_POINTS),
        "fixed": chapter4_finetuning.fixed_exit_metrics(fixed_exits(energy=5.0)),
        "fixed_unmeasured": chapter4_finetuning.fixed_exit_metrics(fixed_exits(energy=np.nan)),
        "rewards": chapter6_agent.reward_curves(
            tidy(seed=[0] * 200 + [1] * 180, episode=[*range(200), *range(180)], reward=rewards)
        ),
        "optimal": chapter6_agent.optimal_exits(by_layer(decisions=lambda n: 100_000 // n, tokens=lambda n: 900 // n)),
        "exits": chapter6_agent.agent_exits(
            tidy(threshold=0.6, layer=[4, 18, 28], exits=[10_000, 0, 300], matches=[8000, 0, 300]).iloc[:6]
        ),
        "calibration": chapter6_agent.calibration(
            tidy(threshold=THRESHOLDS, early=[0.9, 0.5, np.nan], agreement_early=[0.7, 0.9, np.nan])
        ),
        "overhead": chapter6_agent.overhead(agent_shares(energy=0.1)),
        "overhead_unmeasured": chapter6_agent.overhead(agent_shares(energy=np.nan)),
        "decision": chapter6_agent.decision_cost(costs.assign(joules=[0.001, 0.02])),
        "decision_unmeasured": chapter6_agent.decision_cost(costs),
        "thresholds": chapter6_results.results_by_threshold(sweep(energy=4.0, agents=3, timed_agents=1)),
        "thresholds_beside": chapter6_results.results_by_threshold(
            sweep(rouge_l_low=0.1, rouge_l_high=0.9),
            load("raw_ctx20").query("model == 'llama-3.2-3b' and language == 'java'"),
        ),
        "chrf": chapter6_results.chrf_levenshtein(pd.concat([sweep(m) for m in MODELS])),
        "tradeoff": chapter6_results.tradeoff(criteria(), "mean_layers", "agreement"),
        "cache": chapter6_cache.kv_metrics(cached),
        "skipped": chapter6_cache.layers_skipped(
            pd.DataFrame({"model": ["llama-pico", "opt-pico"] * 2, "context_fraction": [0.2, 0.2, 0.6, 0.6], "threshold": 0.6, "skipped": 0.5})
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def drawn():
    return draw_all()


NAMES = [
    *["lengths", "tokens", "imports", "grid", "weights", "training", "epochs", "layer_accuracy", "fixed", "fixed_unmeasured"],
    *["rewards", "optimal", "exits", "calibration", "overhead", "overhead_unmeasured", "decision", "decision_unmeasured", "thresholds"],
    *["thresholds_beside", "chrf", "tradeoff", "cache", "skipped"],
]  # fmt: skip


def test_every_exhibit_is_checked(drawn):
    assert list(drawn) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_clipped_and_the_footer_stays_free(drawn, name):
    figure = drawn[name]
    box = figure.get_tightbbox()  # inches
    assert box.x0 > -0.01 and box.x1 < figure.get_figwidth() + 0.01
    assert box.y0 > figures.FOOTER - 0.02 and box.y1 < figure.get_figheight() + 0.01


def texts(figure):
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@pytest.mark.parametrize("name", ["fixed", "overhead", "decision", "thresholds"])
def test_unmeasured_energy_is_said(drawn, name):
    other = {"thresholds": "thresholds_beside"}.get(name, f"{name}_unmeasured")
    assert "energy not measured on this machine" in texts(drawn[other])
    assert "not measured" not in texts(drawn[name])
    assert all(ax.has_data() for ax in drawn[other].axes)


def lines(ax):
    """Labelled curves by their label."""
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def test_axes_are_layers_from_1_to_the_last(drawn):
    for name in ["epochs", "layer_accuracy", "fixed", "optimal"]:
        for ax in drawn[name].axes:
            ticks = ax.get_xticks()
            assert (
                ticks[0] == 1
                and ticks[-1] in (28, 32)
                and set(ticks[1:]) == set(range(4, int(ticks[-1]) + 1, 4))
            )


def test_a_fixed_exits_panel_has_the_layers_that_were_measured(drawn):
    axes = drawn["fixed"].axes
    rouge, time = lines(axes[0])["llama-pico, Python"], lines(axes[-1])["llama-pico, Python"]
    assert rouge.get_xdata().tolist() == list(range(1, 29)) and axes[0].get_xlabel() == "exit layer"
    assert time.get_xdata().tolist() == list(range(2, 29, 2))
    assert axes[-1].get_xlabel() == "exit layer (exit points alone)"


def test_models_keep_their_colours(drawn):
    assert figures.model_colours(["opt-2.7b", "meta-llama/Llama-3.2-3B", "qwen"]) == {
        "meta-llama/Llama-3.2-3B": figures.BLUE,
        "opt-2.7b": figures.VERMILLION,
        "qwen": figures.GREEN,
    }
    for name in ["training", "chrf"]:
        found = {
            label: line.get_color() for label, line in lines(drawn[name].axes[0]).items() if label in MODELS
        }
        assert found == {"llama-pico": figures.BLUE, "opt-pico": figures.VERMILLION}


def test_base_model_is_black_and_epochs_are_not(drawn):
    curves = lines(drawn["epochs"].axes[0])
    assert to_hex(curves["base model"].get_color()) == "#000000"
    assert len(curves) == 11 and len({to_hex(line.get_color()) for line in curves.values()}) == 11


def test_histogram_counts_files_up_to_5000_and_says_what_is_longer(drawn):
    ax = drawn["lengths"].axes[0]
    assert sum(patch.get_height() for patch in ax.patches) == 6  # 3 of 4 files of two models' rows
    assert "25.00% longer than 5,000" in texts(drawn["lengths"]) and "median 650 tokens" in texts(
        drawn["lengths"]
    )


def test_frequent_tokens_are_the_largest_first_and_at_most_20():
    frame = pd.DataFrame({"token": [f"t{i:02}" for i in range(30)], "count": range(30)})
    ax = chapter4_corpora.frequent_tokens(frame, "java").axes[0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [f"t{i:02}" for i in range(29, 9, -1)]
    assert [patch.get_width() for patch in ax.patches] == list(range(29, 9, -1))


def test_token_grid_is_green_where_the_last_layer_agrees():
    figure = chapter4_finetuning.token_grid([["a", "x"], ["a", " b"], ["a", "b"]], [4, 6], 8)
    fills = [to_hex(patch.get_facecolor()).upper() for patch in figure.axes[0].patches]
    agrees, differs, last = chapter4_finetuning.AGREES, chapter4_finetuning.DIFFERS, chapter4_finetuning.LAST
    assert fills == [agrees, differs, agrees, differs, last, last]  # " b" is another token than "b"
    with pytest.raises(InputError, match="3 rows of one length"):
        chapter4_finetuning.token_grid([["a"], ["b", "c"], ["d"]], [4, 6], 8)


@given(st.text(max_size=8))
def test_printable_has_only_glyphs_of_the_font_and_hides_nothing(text):
    shown = figures.printable(text)
    assert shown.isprintable() and bool(shown) == bool(text)
    assert (
        figures.printable("\n") == "\\n"
        and figures.printable(" x") == "x"
        and figures.printable("  ") == "␣␣"
    )


def test_optimal_exits_are_counted_by_decisions_and_by_tokens(drawn):
    decisions, _, tokens, _ = drawn["optimal"].axes[:4]
    assert "Java: decisions in training" in decisions.get_title("left")
    assert "Java: tokens recorded" in tokens.get_title("left")
    assert [ax.patches[1].get_height() for ax in (decisions, tokens)] == [50_000, 450]


def test_moving_average_over_50_episodes_and_its_range():
    frame = pd.DataFrame(
        {
            "model": "llama-pico",
            "language": "java",
            "seed": [0] * 60 + [1] * 55,
            "episode": [*range(60), *range(55)],
        }
    )
    frame["reward"] = np.where(frame["seed"] == 0, 1.0, 0.0)
    ax = chapter6_agent.reward_curves(frame).axes[0]
    (curve,) = lines(ax).values()
    assert curve.get_xdata().tolist() == [50, 51, 52, 53, 54, 55]
    assert np.allclose(curve.get_ydata(), 0.5)
    band = ax.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == pytest.approx((0, 1))
    assert "average of 7 episodes" in texts(chapter6_agent.reward_curves(frame[frame["episode"] < 7]))


def test_overhead_says_which_of_the_thesiss_contexts_a_panel_stands_for(drawn):
    titles = [ax.get_title("left") for ax in drawn["overhead"].axes]
    assert titles[:2] == ["llama-pico\ncontext 20%", "llama-pico\ncontext 60% (the thesis: 50%)"]


def test_agent_exits_show_share_and_count(drawn):
    ax = drawn["exits"].axes[0]
    assert [patch.get_height() for patch in ax.patches] == [0.8, 0.0, 1.0]
    assert [text.get_text() for text in ax.texts] == ["10,000", "0", "300"]
    light = [sum(patch.get_facecolor()[:3]) for patch in ax.patches]
    assert light[0] > light[2] > light[1]  # lighter where the agent leaves more often


def test_settings_stand_in_order_with_the_references_first(drawn):
    metrics, first, *_, bottom = drawn["thresholds"].axes
    assert [tick.get_text() for tick in metrics.get_xticklabels()] == [
        "base",
        "full",
        "T=0.6",
        "T=0.8",
        "T=0.92",
    ]
    curve = lines(metrics)["CodeBLEU"]
    assert curve.get_xdata().tolist() == [2, 3, 4]
    assert curve.get_ydata() == pytest.approx(np.array([8, 12, 20]) / 60)
    assert [patch.get_height() for patch in first.patches] == [112, 112, 32, 48, 80]  # energy
    assert [patch.get_height() for patch in bottom.patches] == [28, 28, 8, 12, 20]
    assert to_hex(first.patches[0].get_facecolor()) == "#000000"
    assert to_hex(first.patches[1].get_facecolor()).upper() == figures.FULL_COLOUR


def test_one_missing_energy_is_said_on_its_bar():
    frame = sweep(energy=4.0)
    frame.loc[frame["label"] == "base", "energy_wh"] = np.nan
    ax = chapter6_results.results_by_threshold(frame).axes[1]
    assert [text.get_text().strip() for text in ax.texts] == ["not measured"]


@pytest.mark.parametrize("label", ["fast", np.nan, 1.5, None])
def test_a_label_is_a_reference_or_a_threshold(label):
    with pytest.raises(InputError, match="setting"):
        settings.by_label(pd.DataFrame({"label": ["full", label]}))


def test_a_sweep_has_one_row_a_setting():
    with pytest.raises(InputError, match="one row a setting"):
        settings.by_label(pd.DataFrame({"label": ["0.6", 0.6]}))
    with pytest.raises(InputError, match="one model at a time"):
        chapter6_results.results_by_threshold(pd.concat([sweep(m, energy=1.0) for m in MODELS]))


def test_full_model_is_a_line_of_its_model_s_colour(drawn):
    full = lines(drawn["chrf"].axes[0])["opt-pico, full model"]
    assert (
        full.get_ydata()[0] == 28 and full.get_linestyle() == "--" and full.get_color() == figures.VERMILLION
    )


def test_cache_curves_share_the_axis_when_one_lacks_the_references():
    frame = sweep(cache="none")
    agent_only = frame[~frame["label"].isin(["base", "full"])].assign(cache="propagate")
    curves = lines(chapter6_cache.kv_metrics(pd.concat([frame, agent_only])).axes[0])
    assert (
        curves["BLEU, no cache"].get_xdata().tolist()
        == curves["BLEU, KV propagation"].get_xdata().tolist()
        == [2, 3, 4]
    )


@pytest.mark.parametrize(
    ("draw", "frame", "message"),
    [
        (chapter4_corpora.import_share, pd.DataFrame({"language": ["java"]}), "needs the column.s. share"),
        (chapter6_agent.optimal_exits, by_layer(decisions=lambda n: n, tokens=lambda n: n).iloc[:0], "nothing to draw"),
        (chapter4_finetuning.fixed_exit_metrics, fixed_exits(1.0).assign(language=CORPORA * 30), "one language at a time"),
        (chapter4_finetuning.fixed_exit_metrics, pd.concat([fixed_exits(1.0)] * 2), "one row a model and layer"),
        (chapter4_finetuning.fixed_exit_metrics, fixed_exits(np.nan).drop(columns="flops"), "needs the column.s. flops"),
        (chapter6_agent.overhead, pd.concat([agent_shares(0.1)] * 2), "one row a model, context and threshold"),
    ],
)  # fmt: skip
def test_frames_that_cannot_be_drawn_are_refused(draw, frame, message):
    with pytest.raises(InputError, match=message):
        draw(frame)


# Saving


@pytest.mark.parametrize("name", ["thresholds_beside", "layer_accuracy", "tokens", "exits"])
def test_large_exhibits_are_byte_stable(drawn, name, tmp_path):
    first = [path.read_bytes() for path in save_figure(drawn[name], name, tmp_path, STAMP)]
    assert [path.read_bytes() for path in save_figure(drawn[name], name, tmp_path, STAMP)] == first


# --- figures with long names and long tails ---


def test_no_title_of_the_overhead_is_cut():
    shares = (
        agent_shares(energy=np.nan).replace({"llama-pico": "smollm2-135m"}).query("context_fraction == 0.2")
    )
    figure = chapter6_agent.overhead(shares.assign(thesis_context="20% and 50%"))
    width = figure.get_window_extent().width
    for ax in figure.axes:
        assert "smollm2-135m" in ax.get_title(loc="left") or "opt-pico" in ax.get_title(loc="left")
        box = ax._left_title.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width


def test_costs_that_are_far_apart_are_read_off():
    costs = pd.DataFrame(
        {"method": ["agent", "head"], "microseconds": [38.8, 15339.06], "joules": [np.nan, np.nan]}
    )
    figure = chapter6_agent.decision_cost(costs)
    (ax,) = figure.axes
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.texts] == ["38.8", "15,339"]
    low, high = ax.get_xlim()
    boxes = [
        tick.label1.get_window_extent()
        for tick in ax.xaxis.get_major_ticks()
        if low <= tick.get_loc() <= high
    ]
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))
    assert max(text.get_window_extent().x1 for text in ax.texts) <= figure.get_window_extent().width


def test_a_long_prompt_leaves_the_others_latency_to_be_seen():
    served = pd.DataFrame(
        {"prompt": [0.0] * 2 + [1.0] * 2 + [2.0] * 2, "threshold": [0.6, 1.0] * 3, "mean_layers": 20.0}
    ).assign(milliseconds=[100, 140, 110, 150, 6000, 7500], total_layers=30)
    latency, layers = deployment.by_threshold(served).axes
    assert latency.get_yscale() == "log" and layers.get_yscale() == "linear"
    lowest, highest = (latency.transData.transform((0, value))[1] for value in (100, 140))
    assert highest - lowest > 0.05 * latency.get_window_extent().height
    assert [list(line.get_ydata()) for line in latency.lines[:3]] == [[100, 140], [110, 150], [6000, 7500]]
    assert list(latency.lines[3].get_ydata()) == [110, 150]
