"""The ledger of the thesis's claims, as a table and as one picture."""

import pandas as pd

from eelib.report import thesis_numbers


def published(name: str) -> pd.DataFrame:
    """What the claims are held against: `thesis_numbers.load`, and the frames that are computed or read otherwise, by name."""
    others = {"exit_layers": thesis_numbers.load_exit_layers, "savings": thesis_numbers.savings}
    return others[name]() if name in others else thesis_numbers.load(name)
