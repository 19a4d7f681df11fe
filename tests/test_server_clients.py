"""The real clients against a really running server. Those of npm, and litellm, are set up by scripts/clients.sh."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import huggingface_hub
import ollama
import openai
import pytest
from servers import NAME, SOURCE, running

CLIENTS = Path(__file__).parent / "clients"
ENVIRONMENT = Path(__file__).parent.parent / ".venv-clients"


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def text(server) -> str:
    body = {"inputs": SOURCE, "parameters": {"max_new_tokens": 12, "exit_threshold": 0.5}}
    return server.post("/generate", body).json()["generated_text"]


def test_ollama(server, text):
    with ollama.Client(host=server.url, headers={"X-Exit-Threshold": "0.5"}) as client:
        options = {"num_predict": 12, "RL_agent_thresh": 0.5, "temperature": 0.2, "top_p": 0.95}
        answer = client.generate(NAME, SOURCE, options=options)
        assert (answer.response, answer.done, answer.eval_count) == (text, True, 12)
        *parts, last = client.generate(NAME, SOURCE, options=options, stream=True)
        assert "".join(part.response for part in parts) == text and last.done and last.done_reason == "length"
        with pytest.raises(
            ollama.ResponseError, match="new tokens are asked for: allowed are 1 to 128"
        ) as error:
            client.generate(NAME, SOURCE, options={"num_predict": 1000})
        assert error.value.status_code == 422


def test_openai(server, text):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        asked = {"model": NAME, "prompt": SOURCE, "max_tokens": 12, "extra_body": {"exit_threshold": 0.5}}
        answer = client.completions.create(**asked)
        assert answer.choices[0].text == text and answer.usage.completion_tokens == 12
        assert len(answer.early_exit["layers_used"]) == 12
        chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == text
        assert chunks[-1].usage == answer.usage
        assert [model.id for model in client.models.list()] == [NAME]
        with pytest.raises(openai.UnprocessableEntityError, match="allowed are probabilities from 0 to 1"):
            client.completions.create(model=NAME, prompt=SOURCE, extra_body={"exit_threshold": 7})


def test_openai_asynchronously_side_by_side(server):
    async def ask(client, threshold: float):
        body = {"exit_threshold": threshold}
        answer = await client.completions.create(model=NAME, prompt=SOURCE, max_tokens=12, extra_body=body)
        return answer.choices[0].text

    async def all_of(thresholds):
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return await asyncio.gather(*[ask(client, threshold) for threshold in thresholds])

    thresholds = [0.0, 0.5, 1.0] * 4
    together = asyncio.run(all_of(thresholds))
    assert together == [asyncio.run(all_of([threshold]))[0] for threshold in thresholds]


@pytest.mark.parametrize("path", ["", "/", "/generate", f"/models/{NAME}"])
def test_huggingface_hub(server, text, path):
    client = huggingface_hub.InferenceClient(model=server.url + path, headers={"X-Exit-Threshold": "0.5"})
    assert client.text_generation(SOURCE, max_new_tokens=12) == text
    detailed = client.text_generation(SOURCE, max_new_tokens=12, details=True)
    assert detailed.generated_text == text and len(detailed.details.tokens) == 12
    assert detailed.details.finish_reason == "length"
    assert "".join(client.text_generation(SOURCE, max_new_tokens=12, stream=True)) == text
    *_, last = client.text_generation(SOURCE, max_new_tokens=12, stream=True, details=True)
    assert last.generated_text == text and last.details.generated_tokens == 12


def answers_of(command: list, server) -> dict:
    """What a client's script prints, as JSON, when it is run against the server."""
    run = subprocess.run(
        [*map(str, command), server.url, NAME, SOURCE],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.slow
def test_litellm(server, text):
    python = ENVIRONMENT / "bin/python"
    if not python.exists():
        pytest.skip("litellm's environment is not set up: scripts/clients.sh makes it")
    answers = answers_of([python, CLIENTS / "litellm_client.py"], server)
    assert answers["text"] == answers["streamed"] == text
    assert "allowed are probabilities" in answers["error"]


def node_script(name: str) -> list:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (CLIENTS / "node_modules").is_dir():
        pytest.skip("the npm clients are not installed: scripts/clients.sh installs them")
    return ["node", CLIENTS / name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ollama.mjs", "openai.mjs"])
def test_npm(server, text, name):
    answers = answers_of(node_script(name), server)
    assert answers["text"] == answers["streamed"] == text
    assert "allowed are" in answers["error"]


@pytest.mark.slow
def test_tabby_agent(server):
    answers = answers_of(node_script("tabby.mjs"), server)
    whole = server.post("/v1/completions", {"prompt": SOURCE}).json()["choices"][0]["text"]
    assert answers["status"] == "ready"
    assert answers["text"] and whole.startswith(answers["text"].strip()[:5])
