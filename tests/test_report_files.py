"""Figures and tables as files: the same bytes every time, whole or absent, and every cell as it was."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from eelib.errors import InputError
from eelib.report import chapter6_cache, figures, files, tables
from eelib.report.figures import save_figure
from eelib.report.tables import read_table, save_table

STAMP = "laptop profile · commit 1a2b3c4 · inputs 9f8e7d6c"


def tiny():
    return chapter6_cache.layers_skipped(
        pd.DataFrame(
            {"model": "llama-pico", "context_fraction": 0.2, "threshold": [0.6, 0.9], "skipped": [0.7, 0.4]}
        )
    )


def test_saving_again_displaying_and_drawing_anew_give_the_same_bytes(tmp_path):
    figure = tiny()
    first = [path.read_bytes() for path in save_figure(figure, "fig", tmp_path / "a", STAMP)]
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert [path.read_bytes() for path in save_figure(figure, "fig", tmp_path / "a", STAMP)] == first
    assert [path.read_bytes() for path in save_figure(tiny(), "fig", tmp_path / "b", STAMP)] == first
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["fig.pdf", "fig.png"]


def test_another_process_writes_the_same_bytes(tmp_path):
    code = "import sys, test_report_files as t; t.save_figure(t.tiny(), 'fig', sys.argv[1], t.STAMP)"
    here = Path(__file__).parent
    environment = os.environ | {
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)]),
    }
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "other")], check=True, env=environment)
    for path in save_figure(tiny(), "fig", tmp_path, STAMP):
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_threads_do_not_disturb_each_other(tmp_path):
    alone = [path.read_bytes() for path in save_figure(tiny(), "fig", tmp_path, STAMP)]
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(lambda i=i: save_figure(tiny(), "fig", tmp_path / str(i), STAMP)) for i in range(4)
        ]
    assert all([path.read_bytes() for path in job.result()] == alone for job in jobs)


def test_stamp_is_in_the_metadata_and_no_date_is(tmp_path):
    png, pdf = save_figure(tiny(), "fig_6_15", tmp_path, STAMP)
    with Image.open(png) as image:
        assert image.info["Title"] == "fig_6_15" and image.info["Description"] == STAMP
        assert "Software" not in image.info and "Creation Time" not in image.info
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
    content = pdf.read_bytes()
    assert (
        b"CreationDate" not in content and b"(fig_6_15)" in content and STAMP.encode("utf-16-be") in content
    )


def test_the_stamp_is_drawn_in_the_footer_and_leaves_the_figure_as_it_was(tmp_path):
    figure = tiny()
    (stamped, _), (blank, _) = (
        save_figure(figure, name, tmp_path, text) for name, text in [("a", STAMP), ("b", "")]
    )
    strip = round(figures.FOOTER * figures.DPI)
    stamped, blank = (np.asarray(Image.open(path).convert("L")) for path in (stamped, blank))
    assert stamped[-strip:].min() < 150 and blank[-strip:].min() == 255
    assert (stamped[:-strip] == blank[:-strip]).all()
    assert figure.texts == []


def test_dollars_in_the_stamp_are_not_mathematics(tmp_path):
    assert save_figure(tiny(), "fig", tmp_path, "commit $\\frac{$")[0].exists()


def test_any_figure_can_be_saved(tmp_path):
    figure = Figure()
    figure.subplots().plot([1, 2])
    assert all(path.stat().st_size > 1000 for path in save_figure(figure, "plain", tmp_path, STAMP))


@pytest.mark.parametrize("name", ["../escape", "fig 1", "", ".hidden", "a/b"])
def test_names_of_exhibits_are_plain(name, tmp_path):
    with pytest.raises(InputError, match="may hold only"):
        save_figure(tiny(), name, tmp_path, STAMP)
    with pytest.raises(InputError, match="may hold only"):
        save_table(pd.DataFrame({"a": [1]}), name, tmp_path, STAMP)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = files.write_whole(tmp_path / "table.csv", b"old")

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        files.write_whole(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


# Tables


def test_table_as_csv_and_markdown(tmp_path):
    frame = pd.DataFrame(
        {
            "T": ["full", "0.6"],
            "codebleu": [0.4298, np.nan],
            "energy_wh": [118.777, np.nan],
            "tokens": [15, 9],
        }
    )
    csv, markdown = save_table(
        frame, "table_6_08", tmp_path, STAMP, {"codebleu": "%.2f", "energy_wh": "%.1f"}
    )
    assert csv.read_text().splitlines() == [
        f"# {STAMP}",
        "T,codebleu,energy_wh,tokens",
        "full,0.43,118.8,15",
        "0.6,,not measured,9",
    ]
    assert markdown.read_text().splitlines() == [
        "| T | codebleu | energy_wh | tokens |",
        "| --- | ---: | ---: | ---: |",
        "| full | 0.43 | 118.8 | 15 |",
        "| 0.6 | – | not measured | 9 |",
        "",
        STAMP,
    ]
    read = read_table(csv)
    assert read["energy_wh"].tolist()[0] == 118.8 and read["energy_wh"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("column", "energy"),
    [("energy_j", True), ("joules", True), ("Total Energy [Wh]", True), ("saved_wh", True), ("time_s", False), ("obj", False)],
)  # fmt: skip
def test_columns_of_energy(column, energy):
    assert tables.is_energy(column) is energy


AWKWARD = st.text(st.sampled_from(list("#,\"' |\\ab\n1-<*_`é")), min_size=1, max_size=8)


@given(st.lists(AWKWARD, min_size=1, max_size=4))
def test_every_cell_of_text_comes_back_from_the_csv(tmp_path_factory, cells):
    """Through the documented call of pandas too: no cell is cut at its `#`, whatever stands around it."""
    frame = pd.DataFrame({"token": [*cells, "x"], "count": range(len(cells) + 1)})
    csv, markdown = save_table(frame, "tokens", tmp_path_factory.mktemp("csv"), STAMP)
    read = pd.read_csv(csv, comment="#", na_values="not measured", dtype={"token": str})
    assert read["token"].tolist() == frame["token"].tolist()
    assert read["count"].tolist() == frame["count"].tolist()
    assert len(markdown.read_text().splitlines()) == len(frame) + 4


def test_markdown_signs_are_escaped(tmp_path):
    frame = pd.DataFrame({"token": ["a|b", "<EOL>", "__init__", "x*y*z", "`q`", "\\n", "two\nlines"]})
    rows = save_table(frame, "tokens", tmp_path, STAMP)[1].read_text().splitlines()[2:9]
    assert [row[2:-2] for row in rows] == [
        *[r"a\|b", r"\<EOL>", r"\_\_init\_\_", r"x\*y\*z", r"\`q\`", r"\\n", "two lines"],
    ]


def test_tables_are_byte_stable_and_refuse_what_they_cannot_write(tmp_path):
    frame = pd.DataFrame({"a": [1 / 3, 2e-9]})
    first = [path.read_bytes() for path in save_table(frame, "t", tmp_path, STAMP)]
    assert [path.read_bytes() for path in save_table(frame, "t", tmp_path, STAMP)] == first
    assert b"0.333333\n2e-09\n" in first[0]
    with pytest.raises(InputError, match="which the table lacks"):
        save_table(frame, "t", tmp_path, STAMP, {"b": "%.1f"})
    with pytest.raises(InputError, match="single line"):
        save_table(frame, "t", tmp_path, "two\nlines")


def test_a_table_is_shown_as_it_is_saved(tmp_path):
    frame = pd.DataFrame(
        {"a": [0.12345678, float("nan")], "energy_wh": [float("nan"), 2.0], "n": [1, 2]}, index=[5, 7]
    )
    floats = {"a": "%.2f"}
    html = tables.shown(frame, floats).to_html()
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", html)
    assert cells == ["0.12", "not measured", "1", "–", "2", "2"]
    tables.save_table(frame, "table", tmp_path, "stamp", floats)
    rows = (tmp_path / "table.md").read_text().splitlines()[2:4]
    assert [cell.strip() for row in rows for cell in row.strip("|").split("|")] == cells
