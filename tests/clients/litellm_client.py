"""litellm's completions, whole and streamed: `litellm_client.py URL MODEL PROMPT` prints them as JSON."""

import json
import sys

import litellm

url, model, prompt = sys.argv[1:]
asked = {
    "model": f"text-completion-openai/{model}",
    "api_base": f"{url}/v1",
    "api_key": "none",
    "prompt": prompt,
    "max_tokens": 12,
    "max_retries": 0,
}
whole = litellm.text_completion(**asked, extra_body={"exit_threshold": 0.5})
streamed = litellm.text_completion(**asked, extra_body={"exit_threshold": 0.5}, stream=True)
text = "".join(chunk.choices[0].text or "" for chunk in streamed)
try:
    litellm.text_completion(**asked, extra_body={"exit_threshold": 7})
    error = "none"
except litellm.exceptions.APIError as raised:
    error = str(raised)
except Exception as raised:  # noqa: BLE001 - litellm has one class a status
    error = str(raised)
print(json.dumps({"text": whole.choices[0].text, "streamed": text, "error": error}))
