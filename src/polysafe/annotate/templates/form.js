"use strict";
const body = document.body.dataset;
const items = [...document.querySelectorAll("article")];
const store = `polysafe ${body.key} ${body.rater} ${body.language}`;
const by = (id) => document.getElementById(id);
let current = 0;

const radios = (item) => [...item.querySelectorAll("input[type=radio]")];
const note = (item) => item.querySelector(".note input");
const labelOf = (item) => radios(item).find((each) => each.checked)?.value ?? "";

function content() {
  const labels = items.map((item) => ({
    id: item.dataset.id,
    prompt: item.querySelector(".prompt").textContent,
    answer: item.querySelector(".answer").textContent,
    label: labelOf(item),
    note: note(item).value,
  }));
  const { key, rater, language } = body;
  return JSON.stringify({ ...JSON.parse(body.head), key, rater, language, labels }, null, 1) + "\n";
}

function remember() {
  const done = items.filter(labelOf).length;
  by("progress").textContent = `${done} of ${items.length} labelled.`;
  try {
    localStorage.setItem(store, JSON.stringify(items.map((item) => [item.dataset.id, labelOf(item), note(item).value])));
  } catch { /* a browser that keeps nothing for files: saving is what counts */ }
}

function put(rows) {
  const known = new Map(items.map((item) => [item.dataset.id, item]));
  for (const [id, label, words] of rows) {
    const item = known.get(id);
    if (!item) continue;
    for (const radio of radios(item)) radio.checked = radio.value === label;
    note(item).value = words;
  }
}

function show(place) {
  current = Math.max(0, Math.min(items.length - 1, place));
  items.forEach((item, at) => { item.hidden = at !== current; });
  items[current].querySelector(".texts").open = false;
  items[current].focus({ preventScroll: false });
}

function nextOpen() {
  const order = items.map((_, at) => (current + 1 + at) % items.length);
  const found = order.find((at) => !labelOf(items[at]));
  if (found === undefined) say("Every answer has a label. Save, and send the file back.");
  else show(found);
}

function say(text) { by("said").textContent = text; }

function save() {
  const text = content();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `${body.rater}-${body.language}.json`;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  document.querySelector("#copy textarea").value = text;
  const open = items.length - items.filter(labelOf).length;
  say(open ? `Saved; ${open} are still without a label.` : "Saved, with a label for every answer.");
}

async function load(file) {
  try {
    const told = JSON.parse(await file.text());
    if (told.key !== body.key || told.rater !== body.rater || told.language !== body.language) {
      say("This file belongs to another sheet.");
      return;
    }
    put(told.labels.map((each) => [each.id, each.label, each.note]));
    remember();
    say("Opened.");
    nextOpen();
  } catch {
    say("This file was not saved by this form.");
  }
}

for (const item of items) {
  item.addEventListener("change", remember);
  const texts = item.querySelector(".texts");
  const summary = texts.querySelector("summary");
  const name = summary.textContent.replace(/: .*/, "");
  texts.addEventListener("toggle", () => { summary.textContent = `${name}: ${texts.open ? "hide" : "show"} it`; });
}
by("back").addEventListener("click", () => show(current - 1));
by("next").addEventListener("click", () => show(current + 1));
by("open-one").addEventListener("click", nextOpen);
by("save").addEventListener("click", save);
by("load").addEventListener("change", (event) => { if (event.target.files[0]) load(event.target.files[0]); });
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=text], textarea")) return;
  const item = items[current];
  const choice = radios(item)[Number(event.key) - 1];
  if (choice) {
    choice.checked = true;
    remember();
    if (current + 1 < items.length) show(current + 1);
  } else if (event.key.toLowerCase() === "o") {
    const texts = item.querySelector(".texts");
    texts.open = !texts.open;
  } else if (event.key.toLowerCase() === "n") nextOpen();
  else if (event.key === "ArrowRight" && !event.target.matches("input")) show(current + 1);
  else if (event.key === "ArrowLeft" && !event.target.matches("input")) show(current - 1);
  else return;
  event.preventDefault();
});
try { put(JSON.parse(localStorage.getItem(store) ?? "[]")); } catch { /* nothing was kept */ }
remember();
show(0);
