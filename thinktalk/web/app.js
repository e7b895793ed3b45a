// The page's buttons, keys and fields around one Talk.

import { Camera } from "./camera.js";
import { Enrolment } from "./enrolment.js";
import { attachment } from "./files.js";
import { languages, preferred, speak, word } from "./i18n.js";
import { drawLatency, engineLine } from "./latency.js";
import { markdown, save } from "./saving.js";
import { Talk } from "./talk.js";
import { View } from "./view.js";
import { Server } from "./voices.js";
import { Waves } from "./waves.js";

// ------------------------------------------------------------------------------------------------------------- memory

/** Choices are kept in this browser; a key only until the tab is closed. */
const kept = {
  get(name) {
    return (name === "key" ? sessionStorage : localStorage).getItem(`thinktalk.${name}`);
  },
  set(name, value) {
    (name === "key" ? sessionStorage : localStorage).setItem(`thinktalk.${name}`, value);
  },
};

const $ = (id) => document.getElementById(id);
const camera = new Camera($("preview"));
const talk = new Talk(camera);
const server = new Server();
const view = new View(talk.conversation, { log: $("log"), spoken: $("spoken"), empty: $("empty") });
const enrolment = new Enrolment(server, kept, (voice) => attempt(() => talk.change({ voice })));
const waves = new Waves($("wave-you"), $("wave-voice"));
talk.onpeak = (side, peak) => waves.put(side, peak);

// ------------------------------------------------------------------------------------------------------- what is said

function notice(text) {
  $("notice").textContent = text;
}

/** Run what may fail; failures are told in one line. */
async function attempt(job, key = "noServer") {
  notice("");
  try {
    return await job();
  } catch (error) {
    notice(await reason(error, key));
    return undefined;
  }
}

/** A refused WebSocket does not tell a browser why: whether it was the key, the crowd or the server is asked once more. */
async function reason(error, key) {
  if (error.closed === 1006) {
    try {
      await server.models();
      return word("full");
    } catch (second) {
      error = second;
    }
  }
  return error.status === 401 ? word("needKey") : word(error.closed ? "noServer" : key, error.message);
}

let activity = "";

function drawState() {
  const { state } = talk.line;
  $("state").dataset.state = state;
  $("state").dataset.activity = activity;
  $("state").textContent = word(`state_${state}`) + (activity && state === "on" ? ` · ${word(activity)}` : "");
  const holding = talk.settings.mode === "hold", on = talk.microphone.on;
  $("mic-label").textContent = word(holding ? "micHold" : "microphone");
  $("mic").setAttribute("aria-pressed", String(holding ? activity === "hearing" : on));
  $("mic").dataset.hearing = String(activity === "hearing");
  $("stop").disabled = !talk.busy;
  $("camera").setAttribute("aria-pressed", String(camera.on && source === "camera"));
  $("screen").setAttribute("aria-pressed", String(camera.on && source === "screen"));
  $("preview").hidden = !camera.on;
}

talk.addEventListener("activity", ({ detail }) => {
  activity = detail;
  drawState();
});
talk.addEventListener("notice", ({ detail }) => notice(detail.text ?? word(detail.key)));
talk.line.addEventListener("state", drawState);
talk.latency.addEventListener("changed", () => {
  drawLatency($("turns"), talk.latency, word);
  const engine = talk.latency.turns.at(-1)?.engine;
  $("engine").textContent = engine ? engineLine(engine) : "";
});

// --------------------------------------------------------------------------------------------------------- microphone

for (const radio of document.querySelectorAll("[name=mode]")) {
  radio.addEventListener("change", () => attempt(async () => {
    if (talk.microphone.on) await talk.listen(false);
    await talk.change({ mode: radio.value });
    kept.set("mode", radio.value);
    drawState();
  }));
}

const hold = (down) => attempt(() => talk.hold(down), "noMicrophone");

$("mic").addEventListener("click", (event) => {
  if (talk.settings.mode === "free") attempt(() => talk.listen(!talk.microphone.on), "noMicrophone").then(drawState);
  else if (event.detail === 0 && event.pointerType === "") hold(activity !== "hearing"); // a screen reader's press: on, off
});
$("mic").addEventListener("pointerdown", (event) => {
  if (talk.settings.mode !== "hold" || event.button) return;
  $("mic").setPointerCapture(event.pointerId);
  hold(true);
});
for (const type of ["pointerup", "pointercancel"]) {
  $("mic").addEventListener(type, () => talk.settings.mode === "hold" && hold(false));
}

/** Whether the space bar has no meaning of its own where the focus is. */
const free = (target) => target === $("mic") || !target.closest?.("input:not([type=radio]), textarea, select, button, dialog, summary, a");

addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) talk.interrupt();
  if (event.code !== "Space" || talk.settings.mode !== "hold" || !free(event.target)) return;
  event.preventDefault();
  if (!event.repeat) hold(true);
});
addEventListener("keyup", (event) => {
  if (event.code !== "Space" || talk.settings.mode !== "hold" || !free(event.target)) return;
  event.preventDefault(); // the button must not be clicked as well
  hold(false);
});
addEventListener("blur", () => talk.settings.mode === "hold" && hold(false));
$("stop").addEventListener("click", () => talk.interrupt());

// ----------------------------------------------------------------------------------------------------- camera, screen

let source = null;

function look(wanted) {
  return attempt(async () => {
    const off = camera.on && source === wanted;
    camera.stop();
    if (!off) await camera.start((source = wanted));
  }, "noCamera").then(drawState);
}

camera.onlost = drawState;
$("camera").addEventListener("click", () => look("camera"));
$("screen").addEventListener("click", () => look("screen"));
$("screen").hidden = !navigator.mediaDevices?.getDisplayMedia;

// ------------------------------------------------------------------------------------------------------ writing, files

let attached = [];

function drawAttached() {
  $("attached").replaceChildren(...attached.map((file) => {
    const item = document.createElement("li"), remove = document.createElement("button");
    item.textContent = file.name;
    remove.type = "button";
    remove.textContent = "×";
    remove.setAttribute("aria-label", word("remove", file.name));
    remove.addEventListener("click", () => {
      attached = attached.filter((one) => one !== file);
      drawAttached();
      $("text").focus();
    });
    item.append(remove);
    return item;
  }));
}

async function attach(files) {
  notice("");
  for (const file of files) {
    try {
      attached.push(await attachment(file));
    } catch (error) {
      notice(word(error.message, file.name));
    }
  }
  drawAttached();
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim(), files = attached;
  if (!text && !files.length) return;
  attempt(async () => {
    if (!await talk.write(text, files)) return notice(word("refused"));
    $("text").value = "";
    attached = [];
    drawAttached();
  });
});
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // Chinese is composed with Enter
  event.preventDefault();
  $("composer").requestSubmit();
});
$("text").addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) attach(event.clipboardData.files);
});
$("attach").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", async () => {
  await attach($("file").files);
  $("file").value = "";
});

let over = 0;
addEventListener("dragenter", () => ($("drop").hidden = !++over));
addEventListener("dragleave", () => ($("drop").hidden = !--over));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  over = 0;
  $("drop").hidden = true;
  attach(event.dataTransfer.files);
});

// ----------------------------------------------------------------------------------------------------------- settings

const dark = matchMedia("(prefers-color-scheme: dark)");

function colour() {
  const theme = $("theme").value;
  document.documentElement.dataset.theme = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
}

dark.addEventListener("change", colour);
$("theme").addEventListener("change", () => {
  kept.set("theme", $("theme").value);
  colour();
});
$("language").addEventListener("change", () => {
  kept.set("language", $("language").value);
  speak($("language").value);
  drawState();
  drawAttached();
  view.refresh();
  drawLatency($("turns"), talk.latency, word);
});
for (const name of ["output", "turn", "instructions", "key"]) {
  $(name).addEventListener("change", () => attempt(async () => {
    kept.set(name, $(name).value);
    if (name === "key") {
      server.key = $(name).value;
      await meet();
    }
    await talk.change({ [name]: $(name).value });
  }));
}
$("open-settings").addEventListener("click", () => $("settings").showModal());
$("settings").addEventListener("close", () => enrolment.abandon());
$("open-export").addEventListener("click", () => {
  $("save-wav").disabled = talk.recording.empty;
  $("export").showModal();
});
$("save-text").addEventListener("click", () => {
  save(new Blob([markdown(talk.conversation.export())], { type: "text/markdown" }), "md");
});
$("save-json").addEventListener("click", () => {
  const { model, voice, instructions } = talk.settings;
  const whole = { model, voice, instructions, messages: talk.conversation.export(), latency: talk.latency.export() };
  save(new Blob([JSON.stringify(whole, null, 2)], { type: "application/json" }), "json");
});
$("save-wav").addEventListener("click", () => save(talk.recording.wav(), "wav"));
$("clear").addEventListener("click", () => attempt(async () => {
  await talk.restart();
  $("export").close();
}));

/** Who serves here, with which voices. */
async function meet() {
  [talk.settings.model] = await server.models();
  $("model").textContent = talk.settings.model;
  await enrolment.list().catch((error) => { // a model that cannot speak has none
    if (error.status !== 404) throw error;
  });
  talk.settings.voice = $("voice").value;
}

function begin() {
  for (const name of ["output", "turn", "instructions", "key", "theme", "language"]) {
    const value = kept.get(name) ?? (name === "language" ? preferred() : null);
    if (value !== null) $(name).value = value;
    if (name in talk.settings) talk.settings[name] = $(name).value;
  }
  if (!languages.includes($("language").value)) $("language").value = "en";
  server.key = talk.settings.key;
  talk.settings.mode = kept.get("mode") ?? "free";
  document.querySelector(`[name=mode][value=${talk.settings.mode}]`).checked = true;
  speak($("language").value);
  colour();
  drawState();
  attempt(meet);
}

begin();
