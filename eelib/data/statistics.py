"""What notebook 01 says about a corpus: lengths, frequent tokens, imports."""

from collections import Counter

import pandas as pd

from eelib import paths
from eelib.data.corpus import CodeFile
from eelib.profile import Data


def describe_source(data: Data) -> str:
    """One sentence on where the corpora come from."""
    if data.source == "shipped":
        folder = paths.shown(paths.DATA)
        return (
            f"Corpora: shipped in {folder}/, split by project (sources and licences in {folder}/NOTICE.md)."
        )
    if data.source == "hub":
        return (
            f"Corpora: the hub's CodeXGLUE token-completion dataset{f' in {data.path}' if data.path else ''}."
        )
    return f"Corpora: CodeXGLUE line-completion files in {data.path}."


def files_frame(corpora: dict[str, list[CodeFile]]) -> pd.DataFrame:
    """One row a file: `language`, `split`, `project`, `id`, `tokens`, `share` (of import and package statements)."""
    return pd.DataFrame(
        [
            {
                "language": language,
                "split": file.split,
                "project": file.project,
                "id": file.id,
                "tokens": len(file.code),
                "share": import_share(file.code, language),
            }
            for language, files in corpora.items()
            for file in files
        ]
    )


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


def token_counts(files: list[CodeFile]) -> pd.DataFrame:
    """`token`, `count` over a whole corpus, most frequent first."""
    counts: Counter[str] = Counter()
    for file in files:
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
