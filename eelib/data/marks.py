"""The mark of CodeXGLUE's token lists that models have to know, apart from what needs a parser."""

EOL = "<EOL>"  # the end of a Python line
