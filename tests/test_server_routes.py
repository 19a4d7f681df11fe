"""Every client's requests, as its source or its recorded traffic has them, against a running server."""

import json

import pytest
from servers import NAME, SOURCE, running, tiny


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def text(server) -> str:
    """What ten new tokens after SOURCE read as at the threshold 0.5."""
    body = {"inputs": SOURCE, "parameters": {"max_new_tokens": 10, "exit_threshold": 0.5}}
    return server.post("/generate", body).json()["generated_text"]


def events(response) -> list[str]:
    return [
        line.removeprefix("data:").strip() for line in response.text.splitlines() if line.startswith("data:")
    ]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        # llm-ls, backend huggingface: its requestBody, `inputs`, and `parameters`, nested where requestBody has none
        (
            f"/models/{NAME}",
            {"parameters": {"max_new_tokens": 10, "exit_threshold": 0.5, "return_full_text": False}},
        ),
        (
            f"/models/{NAME}",
            {
                "options": {"num_predict": 10, "RL_agent_thresh": 0.5},
                "parameters": {"parameters": {"return_full_text": False}},
            },
        ),
        ("/models/organisation/model", {"options": {"num_predict": 10}, "exit_threshold": 0.5}),
        ("/models/", {"options": {"num_predict": 10}, "exit_threshold": 0.5}),
        # llm-ls, tgi
        ("/generate", {"parameters": {"max_new_tokens": 10, "exit_threshold": 0.5}}),
        # the thesis, Listing 5, with and without the slash
        *[
            (
                path,
                {"options": {"num_predict": 10, "temperature": 0.2, "top_p": 0.95, "RL_agent_thresh": 0.5}},
            )
            for path in ("/api/generate", "/api/generate/")
        ],
        # huggingface_hub with the bare URL
        ("/", {"parameters": {"max_new_tokens": 10, "exit_threshold": 0.5}, "stream": False}),
    ],
)
def test_generated_text_without_the_prompt_and_without_a_redirect(server, text, path, body):
    response = server.post(path, {"inputs": SOURCE} | body)
    assert response.status_code == 200 and not response.history
    assert response.json()["generated_text"] == text and text
    assert response.json()["early_exit"]["threshold"] == 0.5


def test_full_text_when_it_is_asked_for(server, text):
    body = {"max_new_tokens": 10, "exit_threshold": 0.5, "return_full_text": True}
    answer = server.post("/generate", {"inputs": SOURCE, "parameters": body}).json()
    assert answer["generated_text"] == SOURCE + text


def test_ollama(server, text):
    body = {"model": NAME, "prompt": SOURCE, "options": {"num_predict": 10, "RL_agent_thresh": 0.5}}
    answer = server.post("/api/generate", body | {"stream": False}).json()
    assert (answer["model"], answer["response"], answer["done"]) == (NAME, text, True)
    assert (answer["done_reason"], answer["eval_count"]) == ("length", 10)
    lines = [json.loads(line) for line in server.post("/api/generate", body).text.splitlines()]
    assert "".join(line["response"] for line in lines) == text
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["early_exit"]["layers_used"] == answer["early_exit"]["layers_used"]
    assert len(lines) > 2


def test_openai(server, text):
    body = {"model": NAME, "prompt": SOURCE, "max_tokens": 10, "exit_threshold": 0.5}
    answer = server.post("/v1/completions", body).json()
    assert answer["choices"][0]["text"] == text and answer["choices"][0]["finish_reason"] == "length"
    assert answer["id"] and answer["usage"]["completion_tokens"] == 10
    stream = server.post(
        "/v1/completions", body | {"stream": True, "stream_options": {"include_usage": True}}
    )
    assert stream.headers["content-type"].startswith("text/event-stream")
    *chunks, done = events(stream)
    chunks = [json.loads(chunk) for chunk in chunks]
    assert done == "[DONE]" and chunks[-1]["usage"] == answer["usage"]
    choices = [chunk["choices"][0] for chunk in chunks[:-1]]
    assert "".join(choice["text"] for choice in choices) == text
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["length"]


def test_text_generation_inference_stream(server, text):
    body = {"inputs": SOURCE, "parameters": {"max_new_tokens": 10, "exit_threshold": 0.5}, "stream": True}
    chunks = [json.loads(chunk) for chunk in events(server.post("/generate", body))]
    assert len(chunks) == 10 and "".join(chunk["token"]["text"] for chunk in chunks) == text
    assert chunks[-1]["generated_text"] == text
    assert [chunk["generated_text"] for chunk in chunks[:-1]] == [None] * 9
    assert chunks[-1]["details"]["finish_reason"] == "length"


def test_tabby(server):
    assert server.client.get("/v1/health").json()["model"] == NAME
    assert server.client.get("/v1beta/server_setting").json() == {"disable_client_side_telemetry": True}
    body = {"language": "python", "segments": {"prefix": SOURCE, "suffix": "\n"}}
    answer = server.post("/v1/completions", body).json()
    whole = server.post("/v1/completions", {"prompt": SOURCE}).json()
    assert answer["id"] and answer["choices"] == [{"index": 0, "text": whole["choices"][0]["text"]}]
    foreign = server.post("/v1/completions", body | {"language": "haskell"}).json()
    assert foreign["choices"] == [{"index": 0, "text": ""}] and not foreign["early_exit"]["layers_used"]


def test_the_threshold_by_any_way_gives_the_same_text(server):
    plain = {"inputs": SOURCE}
    answers = [
        server.post("/generate", plain | {"options": {"RL_agent_thresh": 0.3}}),
        server.post("/generate", plain | {"parameters": {"exit_threshold": 0.3}}),
        server.post("/generate", plain | {"parameters": {"parameters": {"exit_threshold": 0.3}}}),
        server.post("/generate", plain | {"exit_threshold": 0.3}),
        server.post("/generate", plain, headers={"X-Exit-Threshold": "0.3"}),
        server.post("/generate", plain | {"exit_threshold": 0.3}, headers={"X-Exit-Threshold": "0.30"}),
    ]
    made = [(a.json()["generated_text"], a.json()["early_exit"]["layers_used"]) for a in answers]
    assert made == made[:1] * len(made)
    other = server.post("/generate", plain | {"exit_threshold": 1}).json()
    assert other["early_exit"]["layers_used"] != made[0][1]
    conflict = server.post("/generate", plain | {"exit_threshold": 0.4}, headers={"X-Exit-Threshold": "0.3"})
    assert conflict.status_code == 422 and "0.3 and 0.4" in conflict.json()["error"]
    assert server.post("/generate", plain).json()["early_exit"]["threshold"] == 0.9


def test_early_exit_says_what_happened(server):
    answer = server.post("/generate", {"inputs": SOURCE, "exit_threshold": 0.5}).json()["early_exit"]
    parts = tiny().parts
    assert len(answer["layers_used"]) == 15
    assert set(answer["layers_used"]) <= {*parts.exit_points, parts.total_layers}
    assert len(set(answer["layers_used"])) > 1, "a model whose exits vary"
    assert answer["mean_layers"] == pytest.approx(sum(answer["layers_used"]) / 15)
    assert answer["total_layers"] == parts.total_layers
    assert 0 < answer["flops"] and 0 < answer["flops_full_depth"]


def test_errors_have_the_form_that_the_clients_read(server):
    answer = server.post("/generate", {"inputs": SOURCE, "exit_threshold": 2})
    assert answer.status_code == 422 and set(answer.json()) == {"error"}
    answer = server.post("/v1/completions", {"prompt": SOURCE, "exit_threshold": 2})
    assert answer.status_code == 422
    (detail,) = answer.json()["detail"]
    assert set(detail) == {"loc", "msg", "type"} and all(isinstance(value, str) for value in detail.values())
    assert detail["loc"] == "exit_threshold"
    assert answer.json()["error"]["message"] == detail["msg"]


@pytest.mark.parametrize(
    "path", ["/health", "/health/", "/v1/models/", "/metrics/", "/", "/v1beta/server_setting/"]
)
def test_reading_with_and_without_a_slash(server, path):
    response = server.client.get(path)
    assert response.status_code == 200 and not response.history
