"""The environment that `run_all.sh` and `run_tests.sh` make."""

import subprocess

from eelib import paths


def test_an_environment_behind_a_link_is_never_cleared(tmp_path):
    other = tmp_path / "other"
    (other / "bin").mkdir(parents=True)
    (other / "bin" / "kept").write_text("of another tree")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / ".venv").symlink_to(other)
    (tree / "requirements.lock").write_text("a lock that the environment was not made from")
    script = f". {paths.ROOT}/scripts/environment.sh; use_environment"
    done = subprocess.run(["bash", "-c", script], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: .venv is a link") and done.stderr.count("\n") == 1
    assert (other / "bin" / "kept").exists()
