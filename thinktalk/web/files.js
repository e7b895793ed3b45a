// Dropped, pasted or chosen files -> attachments { kind, name, url, part }: `part` is what the server gets.

import { shrunk } from "./camera.js";
import { decodeFile, encodePcm, RATE } from "./sound.js";

const MOST_BYTES = 12 << 20; // of a video: a WebSocket message holds 16 MiB, base64 takes a third more
const MOST_SOUND_S = 180;

/** Errors: an Error whose message is a key of i18n.js. */
export async function attachment(file) {
  const kind = file.type.split("/")[0];
  const read = { image: picture, audio: sound, video }[kind];
  if (!read) throw new Error("fileKind");
  return { kind, name: file.name || kind, ...(await read(file)) };
}

async function picture(file) {
  const bitmap = await createImageBitmap(file).catch(() => { throw new Error("fileBroken"); });
  const url = shrunk(bitmap, bitmap.width, bitmap.height);
  bitmap.close();
  return { url, part: { type: "input_image", image_url: url } };
}

async function sound(file) {
  const pcm = await decodeFile(file).catch(() => { throw new Error("fileBroken"); });
  if (pcm.length > MOST_SOUND_S * RATE) throw new Error("fileLong");
  return { url: URL.createObjectURL(file), part: { type: "input_audio", audio: encodePcm(pcm) } };
}

async function video(file) {
  if (file.size > MOST_BYTES) throw new Error("fileLarge");
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("fileBroken"));
    reader.readAsDataURL(file);
  });
  return { url: URL.createObjectURL(file), part: { type: "input_video", video_url: url } };
}
