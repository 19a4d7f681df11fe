"""Keeping notices that no reader can act on out of notebooks and terminals."""

import logging
import warnings

import transformers


def quieten_libraries() -> None:
    """Keep notices that no reader can act on out of the notebooks; warnings about the computation stay."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()  # of loading weights, a blink for each
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
