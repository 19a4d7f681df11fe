"""Section 4.2: the corpora."""

import numpy as np
import pandas as pd

from eelib.evaluation.claims.claim import POSITIVE, Claim, Reading, about, reading
from eelib.evaluation.claims.results import PER_LANGUAGE, PER_PROJECT, Results, where
from eelib.evaluation.jackknife import jackknife


def _mean(column: str):
    return lambda rows: rows[column].mean()


def long_java_files(results: Results) -> list[Reading]:
    files = where(results["files"], language="java") if results.hub else pd.DataFrame()
    if files.empty:
        return []
    long = jackknife(files.assign(long=files["tokens"] > 5000), _mean("long"), PER_PROJECT)
    longest = float(files["tokens"].max())
    return [
        reading("Java, more than 5000 tokens", long, "project", about(0.0235, 0.00005)),
        Reading("Java, the longest", longest, 0.0, np.inf, "all files", about(264969, 0.5)),
    ]


def short_files(results: Results) -> list[Reading]:
    found = []
    for language, tokens in {"java": 1000, "python": 2000}.items():
        files = where(results["files"], language=language)
        if len(files):
            short = jackknife(files.assign(short=files["tokens"] < tokens), _mean("short"), PER_PROJECT)
            found.append(reading(f"{language.capitalize()}, under {tokens}", short, "project", (0.5, np.inf)))
    return found


def imports(results: Results) -> list[Reading]:
    files = results["files"]
    if files.empty or files["language"].nunique() < 2:
        return []

    def difference(rows: pd.DataFrame) -> float:
        means = rows.groupby("language")["share"].mean()
        return means["java"] - means["python"]

    return [
        reading(
            "Java less Python", jackknife(files, difference, PER_LANGUAGE, "language"), "project", POSITIVE
        )
    ]


CORPORA = [
    Claim(
        "long-java-files", "4.2.1", "A few Java files are very long",
        "2.35% of JavaCorpus's files are longer than 5000 tokens; the longest has 264,969.",
        "2.35%; 264,969", "share of files, tokens", "the printed digits",
        "Figure 4.2 (notebook 01)", (1,), long_java_files,
        needs="CodeXGLUE's JavaCorpus from the hub (paper profile)",
    ),
    Claim(
        "short-files", "4.2", "Most files are short",
        "Most Java files have fewer than 1000 tokens, and most Python files fewer than 2000.",
        "most", "share of files below", "above a half", "Figures 4.2, 4.4a (notebook 01)", (1,), short_files,
        needs="corpora in both languages",
    ),
    Claim(
        "imports", "4.2.2", "Java files hold more imports",
        "Import and package statements are a larger share of Java files than of Python files.",
        "much fewer in Python", "difference of the mean shares", "above 0",
        "Figures 4.3b, 4.4b (notebook 01)", (1,), imports, needs="corpora in both languages",
    ),
]  # fmt: skip
