"""Stages of notebook 01: the corpora."""

from collections import Counter
from pathlib import Path

import pandas as pd

from eelib.data.corpus import CodeFile, load_corpus, read_corpus, save_corpus
from eelib.data.shipped import SHIPPED, shipped_hash
from eelib.pipeline.study import Study
from eelib.study.provenance import folder_hash
from eelib.study.stages import Artifact, Stage


def corpus(study: Study, language: str) -> Artifact:
    """The corpus of a language: `corpus.parquet`."""
    data = study.profile.section("data")["data"]
    if data["source"] == "shipped":
        content = {"sha256": shipped_hash(language)}
    else:
        content = {"files": folder_hash(Path(data["path"])) if data["path"] else "the hub's pinned revision"}
    stage = Stage(f"corpus/{language}", layer="data", config={"language": language} | data | content)

    def build(folder: Path) -> None:
        save_corpus(load_corpus(study.profile.data, language), folder / "corpus.parquet")

    return study.stage(stage, "01", build)


def files_of(artifact: Artifact, split: str) -> list[CodeFile]:
    """The files of one split of a corpus."""
    return [file for file in read_corpus(artifact.path / "corpus.parquet") if file.split == split]


def projects_of(study: Study, language: str) -> dict[str, str]:
    """The project of every test file, by the file's id, which is a sample's."""
    return {file.id: file.project for file in files_of(corpus(study, language), "test")}


def describe_source(study: Study) -> str:
    """One sentence on where the corpora come from."""
    data = study.profile.data
    if data.source == "shipped":
        return (
            f"Corpora: shipped in {SHIPPED}/, split by project (sources and licences in {SHIPPED}/NOTICE.md)."
        )
    if data.source == "hub":
        return (
            f"Corpora: the hub's CodeXGLUE token-completion dataset{f' in {data.path}' if data.path else ''}."
        )
    return f"Corpora: CodeXGLUE line-completion files in {data.path}."


def files_frame(study: Study, languages: list[str]) -> pd.DataFrame:
    """One row a file: `language`, `split`, `project`, `id`, `tokens`, `share` (of import and package statements)."""
    rows = []
    for language in languages:
        for file in read_corpus(corpus(study, language).path / "corpus.parquet"):
            rows.append(
                {
                    "language": language,
                    "split": file.split,
                    "project": file.project,
                    "id": file.id,
                    "tokens": len(file.code),
                    "share": import_share(file.code, language),
                }
            )
    return pd.DataFrame(rows)


def import_share(code: list[str], language: str) -> float:
    """Share of a file's tokens that belong to import or package statements (their ends included)."""
    openers, end = {
        "java": ({"import", "package"}, ";"),
        "python": ({"import", "from"}, "<EOL>"),
    }[language]
    inside, at_start, count = False, True, 0
    for token in code:
        inside = inside or (at_start and token in openers)
        count += inside
        at_start = token == end or (language == "java" and token in {"{", "}"})
        inside = inside and token != end
    return count / len(code)


def corpus_table(files: pd.DataFrame) -> pd.DataFrame:
    """Table 4.1 of these corpora: `language`, `split`, `projects`, `files`, `tokens`, from `files_frame`."""
    groups = files.groupby(["language", "split"], sort=False)
    return groups.agg(
        projects=("project", "nunique"), files=("id", "size"), tokens=("tokens", "sum")
    ).reset_index()


def token_counts(study: Study, language: str) -> pd.DataFrame:
    """`token`, `count` over the whole corpus, most frequent first."""
    counts = Counter()
    for file in read_corpus(corpus(study, language).path / "corpus.parquet"):
        counts.update(file.code)
    return pd.DataFrame(counts.most_common(), columns=["token", "count"])


def past_imports(files: pd.DataFrame, fractions: list[float]) -> pd.DataFrame:
    """Share of files whose first `fraction` of tokens is more than their import statements: `language`, a column each."""
    return files.groupby("language").apply(
        lambda group: pd.Series(
            {f"{fraction:.0%}": (group["share"] < fraction).mean() for fraction in fractions}
        ),
        include_groups=False,
    )
