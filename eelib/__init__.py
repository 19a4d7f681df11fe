"""Dynamic early exits in code language models: the executable companion to a thesis."""

import warnings

# tqdm says so whenever it is imported in a kernel without ipywidgets; its text bar is what we want there.
warnings.filterwarnings("ignore", message="IProgress not found")
