"""`python -m eelib.server`, as a person starts and ends it."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from servers import save_tiny, until

from eelib.errors import InputError
from eelib.server.__main__ import main
from eelib.server.command import listening
from eelib.server.process import started

ROOT = Path(__file__).parent.parent
SECRET = "def unmistakable_prompt_text("


@contextmanager
def command(*arguments: object, **environment: str) -> Iterator[subprocess.Popen]:
    """The server as a process, which does not outlive the test."""
    process = subprocess.Popen(
        [sys.executable, "-m", "eelib.server", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--host", "0.0.0.0"], "allowed without a token in EELIB_TOKEN are 127.0.0.1, localhost, ::1"),
        (["--threshold", "1.5"], "threshold is 1.5: allowed are probabilities from 0 to 1"),
        (["--queue", "-1"], "queue is -1: allowed are values from 0"),
        (["--deadline", "nan"], "deadline is nan: allowed are seconds above 0"),
        (["--port", "70000"], "port is 70000: allowed are 0 to 65535"),
        (["--model", "gpt"], "model is 'gpt': allowed are smollm2-135m"),
        (["--profile", "laptop", "--model", "gpt"], "model is 'gpt': allowed are smollm2-135m, opt-pico"),
        (["--language", "haskell"], "language is 'haskell': allowed are java, python"),
        (["--profile", "none"], "no profile 'none': allowed are ci"),
        (["--profile", "laptop", "--seed", "9"], "seed is 9: allowed are 0 to 2"),
        (["--model-path", "x"], "--model-path and --agent-path belong together"),
        (
            ["--model-path", "x", "--agent-path", "y"],
            "There is no model in x (config.json is missing): ./run_all.sh",
        ),
        (["--profile", "gpu"], "run ./run_all.sh --profile gpu, which makes them."),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, sentence, capsys, monkeypatch):
    monkeypatch.delenv("EELIB_TOKEN", raising=False)
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    said = capsys.readouterr().err
    assert ending.value.code == 2
    assert sentence in said and said.startswith("error: ") and said.count("\n") == 1


def test_a_server_that_does_not_start_says_why_to_who_started_it():
    with pytest.raises(InputError, match="model is 'gpt': allowed are"), started("--model", "gpt"):
        pytest.fail("it cannot have started")


def test_an_agent_of_another_model_is_refused(tmp_path):
    model, agent = save_tiny(tmp_path)
    record = (agent / "policy.json").read_text()
    (agent / "policy.json").write_text(re.sub(r'"model": "\w+"', '"model": "another"', record))
    with command("--model-path", model, "--agent-path", agent, "--port", 0) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and "was trained on model another" in output


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_keeps_prompts_out_of_its_logs_and_drains_when_it_is_ended(tmp_path, ending):
    model, agent = save_tiny(tmp_path)
    with command("--model-path", model, "--agent-path", agent, "--port", 0, EELIB_TOKEN="secret") as process:
        lines = []
        while not (lines and "http://127.0.0.1:" in lines[-1]):
            lines.append(process.stdout.readline())
            assert process.poll() is None, lines
        url = re.search(r"http://\S+", lines[-1])[0]
        with httpx.Client(base_url=url, headers={"Authorization": "Bearer secret"}, timeout=20) as client:
            until(lambda: client.get("/health").status_code == 200)
            assert client.post("/generate", json={"inputs": SECRET, "exit_threshold": 7}).status_code == 422
            body = {"prompt": SECRET, "max_tokens": 128, "stream": True}
            with client.stream("POST", "/v1/completions", json=body) as response:
                chunks = response.iter_lines()
                first = next(chunks)
                process.send_signal(ending)
                rest = "\n".join(chunks)
            assert first.startswith("data: ") and "data: [DONE]" in rest, "the answer under way is finished"
        output = "".join(lines) + process.communicate(timeout=30)[0]
        assert process.returncode == 0, output
        assert "completion: " in output and "/v1/completions" in output
        assert "unmistakable" not in output and "secret" not in output


def test_a_connection_sends_an_answer_without_waiting_for_acknowledgements():
    bound = listening("127.0.0.1", 0)
    with bound, socket.create_connection(bound.getsockname()):
        accepted, _ = bound.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_a_port_in_use_is_one_sentence():
    with listening("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(
            InputError, match=f"cannot listen at port {port} of 127.0.0.1 .*: allowed are free ports"
        ):
            listening("127.0.0.1", port)
    with pytest.raises(InputError, match="cannot listen at port 0 of nowhere.invalid"):
        listening("nowhere.invalid", 0)


def test_a_line_comes_at_once_and_an_interruption_during_the_start_is_one_sentence():
    with command("--port", 0) as process:
        assert process.stdout.readline().startswith("Starting: ")  # before torch is imported
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 130 and output == "error: The server was interrupted before it served.\n"
