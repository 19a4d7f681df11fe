"use strict";

const $ = (id) => document.getElementById(id);
const EXAMPLES = {
  python: "import os\n\n\ndef read(self, path):\n    if not os.path.exists(path):\n        ",
  java: "public class Box {\n    private int size;\n\n    public int getSize() {\n        ",
};
let health = null;
let running = null; // aborts the requests under way

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

async function start() {
  const answer = await fetch("/health");
  health = await answer.json();
  if (!answer.ok) {
    say(health.error);
    setTimeout(start, 1000); // it is loading
    return;
  }
  say("");
  $("model").textContent = `${health.model} · ${health.language} · ${health.total_layers} layers, may stop after ` +
    health.exit_points.join(", ");
  $("count").max = health.max_new_tokens;
  $("threshold").value = health.example_threshold;
  show();
  if (!$("code").value) $("code").value = EXAMPLES[health.language];
  $("code").setSelectionRange($("code").value.length, $("code").value.length);
}

function show() {
  $("shown").value = Number($("threshold").value).toFixed(2);
}

async function ask(threshold, signal) {
  const parameters = { max_new_tokens: Number($("count").value), exit_threshold: threshold, details: true };
  const started = performance.now();
  const answer = await fetch("/generate", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ inputs: $("code").value, parameters }),
    signal,
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return { ...body, milliseconds: performance.now() - started };
}

async function complete() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  say("Completing …");
  try {
    // One after the other, so that each one's time and energy are its own.
    const early = await ask(Number($("threshold").value), signal);
    const full = await ask(1, signal);
    draw(early, full);
    say("");
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
  }
}

function draw(early, full) {
  const tail = $("code").value.split("\n").slice(-6).join("\n");
  for (const [before, text, answer] of [["before", "text", early], ["before-full", "full", full]]) {
    $(before).textContent = tail;
    $(text).textContent = answer.generated_text;
  }
  $("savings").replaceChildren(...savings(early, full).map(([name, value]) => {
    const pair = element("div", "");
    pair.append(element("dt", name), element("dd", value));
    return pair;
  }));
  $("picture").replaceChildren(picture(early.early_exit));
  $("result").hidden = false;
}

function savings(early, full) {
  const said = early.early_exit, whole = full.early_exit;
  if (!said.layers_used.length) return [["Tokens", "0"]];
  const percent = (share) => `${Math.round(100 * share)}%`;
  // What follows the first difference has another text before it: that it is the same again says nothing.
  const differs = early.details.tokens.findIndex((token, i) => full.details.tokens[i]?.id !== token.id);
  const same = differs < 0 ? early.details.tokens.length : differs;
  const rows = [
    ["Mean layers a token", `${said.mean_layers.toFixed(1)} of ${said.total_layers}`],
    ["Layers saved", percent(1 - said.mean_layers / said.total_layers)],
    ["FLOPs saved, prompt included", percent(1 - said.flops / said.flops_full_depth)],
    ["Tokens as at full depth before the first other", `${same} of ${early.details.tokens.length}`],
    ["Time", `${Math.round(early.milliseconds)} ms, full ${Math.round(full.milliseconds)} ms`],
  ];
  const measured = said.energy_j !== null && whole.energy_j !== null;
  rows.push(["Energy saved", measured ? `${percent(1 - said.energy_j / whole.energy_j)} of ${whole.energy_j.toFixed(2)} J`
    : "not measured"]);
  if (said.prompt_tokens_dropped) rows.push(["Prompt tokens cut off", String(said.prompt_tokens_dropped)]);
  return rows;
}

// Figure 1.1's picture: a column a token, a row an exit point, the deepest on top; filled as far as the token ran.
function picture(said) {
  const layers = [...said.exit_points, said.total_layers];
  const table = element("table", "");
  const body = element("tbody", "");
  for (const layer of [...layers].reverse()) {
    const row = element("tr", "");
    row.append(element("th", `layer ${layer}`, { scope: "row" }));
    for (const left of said.layers_used) {
      const kind = left === layer ? "left" : left > layer ? "ran" : "skipped";
      row.append(element("td", left === layer ? String(layer) : "", { class: kind }));
    }
    body.append(row);
  }
  const foot = element("tfoot", "");
  const names = element("tr", "");
  names.append(element("th", ""));
  for (const token of said.tokens) {
    const text = token.replaceAll("\n", "↵") || "·";
    names.append(element("td", text, { title: text }));
  }
  foot.append(names);
  table.append(body, foot);
  return table;
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  complete();
});
$("threshold").addEventListener("input", show);
$("threshold").addEventListener("change", () => {
  if (!$("result").hidden) complete();
});
let leaving = false; // whether the next Tab leaves the editor, as it does after Escape
$("code").addEventListener("keydown", (event) => {
  if (event.key === "Tab" && !leaving && !event.shiftKey) {
    event.preventDefault();
    $("code").setRangeText("    ", $("code").selectionStart, $("code").selectionEnd, "end");
  }
  leaving = event.key === "Escape";
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) complete();
});
start();
