"""The one exception that stands for bad input: a sentence for a person, never a traceback. And one for a job that failed."""


class InputError(Exception):
    """A file, parameter or environment that the study cannot work with.

    The message is one sentence: what is wrong, the value found, and what is allowed. Command lines print it and exit
    with code 2; a notebook shows it in place of a traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """IPython's hook: what a notebook shows instead of the stack."""
        return [f"InputError: {self}"]


class FailedJob(Exception):
    """A job of the study that failed for another reason than bad input; the message is the end of what it said."""
