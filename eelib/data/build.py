"""Build the corpora that are shipped in `data/` from the pinned sources of `sources.csv`.

    python -m eelib.data.build [--cache FOLDER] [--exclude FILE ...]

Test projects are taken first, then validation, then training: a file that shares a run of 50 tokens with a kept file of
another split is dropped, and so is one that shares a run with any file of the pretraining corpus or mostly repeats an
earlier file of its split. The same sources give the same bytes. What it downloads stays in the cache; a second run needs
no network. It takes about ten minutes with the archives at hand, and longer once, to read the pretraining corpus.
"""

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from eelib import paths
from eelib.data import lexing
from eelib.data.archives import source_files
from eelib.data.codexglue import line_completion_file
from eelib.data.corpus import SPLITS, CodeFile, read_package, token_runs, without_near_duplicates
from eelib.data.lexing import LANGUAGES, tokenize_source
from eelib.data.notice import write_notice
from eelib.data.packages import SourcePackage, fetch, read_table
from eelib.data.selection import drawn_order, has_fitting_code, is_written_here, within_cap
from eelib.data.shipped import write_hashes, write_shipped
from eelib.errors import InputError

SOURCES_TABLE = Path(__file__).with_name("sources.csv")
PRETRAINING_TABLE = Path(__file__).with_name("pretraining_packages.csv")
EXCLUDED = Path(__file__).with_name("excluded_files.txt")
# Files and tokens of one project at most. Java's training files are shorter and its projects fewer.
CAPS = {
    "java": {"train": (70, 75_000), "validation": (11, 9_200), "test": (20, 22_000)},
    "python": {"train": (40, 36_000), "validation": (11, 9_200), "test": (20, 22_000)},
}
NO_RUNS = np.empty(0, dtype=np.uint64)
LARGEST_SHARE = 0.1  # of one project in its split's files, and in its tokens


def candidates(package: SourcePackage, cache_dir: Path) -> Iterator[CodeFile]:
    """The files of a package that count as code of its own, tokenised, in a drawn order."""
    archive = fetch(package, cache_dir)
    texts = dict(source_files(archive, package.language, package.exclude))
    for path in drawn_order(path for path, text in texts.items() if is_written_here(path, text)):
        code = tokenize_source(texts[path], package.language)
        if has_fitting_code(code):
            identifier = f"{package.project}-{package.version}:{path}"
            yield CodeFile(
                identifier, package.project, package.language, package.split, code, package.era, texts[path]
            )


def build_corpus(
    packages: list[SourcePackage],
    avoided: np.ndarray,
    excluded: set[str],
    cache_dir: Path,
    excluded_runs: np.ndarray = NO_RUNS,
) -> list[CodeFile]:
    """The corpus of packages of one language: by split, by project in the table's order, by id.

    Parameters
    ----------
    avoided: uint64, sorted: hashes of runs that no file may contain.
    excluded: ids of training files that are left out.
    excluded_runs: uint64, sorted: the ids of training files that contain any of these are added to `excluded`.
    """

    def is_fresh(file: CodeFile) -> bool:
        if file.split == "train" and shares_run(file.code, excluded_runs):
            excluded.add(file.id)
        return file.id not in excluded and not shares_run(file.code, avoided)

    kept: dict[str, list[CodeFile]] = {}
    forbidden: set[int] = set()
    for split in reversed(SPLITS):
        kept[split], seen = [], set()
        for package in tqdm([package for package in packages if package.split == split], desc=split):
            fresh = filter(is_fresh, candidates(package, cache_dir))
            cap = CAPS[package.language][split]
            chosen = within_cap(without_near_duplicates(fresh, forbidden, seen), *cap)
            kept[split] += sorted(chosen, key=lambda file: file.id)
        forbidden.update(run for file in kept[split] for run in token_runs(file.code).tolist())
    files = [file for split in SPLITS for file in kept[split]]
    check_shares(files)
    return files


def shares_run(code: list[str], runs: np.ndarray) -> bool:
    """Whether any run of the tokens is among `runs`, sorted hashes."""
    own = token_runs(code)
    places = np.minimum(np.searchsorted(runs, own), max(len(runs) - 1, 0))
    return bool(len(runs)) and bool((runs[places] == own).any())


def check_shares(files: list[CodeFile]) -> None:
    """InputError when a project has more than a tenth of its split's files or tokens, or a split has none."""
    for split in SPLITS:
        for unit, size in (("files", lambda file: 1), ("tokens", lambda file: len(file.code))):
            sizes = Counter()
            for file in files:
                if file.split == split:
                    sizes[file.project] += size(file)
            if not sizes:
                raise InputError(f"The {split} split is empty: no file of its projects is left.")
            project, most = sizes.most_common(1)[0]
            if most > LARGEST_SHARE * sizes.total():
                raise InputError(
                    f"{project} has {most} of the {sizes.total()} {unit} of the {split} split: "
                    f"allowed is a share of {LARGEST_SHARE}."
                )


def pretraining_runs(language: str, cache_dir: Path) -> np.ndarray:
    """Sorted hashes of all runs in the pretraining corpus's files of a language; kept in the cache folder."""
    packages = [package for package in read_table(PRETRAINING_TABLE) if package.language == language]
    digest = hashlib.sha256(Path(lexing.__file__).read_bytes())
    for package in packages:
        digest.update(f"{package.sha256} {package.exclude}".encode())
    path = cache_dir / f"runs-{language}-{digest.hexdigest()[:8]}.npy"
    if not path.exists():
        runs = [NO_RUNS]
        for package in tqdm(packages, desc=f"{language} of the pretraining corpus"):
            runs += [np.unique(token_runs(file.code)) for file in read_package(package, cache_dir)]
        np.save(path, np.unique(np.concatenate(runs)))
    return np.load(path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eelib.data.build", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--cache", type=Path, default=paths.CACHE / "packages", help="downloaded archives")
    parser.add_argument("--out", type=Path, default=paths.DATA, help="where the corpora go")
    parser.add_argument(
        "--exclude",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="CodeXGLUE line-completion files: training files that share a run with one are listed and left out",
    )
    options = parser.parse_args(arguments)
    try:
        build(options.cache, options.out, options.exclude)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def build(cache_dir: Path, out: Path, excluding: list[Path]) -> None:
    """Write both corpora and what lists them.

    `excluding` are line-completion files. They are not part of the project, so that the training files which share a run
    with them are kept by name in `excluded_files.txt`: a later build leaves those out without the files.
    """
    packages = read_table(SOURCES_TABLE)
    excluded = set(EXCLUDED.read_text(encoding="utf-8").splitlines())
    out.mkdir(parents=True, exist_ok=True)
    runs = [NO_RUNS, *(token_runs(code) for file in excluding for _, code in line_completion_file(file))]
    excluded_runs = np.unique(np.concatenate(runs))
    for language in LANGUAGES:
        chosen = [package for package in packages if package.language == language]
        avoided = pretraining_runs(language, cache_dir)
        files = build_corpus(chosen, avoided, excluded, cache_dir, excluded_runs)
        write_shipped([vars(file) for file in files], out / f"{language}.parquet")
    if excluding:
        EXCLUDED.write_text("".join(f"{identifier}\n" for identifier in sorted(excluded)), encoding="utf-8")
    write_hashes(out)
    write_notice(packages, cache_dir, out)


if __name__ == "__main__":
    main()
