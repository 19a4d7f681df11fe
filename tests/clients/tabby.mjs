// Tabby's agent, as an editor drives it: `node tabby.mjs URL MODEL PROMPT` prints its status and its completion as JSON.
import { createRequire } from "node:module";

const { TabbyAgent } = createRequire(import.meta.url)("tabby-agent");
const [url, , prompt] = process.argv.slice(2);
const agent = new TabbyAgent();
await agent.initialize({
  config: { server: { endpoint: url }, anonymousUsageTracking: { disable: true } },
  clientProperties: { session: { client: "test" } },
});
const completion = await agent.provideCompletions({
  filepath: "file.py",
  language: "python",
  text: prompt + "\n",
  position: prompt.length,
  manually: true,
});
const text = completion.choices.length ? completion.choices[0].text : "";
console.log(JSON.stringify({ status: agent.getStatus(), text, choices: completion.choices }));
process.exit(0);
