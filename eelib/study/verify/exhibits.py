"""Figures, tables and pages against their stamps, their hashes, and what the kept data gives when it is drawn anew."""

import html
import io
import json
import re
from base64 import b64decode
from pathlib import Path

import nbformat
import numpy as np
from PIL import Image

from eelib.study.exhibits import FOLDER, file_hash
from eelib.study.verify.finding import Place, Report
from eelib.study.verify.kept import Drawn
from eelib.study.verify.redraw import Redrawn, bare

ALONE = re.compile(r".+ profile · commit [0-9a-z ]+\+? · from the configuration alone")
OF_OTHERS = re.compile(r"published numbers of .+")
OF_INPUTS = re.compile(r".+ profile · commit .+ · inputs [0-9a-f]{8}")


def stamp_of(path: Path) -> str:
    """What an exhibit's file says about where it comes from; "" where it says nothing."""
    data = path.read_bytes()
    match path.suffix:
        case ".csv":
            return data.decode().split("\n", 1)[0].removeprefix("# ")
        case ".md":
            return data.decode().rstrip("\n").rsplit("\n", 1)[-1]
        case ".png":
            return _png_text(path, "Description")
    return _pdf_text(data, "Subject")


def _png_text(path: Path, name: str) -> str:
    """An entry of a PNG's metadata; "" where there is none."""
    with Image.open(path) as image:
        return image.info.get(name, "")


def _pixels(png: bytes) -> np.ndarray:
    """(height, width, 3) uint8."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def _pdf_text(data: bytes, name: str) -> str:
    """An entry of a PDF's metadata as matplotlib writes it."""
    found = re.search(rb"/" + name.encode() + rb" (?:\((.*?)\)(?=[ \n/>])|<([0-9a-fA-F]+)>)", data, re.DOTALL)
    if found is None:
        return ""
    raw = (
        bytes.fromhex(found[2].decode()) if found[2] else re.sub(rb"\\(.)", rb"\1", found[1], flags=re.DOTALL)
    )
    return raw.decode("utf-16") if raw.startswith((b"\xfe\xff", b"\xff\xfe")) else raw.decode("latin-1")


def title_of(path: Path) -> str:
    """What a figure's file calls it."""
    if path.suffix == ".png":
        return _png_text(path, "Title")
    return _pdf_text(path.read_bytes(), "Title")


def files_of(place: Place) -> dict[str, dict[str, Path]]:
    """The files of all exhibits of a run, by name and suffix."""
    found: dict[str, dict[str, Path]] = {}
    for folder in (place.figures, place.tables):
        for path in sorted(folder.glob("*.*")):
            found.setdefault(path.stem if path.suffix in (".png", ".pdf", ".csv", ".md") else path.name, {})[
                path.suffix
            ] = path
    return found


def check_hashes(place: Place, report: Report) -> None:
    """Files of exhibits are as they were written, and none is without a record."""
    kept = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((place.results / FOLDER).glob("*.json"))
    }
    files = files_of(place)
    if not kept and files:
        report.say("Exhibits were drawn before their hashes were kept, so that these are not compared.")
        return
    for name in sorted({*kept, *files}):
        report.looked("hashes")
        now = {path.name: file_hash(path) for path in files.get(name, {}).values()}
        then = {Path(path).name: value for path, value in kept.get(name, {"files": {}})["files"].items()}
        if changed := sorted(file for file in {*now, *then} if now.get(file) != then.get(file)):
            report.find("hashes", f"{', '.join(changed)} of the exhibit {name} is not as it was written.")


def check_stamped(place: Place, report: Report) -> None:
    """All files of an exhibit say the same about where it comes from, and figures say their own name."""
    for name, files in files_of(place).items():
        report.looked("stamps")
        stamps = {suffix: stamp_of(path) for suffix, path in files.items()}
        if len(set(stamps.values())) > 1:
            report.find(
                "stamps",
                f"The files of {name} have different stamps: {'; '.join(sorted(set(stamps.values())))}.",
            )
        if set(files) not in ({".png", ".pdf"}, {".csv", ".md"}):
            report.find("stamps", f"The exhibit {name} has only {', '.join(sorted(files))}.")
        for suffix, stamp in stamps.items():
            own = stamp.startswith(f"{place.profile} profile") and (
                OF_INPUTS.fullmatch(stamp) or ALONE.fullmatch(stamp)
            )
            if not (own or OF_OTHERS.fullmatch(stamp)):
                report.find(
                    "stamps", f"{files[suffix]} has no stamp of the profile {place.profile}: {stamp!r}."
                )
            elif "inputs" in stamp and not (place.results / "stamps" / f"{stamp[-8:]}.json").exists():
                report.find(
                    "stamps", f"{files[suffix]} is stamped with inputs {stamp[-8:]}, which no stamp explains."
                )
            if suffix in (".png", ".pdf") and title_of(files[suffix]) != name:
                report.find("stamps", f"{files[suffix]} calls itself {title_of(files[suffix])!r}.")


def check_drawn(place: Place, pages: list[Redrawn], report: Report) -> None:
    """Exhibits of a run are what today's code draws of its data, byte for byte."""
    files = files_of(place)
    for page in pages:
        for exhibit in page.drawn:
            report.looked("drawn")
            own = files.get(exhibit.name, {})
            for suffix, data in exhibit.files.items():
                if suffix not in own:
                    report.find(
                        "drawn", f"{exhibit.name}{suffix} is missing, which notebook {page.notebook} draws."
                    )
                elif own[suffix].read_bytes() != data:
                    report.find(
                        "drawn",
                        f"{own[suffix]} is not what its data gives: {_apart(own[suffix], data, exhibit)}.",
                    )


def check_strays(place: Place, pages: list[Redrawn], report: Report) -> None:
    """Every exhibit is drawn by a notebook; not told where a cell could not be run."""
    if not any(page.skipped or page.failed for page in pages):
        drawn = {exhibit.name for page in pages for exhibit in page.drawn}
        for name in sorted(set(files_of(place)) - drawn):
            report.find("drawn", f"No notebook draws the exhibit {name}.")


def _apart(path: Path, data: bytes, exhibit: Drawn) -> str:
    """How a file differs from what is drawn."""
    if exhibit.stamp is not None and stamp_of(path) != exhibit.stamp:
        return f"its stamp is {stamp_of(path)!r}, that of its inputs {exhibit.stamp!r}"
    if path.suffix in (".csv", ".md"):
        pairs = zip(path.read_text(encoding="utf-8").splitlines(), data.decode().splitlines(), strict=False)
        return next(
            (f"it says {own[:80]!r} for {drawn[:80]!r}" for own, drawn in pairs if own != drawn),
            "it has other rows",
        )
    if path.suffix == ".pdf":
        return "it shows something else"
    own, drawn = (_pixels(picture) for picture in (path.read_bytes(), data))
    if own.shape != drawn.shape:
        return f"it is {own.shape[1]} x {own.shape[0]} pixels, drawn anew {drawn.shape[1]} x {drawn.shape[0]}"
    return f"{np.any(own != drawn, axis=-1).mean():.2%} of its pixels are others"


def check_pages(place: Place, pages: list[Redrawn], report: Report) -> None:
    """Sentences, tables and pictures of executed notebooks, or of kept pages, are what the data gives."""
    for page in pages:
        if place.pages:
            path = place.pages / f"{page.notebook}.md"
            shown = _kept_page(path) if path.exists() else None
        else:
            path = place.results / "notebooks" / f"{page.notebook}.ipynb"
            shown = _executed(path) if path.exists() else None
        if shown is None:
            report.find("pages", f"{path} is missing.")
            continue
        text, pictures = shown
        for sentence in page.sentences:
            report.looked("pages")
            if _words(sentence) not in text:
                report.find(
                    "pages", f"{path.name} does not say what its data says: {_words(sentence)[:100]!r}."
                )
        for table in page.tables:
            report.looked("pages")
            if _words(table) not in text:
                report.find(
                    "pages",
                    f"{path.name} has another table than its data gives, whose columns are {_columns(table)}.",
                )
        for number, picture in enumerate(page.pictures, start=1):
            report.looked("pages")
            if not any(_same_picture(picture, other) for other in pictures):
                report.find("pages", f"{path.name} lacks picture {number} that its data gives.")


def _words(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _columns(table: str) -> str:
    return ", ".join(html.unescape(name) for name in re.findall(r"<th[^>]*>([^<]+)</th>", table)[:4])


def _kept_page(path: Path) -> tuple[str, list[bytes]]:
    text = path.read_text(encoding="utf-8")
    named = [path.parent / name for name in re.findall(r"!\[png\]\(([^)]+)\)", text)]
    return _words(text), [file.read_bytes() for file in named if file.exists()]


def _executed(path: Path) -> tuple[str, list[bytes]]:
    texts, pictures = [], []
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts += [data[kind] for kind in ("text/markdown",) if kind in data]
            texts += [bare(data[kind]) for kind in ("text/html",) if kind in data]
            pictures += [b64decode(data[kind]) for kind in ("image/png",) if kind in data]
    return _words("\n".join(texts)), pictures


def _same_picture(one: bytes, other: bytes) -> bool:
    """Whether two PNG files show the same pixels."""
    if one == other:
        return True
    left, right = (_pixels(picture) for picture in (one, other))
    return left.shape == right.shape and bool((left == right).all())
