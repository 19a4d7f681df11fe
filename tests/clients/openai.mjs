// The openai package, whole and streamed: `node openai.mjs URL MODEL PROMPT` prints the texts as JSON.
import OpenAI from "openai";

const [url, model, prompt] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const asked = { model, prompt, max_tokens: 12, exit_threshold: 0.5 };
const whole = await client.completions.create(asked);
let streamed = "";
for await (const chunk of await client.completions.create({ ...asked, stream: true })) streamed += chunk.choices[0].text;
const error = await client.completions
  .create({ ...asked, exit_threshold: 7 })
  .then(() => "none", (raised) => raised.message);
console.log(JSON.stringify({ text: whole.choices[0].text, streamed, error }));
