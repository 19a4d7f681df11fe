"""The endpoint: early-exit completion for editors and ordinary clients. `python -m eelib.server` starts it."""
