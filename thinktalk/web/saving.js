// The conversation as a file: Markdown to read, JSON to work with.

import { word } from "./i18n.js";

export function markdown(messages) {
  const who = { user: word("you"), assistant: "thinktalk", call: word("call") };
  return messages.map(({ role, text, unheard, files }) => {
    const lines = [`**${who[role]}**`];
    for (const { name } of files ?? []) lines.push(`*[${name}]*`);
    lines.push(text || word("spokenNote"));
    if (unheard?.trim()) lines.push(`~~${unheard.trim()}~~ (${word("cutNote")})`);
    return lines.join("\n\n");
  }).join("\n\n---\n\n") + "\n";
}

/** Offer a Blob as a download. */
export function save(blob, ending) {
  const link = document.createElement("a");
  const stamp = new Date().toISOString().slice(0, 19).replaceAll(":", "-");
  link.href = URL.createObjectURL(blob);
  link.download = `thinktalk-${stamp}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
