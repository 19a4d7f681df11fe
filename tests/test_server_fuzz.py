"""A fuzzer that reads the application's own OpenAPI finds no failure of the server."""

import re
import subprocess
from pathlib import Path

import pytest
from servers import running

SCHEMATHESIS = Path(__file__).parent.parent / ".venv-clients/bin/schemathesis"


def test_the_openapi_names_every_route_of_the_contract():
    with running() as server:
        paths = server.client.get("/openapi.json").json()["paths"]
    posts = {path for path, methods in paths.items() if "post" in methods}
    assert posts >= {"/", "/generate", "/api/generate", "/v1/completions", "/models/{model}"}
    assert {"/health", "/metrics", "/v1/health", "/v1beta/server_setting"} <= set(paths)


@pytest.mark.slow
def test_schemathesis_finds_no_5xx_in_2000_requests(tmp_path):
    if not SCHEMATHESIS.exists():
        pytest.skip("schemathesis is not set up: scripts/clients.sh makes it")
    with running(max_new_tokens=16) as server:
        run = subprocess.run(
            [SCHEMATHESIS, "run", f"{server.url}/openapi.json", "--checks", "not_a_server_error"]
            + [
                "--max-examples",
                "130",
                "--seed",
                "0",
                "--continue-on-failure",
                "--no-color",
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        samples = [
            sample
            for metric in server.app.state.metrics.requests.collect()
            for sample in metric.samples
            if sample.name == "eelib_requests_total"
        ]
    assert run.returncode == 0, run.stdout[-3000:]
    statuses = {sample.labels["status"] for sample in samples}
    count = sum(sample.value for sample in samples)
    assert count >= 2000, re.sub(r"\n+", "\n", run.stdout)[-2000:]
    assert not any(status.startswith("5") for status in statuses) and {"200", "422"} <= statuses
