"""Every client's requests, as its source or its recorded traffic has them, against a running server."""

import json
from dataclasses import replace

import pytest
from servers import NAME, SOURCE, running, tiny

from eelib import paths
from eelib.server.promises import Promises, read_promises


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


WAYS = [
    {"options": {"RL_agent_thresh": 0.3}},
    {"parameters": {"exit_threshold": 0.3}},
    {"parameters": {"parameters": {"exit_threshold": 0.3}}},
    {"exit_threshold": 0.3},
]
ROUTES = {
    "/generate": {"inputs": SOURCE},
    "/models/x": {"inputs": SOURCE},
    "/api/generate": {"prompt": SOURCE, "stream": False},
    "/api/chat": {"messages": [{"role": "user", "content": SOURCE}], "stream": False},
    "/v1/completions": {"prompt": SOURCE},
    "/models/x/v1/completions": {"prompt": SOURCE},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": SOURCE}]},
    "/v1/completions/": {"segments": {"prefix": SOURCE}},
}


@pytest.mark.parametrize("path", ROUTES)
def test_the_threshold_by_any_way_gives_the_same_text_and_a_conflict_is_422(server, path):
    def ask(named: dict, *header: str):
        return server.post(
            path, ROUTES[path] | named, headers=[("X-Exit-Threshold", text) for text in header]
        )

    answers = [*map(ask, WAYS), ask({}, "0.3"), ask({"exit_threshold": 0.3}, "0.30", "0.3")]
    layers = [answer.json()["early_exit"]["layers_used"] for answer in answers]
    assert layers == layers[:1] * len(layers)
    assert ask({"exit_threshold": 1}).json()["early_exit"]["layers_used"] != layers[0]
    assert ask({}).json()["early_exit"]["threshold"] == 0.9
    conflicts = [ask(way, "0.4") for way in WAYS] + [
        ask({}, "0.3", "0.4"),
        ask(WAYS[0] | {"exit_threshold": 0.4}),
    ]
    for conflict in conflicts:
        assert conflict.status_code == 422 and "0.3 and 0.4" in conflict.text


PROMISES = Promises(
    (
        {"tolerated": 0.02, "threshold": None, "depth": 1.0},
        {"tolerated": 0.1, "threshold": 0.3, "depth": 0.5},
    ),
    *(0.05, 64, 128),
)


@pytest.fixture(scope="module")
def promising():
    with running(lambda: replace(tiny(), promises=PROMISES)) as server:
        yield server


@pytest.mark.parametrize("path", ROUTES)
def test_a_tolerated_loss_is_the_threshold_that_was_promised_for_it(promising, path):
    def ask(named: dict, **headers: str):
        return promising.post(path, ROUTES[path] | named, headers=headers)

    ways = (
        {"tolerated_loss": 0.1},
        {"options": {"tolerated_loss": 0.1}},
        {"parameters": {"tolerated_loss": 0.1}},
    )
    for answer in [*map(ask, ways), ask({}, **{"X-Tolerated-Loss": "0.1"})]:
        said = answer.json()["early_exit"]
        assert (said["threshold"], said["tolerated_loss"]) == (0.3, 0.1)
        assert said["layers_used"] == ask({"exit_threshold": 0.3}).json()["early_exit"]["layers_used"]
    full = ask({"tolerated_loss": 0.02}).json()["early_exit"]
    assert full["threshold"] == 1.0 and set(full["layers_used"]) == {12}
    for conflict in (
        ask({"tolerated_loss": 0.1, "exit_threshold": 0.3}),
        ask(ways[1], **{"X-Exit-Threshold": "0.9"}),
    ):
        assert conflict.status_code == 422 and "allowed is one of them" in conflict.text
    assert "0.02 and 0.1: allowed is one value" in ask(ways[0], **{"X-Tolerated-Loss": "0.02"}).text
    for loss in (0, 0.05, 0.2):
        refused = ask({"tolerated_loss": loss})
        assert refused.status_code == 422
        assert (
            f"tolerated loss is {loss:g}: this agent's promises allow 0.02 (at full depth), 0.1."
            in refused.text
        )
    for loss in ("0.1", -0.1, 1.5, True):
        assert ask({"tolerated_loss": loss}).status_code == 422


def test_the_model_says_what_is_promised(promising, server):
    (entry,) = promising.client.get("/v1/models").json()["data"]
    assert entry == promising.client.get(f"/v1/models/{NAME}").json()
    said = entry["early_exit"]
    assert said["promises"] == [
        {"tolerated_loss": 0.02, "exit_threshold": 1.0, "share_of_layers": 1.0},
        {"tolerated_loss": 0.1, "exit_threshold": 0.3, "share_of_layers": 0.5},
    ]
    assert (said["confidence"], said["calibration_prompts"], said["prompt_tokens"]) == (0.95, 64, 128)
    assert server.client.get("/v1/models").json()["data"][0]["early_exit"] == {"promises": []}
    refused = server.post("/generate", {"inputs": SOURCE, "tolerated_loss": 0.1})
    assert refused.status_code == 422 and "promises nothing" in refused.json()["error"]
    missing = server.client.get("/v1/models/other")
    assert missing.status_code == 404 and f"allowed is {NAME}" in missing.json()["error"]["message"]


@pytest.mark.parametrize("language", ["java", "python"])
def test_what_ships_promises_what_its_record_says(language):
    agent = paths.MODELS / "smollm2-135m" / "agents" / language
    rows = json.loads((agent / "record.json").read_text())["promises"]
    promises = read_promises(agent)
    assert rows and [promises.threshold(row["tolerated"]) for row in rows] == [
        1.0 if row["threshold"] is None else row["threshold"] for row in rows
    ]
    early = [row["threshold"] for row in rows if row["threshold"] is not None]
    assert early and promises.earliest(0.9) == min(early)
    assert read_promises(agent.parent) == Promises() and Promises().earliest(0.9) == 0.9


def test_chats_complete_the_users_last_message(server, text):
    messages = [
        {"role": "system", "content": "You complete code."},
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y"},
        {"role": "user", "content": [{"type": "text", "text": SOURCE}, {"type": "image_url"}]},
    ]
    body = {"messages": messages, "exit_threshold": 0.5}
    answer = server.post("/v1/chat/completions", body | {"max_tokens": 10}).json()
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": text} and choice["finish_reason"] == "length"
    assert answer["object"] == "chat.completion" and answer["usage"]["completion_tokens"] == 10
    streamed = server.post("/v1/chat/completions", body | {"max_tokens": 10, "stream": True})
    *chunks, done = events(streamed)
    deltas = [json.loads(chunk)["choices"][0] for chunk in chunks]
    assert done == "[DONE]" and "".join(delta["delta"].get("content", "") for delta in deltas) == text
    assert [delta["finish_reason"] for delta in deltas] == [None] * (len(deltas) - 1) + ["length"]
    body |= {"options": {"num_predict": 10}}
    answer = server.post("/api/chat", body | {"stream": False}).json()
    assert answer["message"]["content"] == text and answer["done"] and answer["eval_count"] == 10
    lines = [json.loads(line) for line in server.post("/api/chat", body).text.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == text and lines[-1]["done"]
    empty = server.post("/api/chat", {"messages": [{"role": "system", "content": "x"}], "stream": False})
    assert empty.json()["message"]["content"] == ""


def test_ollama_is_told_what_model_there_is(server):
    (model,) = server.client.get("/api/tags").json()["models"]
    assert model["name"] == NAME and model["size"] > 0
    shown = server.post("/api/show", {"model": NAME}).json()
    assert shown["model_info"]["llama.context_length"] == 256 and shown["details"] == model["details"]


def test_num_predict_minus_one_is_as_many_as_there_may_be(server):
    body = {"prompt": SOURCE, "stream": False, "options": {"num_predict": -1}}
    said = server.post("/api/generate", body).json()
    assert said["eval_count"] == 128 or said["done_reason"] == "stop"


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain"])
def test_a_body_of_any_type_is_json_where_no_browser_sends_it(server, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    body = json.dumps({"inputs": SOURCE})
    assert server.client.post("/generate", content=body, headers=headers).status_code == 200
    headers["Origin"] = "https://example.org"
    assert server.client.post("/generate", content=body, headers=headers).status_code == 422


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
