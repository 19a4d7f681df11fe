"""The page: its files, and in headless Chromium by keyboard."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from servers import running

SCRIPT = Path(__file__).parent / "clients/page.py"
PYTHON = Path(__file__).parent.parent / ".venv-clients/bin/python"


def test_the_page_and_what_it_loads_come_from_the_server_alone():
    with running() as server:
        page = server.client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        for name in ("page.js", "page.css", "icon.svg"):
            assert f"/static/{name}" in page.text
            assert server.client.get(f"/static/{name}").status_code == 200
        assert "http" not in page.text
        assert server.client.get("/static/../app.py").status_code == 404


@pytest.mark.slow
def test_the_page_in_chromium_by_keyboard(tmp_path):
    chromium = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("neither chromium nor google-chrome is installed")
    if not PYTHON.exists():
        pytest.skip("playwright's environment is not set up: scripts/clients.sh makes it")
    with running() as server:
        run = subprocess.run(
            [PYTHON, SCRIPT, server.url, chromium, tmp_path],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert run.returncode == 0, run.stderr
    shown = json.loads(run.stdout.splitlines()[-1])
    assert shown["threshold"] == "0.00" and shown["columns"] == shown["left"] == 15
    assert "4.0 of 12" in shown["savings"] and "67%" in shown["savings"], "everything left at layer 4"
    assert shown["indented"]
    assert shown["text"] and shown["first"] != shown["savings"]
    assert shown["focused"] == ["code", "threshold", "count", "BUTTON"]
    assert "new_tokens" in shown["error"]
    assert not shown["overflows"]
    assert [problem for problem in shown["problems"] if "422" not in problem] == []
    assert {path.name for path in tmp_path.glob("*.png")} == {"page.png", "page-dark-narrow.png"}
