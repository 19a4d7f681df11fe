"""Which exhibit of the thesis a result belongs to."""

RESULT_FIGURES = {  # (family, language, context): Figures 6.5 to 6.8, 6.10, 6.11
    ("llama", "java", 0.2): "fig_6_05",
    ("llama", "java", 0.6): "fig_6_06",
    ("opt", "java", 0.2): "fig_6_07",
    ("opt", "java", 0.6): "fig_6_08",
    ("llama", "python", 0.2): "fig_6_10",
    ("opt", "python", 0.2): "fig_6_11",
}
RESULT_TABLES = {
    ("opt", "java"): "table_6_07",
    ("llama", "java"): "table_6_08",
    ("llama", "python"): "table_6_09",
    ("opt", "python"): "table_6_10",
}
THESIS_MODELS = {"llama": "llama-3.2-3b", "opt": "opt-2.7b"}


def family(model: str) -> str:
    """ "llama" or "opt", whatever the checkpoint's full name."""
    return "opt" if model.lower().rsplit("/", 1)[-1].startswith("opt") else "llama"


def results_figure(model: str, language: str, fraction: float) -> str:
    """File name of the figure of one setting, e.g. "fig_6_05_smollm2-135m_java_ctx20"; settings that the thesis does not
    show start with "fig_6_results"."""
    number = RESULT_FIGURES.get((family(model), language, fraction), "fig_6_results")
    return f"{number}_{short(model)}_{language}_ctx{round(100 * fraction)}"


def short(model: str) -> str:
    """A model's name without its organisation."""
    return model.rsplit("/", 1)[-1]
