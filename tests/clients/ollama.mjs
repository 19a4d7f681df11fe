// The ollama package, whole and streamed: `node ollama.mjs URL MODEL PROMPT` prints the texts as JSON.
import { Ollama } from "ollama";

const [url, model, prompt] = process.argv.slice(2);
const client = new Ollama({ host: url });
const options = { num_predict: 12, RL_agent_thresh: 0.5, temperature: 0.2, top_p: 0.95 };
const whole = await client.generate({ model, prompt, options });
let streamed = "";
for await (const part of await client.generate({ model, prompt, options, stream: true })) streamed += part.response;
const error = await client
  .generate({ model, prompt, options: { RL_agent_thresh: 7 } })
  .then(() => "none", (raised) => raised.message);
console.log(JSON.stringify({ text: whole.response, streamed, error }));
