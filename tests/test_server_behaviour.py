"""The contract's behaviours 1 to 9, against running servers."""

import asyncio
import concurrent.futures
import json
import socket
import sys
import threading
from dataclasses import replace

import httpx
import pytest
import torch
from replay import ReplayMonitor
from servers import SOURCE, running, tiny, until

from eelib.decoding.criteria import Agent
from eelib.decoding.generate import SingleDecoder, generate
from eelib.server.config import ServerConfig
from eelib.server.reading import Reader, read_source
from eelib.server.text import encode


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


class Gate:
    """Lets decoders take a step for every `open(1)`."""

    def __init__(self):
        self.permits = threading.Semaphore(0)
        self.steps = 0

    def open(self, steps: int) -> None:
        for _ in range(steps):
            self.permits.release()


@pytest.fixture
def gate(monkeypatch):
    """Decoding that waits for the test."""
    gate, step = Gate(), SingleDecoder.step

    def gated(self, criterion):
        assert gate.permits.acquire(timeout=20)
        gate.steps += 1
        return step(self, criterion)

    monkeypatch.setattr(SingleDecoder, "step", gated)
    gate.open(1)  # the engine's own step when it has loaded
    yield gate


@pytest.mark.parametrize("threshold", ['"0.9"', "NaN", "-0.1", "1.01", "Infinity", "true", "[0.5]", "{}"])
@pytest.mark.parametrize(
    ("path", "prompt"), [("/generate", "inputs"), ("/api/generate", "prompt"), ("/v1/completions", "prompt")]
)
def test_1_a_bad_threshold_is_422_with_a_sentence(server, path, prompt, threshold):
    body = f'{{"{prompt}": "x = ", "exit_threshold": {threshold}}}'
    response = server.client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    error = response.json()["error"]
    sentence = error if path != "/v1/completions" else error["message"]
    assert sentence.endswith(".") and "threshold" in sentence


@pytest.mark.parametrize("header", ["high", "nan", "-1", "1.5", ""])
def test_1_a_bad_threshold_header_is_422(server, header):
    response = server.post("/generate", {"inputs": "x = "}, headers={"X-Exit-Threshold": header})
    assert response.status_code == 422 and "X-Exit-Threshold" in response.json()["error"]


@pytest.mark.parametrize("count", [0, -1, 129, 10**9, 1.5, "10", True])
def test_1_a_bad_number_of_tokens_is_422(server, count):
    for prompt in ("inputs", "prompt") if count != -1 else ():  # Ollama's word for as many as there may be
        body = {prompt: "x = ", "options": {"num_predict": count}}
        assert server.post("/api/generate", body).status_code == 422
    assert server.post("/v1/completions", {"prompt": "x = ", "max_tokens": count}).status_code == 422


@pytest.mark.parametrize("path", ["/generate", "/api/generate", "/v1/completions", "/models/m", "/"])
@pytest.mark.parametrize("body", ["", "{", "[]", "null", "{}", '"text"', '{"inputs": 3, "prompt": 3}'])
def test_1_bad_json_or_no_prompt_is_422(server, path, body):
    response = server.client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422 and response.json()["error"]


def test_1_an_empty_prompt_is_an_empty_text(server):
    assert server.post("/generate", {"inputs": ""}).json()["generated_text"] == ""
    assert server.post("/api/generate", {"prompt": "", "stream": False}).json()["response"] == ""
    assert json.loads(server.post("/api/generate", {"prompt": ""}).text)["done"] is True
    assert server.post("/v1/completions", {"prompt": ""}).json()["choices"][0]["text"] == ""


def ids_of(server, source: str, new_tokens: int, threshold: float) -> list[int]:
    body = {
        "inputs": source,
        "parameters": {"max_new_tokens": new_tokens, "exit_threshold": threshold, "details": True},
    }
    return [token["id"] for token in server.post("/generate", body).json()["details"]["tokens"]]


@pytest.mark.parametrize("source", [SOURCE, "x = ", "def f(", "f", "# nothing\n"])
def test_2_and_3_full_depth_is_the_plain_models_greedy_text_by_offset(server, source):
    loaded = tiny()
    prompt, _ = encode(read_source(source, "python").code, loaded.tokenizer, 200)
    ids = torch.tensor([prompt])
    whole = loaded.parts.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, pad_token_id=2
    )[0].tolist()
    assert ids_of(server, source, 20, 1.0) == whole[len(prompt) :]


def test_2_a_prompt_that_repeats_itself_in_the_answer_is_not_taken_out(server, monkeypatch):
    loaded = tiny()
    again = loaded.tokenizer("x = x", add_special_tokens=False).input_ids
    monkeypatch.setattr(SingleDecoder, "step", lambda self, _: _repeat(self, again))
    body = {"inputs": "x = x", "parameters": {"max_new_tokens": 3}}
    assert server.post("/generate", body).json()["generated_text"] == " x = x"


def _repeat(decoder: SingleDecoder, ids: list[int]) -> tuple[int, int]:
    token = ids[len(decoder.sequence) - decoder.prompt_length]
    decoder.sequence.append(token)
    return token, 4


def test_3_temperature_0_repeats_exactly(server):
    body = {"prompt": SOURCE, "stream": False, "options": {"temperature": 0, "num_predict": 30}}
    answers = [server.post("/api/generate", body).json() for _ in range(2)]
    assert answers[0]["response"] == answers[1]["response"]
    assert answers[0]["early_exit"]["layers_used"] == answers[1]["early_exit"]["layers_used"]
    assert answers[0]["early_exit"]["decoding"] == "greedy"


def test_4_side_by_side_each_gets_what_it_gets_alone(server):
    requests = [
        (SOURCE + "x = " * (i % 3), 5 + 7 * (i % 4), (0.0, 0.3, 0.5, 0.9, 1.0)[i % 5]) for i in range(24)
    ]

    def ask(request):
        source, count, threshold = request
        body = {"prompt": source, "max_tokens": count, "exit_threshold": threshold}
        answer = server.post("/v1/completions", body).json()
        return answer["choices"][0]["text"], answer["early_exit"]["layers_used"]

    alone = list(map(ask, requests))
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, requests)) == alone
    loaded = tiny()
    for (source, count, threshold), (_, layers) in zip(requests, alone, strict=True):
        prompt, _ = encode(read_source(source, "python").code, loaded.tokenizer, 256 - count)
        criterion = Agent(loaded.policy, threshold)
        mode = server.engine.config.cache_mode
        assert generate(loaded.parts, prompt, count, criterion, mode).exit_layers == layers


def test_5_a_full_queue_is_429_at_once_with_retry_after(gate):
    with running(side_by_side=1, queue=1) as server, concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = [pool.submit(server.post, "/generate", {"inputs": SOURCE}) for _ in range(2)]
        until(lambda: server.engine.active + server.engine.waiting == 2)
        refused = server.post("/generate", {"inputs": SOURCE})
        assert (
            refused.status_code == 429
            and refused.headers["Retry-After"] == "1"
            and "full" in refused.json()["error"]
        )
        refused = server.post("/v1/completions", {"prompt": SOURCE})
        assert refused.status_code == 429 and refused.json()["error"]["type"] == "rate_limit_error"
        gate.open(1000)
        assert [answer.result().status_code for answer in first] == [200, 200]


def test_5_a_deadline_is_504_and_frees_the_slot(gate):
    with running(deadline=0.2) as server:
        late = server.post("/generate", {"inputs": SOURCE})
        assert late.status_code == 504 and "deadline of 0.2 s" in late.json()["error"]
        gate.open(1)
        until(lambda: server.engine.active == 0)
        streamed = server.post("/v1/completions", {"prompt": SOURCE, "stream": True})
        assert "deadline" in streamed.text and "[DONE]" not in streamed.text
        gate.open(1)
        until(lambda: server.engine.active == 0)
        assert server.metric("eelib_cancellations_total") == 2


def test_5_a_large_body_is_413(server):
    limit = ServerConfig().max_body
    assert server.post("/generate", {"inputs": "x" * limit}).status_code == 413
    chunks = (b"x" * 65536 for _ in range(10))  # without a length
    response = httpx.post(
        f"{server.url}/v1/completions", content=chunks, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413 and str(limit) in response.json()["error"]["message"]


def test_5_of_a_long_prompt_the_last_tokens_are_kept_and_the_answer_says_so(server):
    source = "".join(f"name{i} = value{i}\n" for i in range(200))
    body = {"max_new_tokens": 20, "details": True, "exit_threshold": 1.0}
    answer = server.post("/generate", {"inputs": source, "parameters": body}).json()
    loaded = tiny()
    code = read_source(source, "python").code
    ids = loaded.tokenizer(" ".join(code), add_special_tokens=False, verbose=False).input_ids
    said = answer["early_exit"]
    # No more than leave room, dropped in steps of a quarter of the room.
    dropped = said["prompt_tokens_dropped"]
    assert dropped % 59 == 0 and len(ids) - 235 <= dropped < len(ids) - 235 + 59
    assert said["prompt_tokens"] == 1 + len(ids) - dropped
    prompt = [loaded.tokenizer.bos_token_id, *ids[dropped:]]
    expected = generate(loaded.parts, prompt, 20, Agent(loaded.policy, 1.0)).tokens
    assert [token["id"] for token in answer["details"]["tokens"]] == expected
    short = server.post("/generate", {"inputs": "x = "}).json()["early_exit"]
    assert short["prompt_tokens_dropped"] == 0


def test_5_of_a_source_no_more_is_read_than_the_context_can_use(server):
    limit = 16 * 256
    for body in ("." * 200_000, "x = 1\n" * 30_000):
        answer = server.post("/generate", {"inputs": body}).json()["early_exit"]
        assert len(body) - limit <= answer["source_characters_dropped"] < len(body) - limit // 2
    assert server.post("/generate", {"inputs": SOURCE}).json()["early_exit"]["source_characters_dropped"] == 0


def slow_reading(monkeypatch) -> None:
    """Make a source that is being read wait for ever, in the reader's process."""
    loop = "import sys, time; sys.stdin.buffer.read(1); time.sleep(60)"

    async def start(self):
        self._process = await asyncio.create_subprocess_exec(sys.executable, "-c", loop, stdin=-1, stdout=-1)

    monkeypatch.setattr(Reader, "start", start)


def test_5_a_source_that_takes_for_ever_counts_in_deadline_and_queue_and_holds_up_nobody(monkeypatch):
    slow_reading(monkeypatch)
    limits = {"deadline": 1.0, "side_by_side": 1, "queue": 0}
    with running(**limits) as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
        late = pool.submit(httpx.post, f"{server.url}/generate", json={"inputs": "List<" * 9})
        until(lambda: server.engine.waiting == 1)
        process = server.engine.reader._process
        assert server.client.get("/health").status_code == 200 and not late.done()
        assert server.post("/generate", {"inputs": SOURCE}).status_code == 429
        assert late.result().status_code == 504 and server.engine.waiting == 0
        until(lambda: process.returncode is not None)  # ended, and another one reads
        server.engine.config = replace(server.engine.config, deadline=20.0)
        assert server.post("/generate", {"inputs": SOURCE}).status_code == 200


def test_a_source_that_ends_within_a_string_or_comment_gets_no_code(server):
    for source in ("x = 'a", "# why"):
        answer = server.post("/v1/completions", {"prompt": source}).json()
        assert answer["choices"][0]["text"] == "" and answer["choices"][0]["finish_reason"] == "stop"
        assert "string or a comment" in answer["early_exit"]["note"] and not answer["early_exit"]["tokens"]
    assert server.post("/v1/completions", {"prompt": "# why\n"}).json()["early_exit"]["note"] is None


@pytest.mark.parametrize("stream", [False, True])
def test_6_a_client_that_hangs_up_stops_its_decoding_within_a_token(gate, stream):
    with running(side_by_side=1) as server:
        body = json.dumps({"prompt": SOURCE, "max_tokens": 100, "stream": stream}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
        connection.sendall(head.encode() + body)
        gate.open(3)
        until(lambda: gate.steps == 4)
        connection.close()
        job = server.engine._active[0]
        until(lambda: job.cancelled)
        gate.open(1)  # the token that was under way
        until(lambda: server.engine.active == 0)
        assert gate.steps <= 5 and server.metric("eelib_cancellations_total") == 1
        gate.open(1000)
        assert server.post("/generate", {"inputs": SOURCE}).status_code == 200, "the slot is free"


def test_6_a_client_that_hangs_up_in_the_queue_leaves_it(gate):
    with running(side_by_side=1, queue=1) as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.post, "/generate", {"inputs": SOURCE})
        until(lambda: server.engine.active == 1)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/generate", json={"inputs": SOURCE}, timeout=0.2)
        until(lambda: server.engine.waiting == 0)
        assert server.metric("eelib_cancellations_total") == 1
        gate.open(1000)
        assert first.result().status_code == 200


def test_7_health_answers_during_a_generation(gate):
    with running() as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(server.post, "/generate", {"inputs": SOURCE})
        until(lambda: server.engine.active == 1)
        assert server.client.get("/health").json()["status"] == "ok"
        assert not under_way.done()
        gate.open(1000)
        assert under_way.result().status_code == 200


def test_7_while_loading_503_says_so():
    ready = threading.Event()

    def load():
        ready.wait(20)
        return tiny()

    with running(load, wait=False) as server:
        until(lambda: _answers(server))
        for path, body in (
            ("/generate", {"inputs": "x"}),
            ("/v1/completions", {"prompt": "x"}),
            ("/api/generate", {"prompt": "x"}),
        ):
            response = server.post(path, body)
            assert response.status_code == 503 and "is currently loading" in response.text
        assert server.client.get("/health").status_code == 503
        ready.set()
        until(lambda: server.client.get("/health").status_code == 200)


def _answers(server) -> bool:
    try:
        return bool(server.client.get("/health").status_code)
    except httpx.ConnectError:
        return False


def test_7_a_model_that_cannot_be_loaded_says_so():
    def load():
        raise OSError("gone")

    with running(load, wait=False) as server:
        until(lambda: server.engine.failure is not None)
        assert "could not be loaded" in server.client.get("/health").json()["error"]


def test_8_a_token_is_needed_where_one_is_set():
    with running(token="secret") as server:
        assert server.client.get("/health").status_code == 200
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "secret"},
            {"Authorization": "Basic x"},
        ):
            for path in (
                "/generate",
                "/v1/completions",
                "/metrics",
                "/",
                "/openapi.json",
                "/static/page.js",
                "/health/x",
            ):
                assert server.client.request("GET", path, headers=headers).status_code == 401
            refused = server.post("/generate", {"inputs": "x"}, headers=headers)
            assert refused.status_code == 401 and "token" in refused.json()["error"]
        right = {"Authorization": "Bearer secret"}
        assert server.post("/generate", {"inputs": "x"}, headers=right).status_code == 200
        assert server.client.get("/", auth=("anyone", "secret")).status_code == 200, (
            "as a browser asks for it"
        )


@pytest.mark.parametrize(
    "host", ["example.org", "127.0.0.1.example.org", "", "[", "localhost.example.org:80"]
)
def test_8_a_foreign_host_is_403(server, host):
    assert server.client.get("/health", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"])
def test_8_the_servers_own_names_are_allowed(server, host):
    assert server.client.get("/health", headers={"Host": host}).status_code == 200


def test_9_metrics_count_what_ran():
    with running() as server:
        layers = server.post("/generate", {"inputs": SOURCE, "exit_threshold": 0.5}).json()["early_exit"][
            "layers_used"
        ]
        server.post("/generate", {"inputs": 3})
        until(lambda: server.metric("eelib_requests_total", route="/generate", status="422") == 1)
        page = server.client.get("/metrics").text
        assert 'eelib_requests_total{route="/generate",status="200"} 1.0' in page
        assert server.metric("eelib_tokens_total") == len(layers) == 15
        assert server.metric("eelib_layers_run_total") == sum(layers)
        assert server.metric("eelib_layers_skipped_total") == 12 * 15 - sum(layers)
        assert server.metric("eelib_request_seconds_count", route="/generate") == 2
        for name in ("eelib_queue_waiting", "eelib_queue_active", "eelib_energy_joules_total"):
            assert f"{name} 0.0" in page


def test_energy_is_the_requests_own_or_null():
    with running() as server:
        answer = server.post("/generate", {"inputs": SOURCE}).json()["early_exit"]
        if server.engine.monitor.source == "none":
            assert answer["energy_j"] is None and answer["energy_source"] == "none"
            assert "not measured" in answer["energy_scope"]
        server.engine.monitor = ReplayMonitor([(0.1, 2.5)] * 20)
        answer = server.post("/generate", {"inputs": SOURCE}).json()["early_exit"]
        assert (answer["energy_j"], answer["energy_source"]) == (2.5, "nvml")
        assert server.metric("eelib_energy_joules_total") == 2.5


def test_energy_of_requests_side_by_side_is_nobodys(gate):
    with running() as server, concurrent.futures.ThreadPoolExecutor(2) as pool:
        server.engine.monitor = ReplayMonitor([(0.1, 2.5)] * 2)
        both = [pool.submit(server.post, "/generate", {"inputs": SOURCE}) for _ in range(2)]
        until(lambda: server.engine.active + server.engine.waiting == 2)
        gate.open(1000)
        for answer in both:
            said = answer.result().json()["early_exit"]
            assert said["energy_j"] is None and "side by side" in said["energy_scope"]


def test_stop_sequences_end_the_text_before_them(server):
    whole = server.post("/v1/completions", {"prompt": SOURCE, "max_tokens": 40}).json()["choices"][0]["text"]
    stop = whole[10:13]
    cut = whole[: whole.index(stop)]
    for stream in (False, True):
        body = {"prompt": SOURCE, "max_tokens": 40, "stop": [stop, "never"], "stream": stream}
        answer = server.post("/v1/completions", body)
        if stream:
            chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
            assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == cut
            assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        else:
            assert answer.json()["choices"][0] == {
                "index": 0,
                "text": cut,
                "logprobs": None,
                "finish_reason": "stop",
            }


def test_a_failing_request_leaves_the_others_alone(server, monkeypatch):
    def fail(self, criterion):
        raise ValueError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(SingleDecoder, "step", fail)
        with httpx.Client(base_url=server.url) as client:
            response = client.post("/generate", json={"inputs": SOURCE})
    assert response.status_code == 500 and response.json() == {"error": "The server failed with ValueError."}
    assert server.post("/generate", {"inputs": SOURCE}).status_code == 200
