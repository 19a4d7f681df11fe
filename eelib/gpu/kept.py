"""A notebook's view of measurements that are kept with the repository: they are read and drawn, never made."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from eelib import paths
from eelib.checks import check_choice
from eelib.errors import InputError
from eelib.gpu.measured import kept_windows, provenance
from eelib.profile import variant_name
from eelib.report.figures import save_figure
from eelib.report.tables import save_table, shown
from eelib.study.notebook import refuse_undeclared_parameters


@dataclass(frozen=True)
class Kept:
    """Measurements at the thesis's sizes.

    Attributes
    ----------
    windows: a row a window, see `eelib.gpu.measured`; empty when nothing is kept.
    provenance: a row a file.
    variant: name of the folders of figures and tables.
    sentence: what there is, for the reader.
    """

    windows: pd.DataFrame
    provenance: pd.DataFrame
    variant: str
    sentence: str

    @property
    def empty(self) -> bool:
        return self.windows.empty

    @property
    def stamp(self) -> str:
        """Card and commit of the measurements, as an exhibit's footer says them."""
        cards, commits = (" and ".join(sorted(set(self.provenance[name]))) for name in ("GPU", "commit"))
        card = "no GPU, the numbers mean nothing" if cards == "none" else cards
        return f"{self.variant} · random weights, published exits · {card} · measured at commit {commits}"

    def figure(self, figure: Figure, name: str) -> Figure:
        """Save a figure as PNG and PDF with the stamp, and return it for the notebook to show."""
        save_figure(figure, name, paths.figures() / self.variant, self.stamp)
        return figure

    def table(self, frame: pd.DataFrame, name: str) -> Styler:
        """Save a table as CSV and Markdown with the stamp, and return it for the notebook to show."""
        save_table(frame, name, paths.tables() / self.variant, self.stamp)
        return shown(frame)


def open_kept(results: str | None, dtype: str, context: int) -> Kept:
    """Open the folder of measurements that a notebook's parameters name; bad parameters give InputError.

    `results` None is the folder of those that come with the repository.

    A folder without measurements is no error: the sentence says what to do about it.
    """
    refuse_undeclared_parameters()
    check_choice("dtype", dtype, ["bfloat16", "float16", "float32"])
    if isinstance(context, bool) or not isinstance(context, int):
        raise InputError(f"The parameter context is {context!r}: allowed is a whole number of tokens.")
    folder = paths.PAPER_SCALE if results is None else Path(results)
    variant = "gpu" if results is None else variant_name("gpu", {"results": folder.name})
    windows = kept_windows(folder)
    if windows.empty:
        sentence = f"Nothing measured is kept in {paths.shown(folder)}, so nothing is shown: scripts/paper_scale.sh measures it on a GPU."
        return Kept(windows, pd.DataFrame(), variant, sentence)
    there = windows[["dtype", "context"]].drop_duplicates()
    if not ((there["dtype"] == dtype) & (there["context"] == context)).any():
        pairs = ", ".join(f"{row.dtype} at {row.context}" for row in there.itertuples())
        raise InputError(f"Nothing was measured in {dtype} at context {context}: allowed are {pairs}.")
    facts = provenance(folder)
    sentence = (
        f"{len(windows)} windows in {len(facts)} files; measured on {', '.join(sorted(set(facts['GPU'])))} "
        f"({'; '.join(sorted(set(facts['measured'])))})"
    )
    return Kept(windows, facts, variant, sentence)
