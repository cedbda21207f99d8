/**
 * What the pack says in the browser, in English, and its translations: labels of commands are those of
 * `locales/<language>/commands.json`, everything else is in `locales/<language>/main.json` under `asyncVaeDecode`. The
 * server gives both to every browser (`/i18n`).
 */
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

/** Labels by command id. */
export const LABELS = {
  "AsyncVAEDecode.Replace": "Replace with Async VAE Decode",
  "AsyncVAEDecode.ReplaceAndSaveFrames": "Replace with Async VAE Decode & Save Frames",
  "AsyncVAEDecode.ReplaceAndSaveVideo": "Replace with Async VAE Decode & Save Video",
  "AsyncVAEDecode.ReplaceAll": "Replace every VAE Decode",
  "AsyncVAEDecode.ReplaceAllKeepSavers": "Replace every VAE Decode, keep the save nodes",
  "AsyncVAEDecode.Restore": "Replace with stock nodes",
  "AsyncVAEDecode.RestoreAll": "Replace every Async VAE Decode with stock nodes",
  "AsyncVAEDecode.EndBackground": "End saving in the background",
};

/** Messages by key; what is in braces is filled in. */
export const MESSAGES = {
  replaced: "Replaced: {count}",
  nothingToReplace: "There is nothing to replace here",
  lost: "Replaced: {count}. The stock nodes do not know {what} and do as they always do.",
  leftAlone: "Left as it is: {node}. What is connected to {slot} has no place in the other node.",
  swapFailed: "Nothing was replaced: this would have changed besides: {what}",
  decode: "decode",
  copy: "copy",
  save: "save",
  frames: "{count} frames",
  framesOf: "{count} / {total} frames",
  rate: "{count} fps",
  left: "{time} left",
  decodingFor: "decoding, {time}",
  noCopies: "nothing to copy: same memory",
  download: "Download {file}",
  cutShort: "Cut short: {file}",
  backgroundFailed: "Saving in the background has failed: {message}",
  backgroundEnded: "Runs in the background that were ended: {count}",
  cancelled: "cancelled",
  failed: "failed",
  runLost: "lost",
  runUnknown: "The server does not know this run any more.",
  summary: "{frames} of {size} in {time} ({rate})",
  hidden: "{hidden} of {saving} hidden",
  hiddenTitle: "{hidden} of the {saving} of copying and saving passed while frames were decoded",
  spooled: "frames on disk: {count}",
  spooledTitle: "So many frames waited on disk for their file; decoding was up to {time} ahead",
  exact: "exact",
  exactTitle: "The frames are those of VAE Decode, bit for bit",
  inexact: "not exact",
  inexactTitle: "Decoded in tiles or windows, so the frames are not bit for bit those of VAE Decode",
  bounded: "bounded",
  boundedTitle: "Memory did not grow with the clip",
  unbounded: "unbounded",
  unboundedTitle: "Memory grew with the clip",
  trace: "Trace",
  traceTitle: "Download this run as a trace, to be opened at ui.perfetto.dev",
  noTrace: "No trace",
  noTraceDetail: "The server keeps the traces of the last runs only, and this is not one of them any more.",
  milliseconds: "{count} ms",
  seconds: "{count} s",
  minutes: "{minutes} min",
  minutesAndSeconds: "{minutes} min {seconds} s",
  savingStalls: "Saving is behind (decoding waited {seconds} for it)",
  savingLags: "Saving is behind (it went on for {seconds} after decoding)",
  savingLimits: "Saving is the limit",
  savingAfter: "The clip was decoded in one go, so saving came afterwards",
  helps: "{advice}: try {remedies}.",
  moreWriters: "more writers",
  lessCompression: "a lower compression",
  fasterPreset: "a faster preset",
  measured: "{advice} An earlier run like this one waited {other} for its files with {setting}, this one {own}.",
};

/** @typedef {keyof typeof LABELS} CommandId */
/** @typedef {keyof typeof MESSAGES} MessageKey */

/** Translations of all node packs, by language. @type {Record<string, any>} */
let translations = {};

/** Get the translations; without them everything is English. */
export async function loadTexts() {
  const answer = await api.fetchApi("/i18n").catch(() => null);
  if (answer?.ok) translations = await answer.json();
}

/** @param {string} id of a command */
export function labelOf(id) {
  return translated()?.commands?.[id.replaceAll(".", "_")]?.label ?? LABELS[/** @type {CommandId} */ (id)];
}

/**
 * @param {MessageKey} key
 * @param {Record<string, unknown>} [values] for what is in braces; what has none is left as it is
 * @returns {string}
 */
export function message(key, values = {}) {
  return filled(translated()?.asyncVaeDecode?.[key] ?? MESSAGES[key], values);
}

/** What the advice begins with that names inputs, which not every node has. @type {Record<string, MessageKey>} */
const ABOUT_SAVING = { save: "savingLimits", save_stalls: "savingStalls", save_lags: "savingLags", whole: "savingAfter" };
/** What can be done about saving, by input. @type {[input: string, MessageKey][]} */
const REMEDIES = [
  ["writers", "moreWriters"],
  ["compression", "lessCompression"],
  ["preset", "fasterPreset"],
];

/**
 * What the server advises, as it gives it: in English, and as a code with values; `advice_measured` is another setting of
 * saving that took less in an earlier run.
 *
 * @typedef {object} Advice
 * @property {string} [advice]
 * @property {string | null} [advice_code]
 * @property {Record<string, number>} [advice_values] seconds
 * @property {{ setting: string, other: number, own: number } | null} [advice_measured] seconds, but for the setting
 */

/**
 * What the server advises; of saving, what the node has inputs for.
 *
 * @param {Advice} given
 * @param {string[]} inputs
 * @returns {string}
 */
export function adviceText(given, inputs) {
  const said = adviceAlone(given, inputs);
  const { advice_code: code, advice_measured: measured } = given;
  if (!measured || !code || !(code in ABOUT_SAVING)) return said;
  const { setting, other, own } = measured;
  return message("measured", { advice: said, setting, other: secondsText(other), own: secondsText(own) });
}

/**
 * @param {Advice} given
 * @param {string[]} inputs
 */
function adviceAlone({ advice = "", advice_code: code, advice_values: values = {} }, inputs) {
  const times = Object.fromEntries(Object.entries(values).map(([name, seconds]) => [name, secondsText(seconds)]));
  if (code && code in ABOUT_SAVING) {
    const said = message(ABOUT_SAVING[code], times);
    const remedies = REMEDIES.filter(([input]) => inputs.includes(input)).map(([, key]) => message(key));
    if (!remedies.length) return said;
    const listed = new Intl.ListFormat(language(), { type: "disjunction" }).format(remedies);
    return message("helps", { advice: said, remedies: listed });
  }
  const text = code && translated()?.asyncVaeDecode?.advice?.[code];
  return text ? filled(text, times) : advice;
}

/** Three digits of a number, or all of those before the point. @param {number} value */
export function numberText(value) {
  const digits = value >= 100 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 3 };
  return new Intl.NumberFormat(language(), { ...digits, useGrouping: false }).format(value);
}

/** "420 ms", "9.7 s", "3 min 20 s". @param {number} seconds */
export function secondsText(seconds) {
  if (seconds < 1) return message("milliseconds", { count: Math.round(seconds * 1000) });
  if (seconds < 100) return message("seconds", { count: numberText(seconds) });
  const whole = Math.round(seconds);
  const values = { minutes: Math.floor(whole / 60), seconds: whole % 60 };
  return message(values.seconds ? "minutesAndSeconds" : "minutes", values);
}

/**
 * A time on an axis: "0.5", "40 s", "3:20", "1:05:00".
 * @param {number} seconds
 * @param {number} longest that is on the same axis
 */
export function clockText(seconds, longest) {
  if (longest < 100) return secondsText(seconds);
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const padded = (/** @type {number} */ part) => String(part).padStart(2, "0");
  return longest < 3600 ? `${minutes}:${padded(rest)}` : `${hours}:${padded(minutes)}:${padded(rest)}`;
}

/**
 * @param {string} text
 * @param {Record<string, unknown>} values
 */
function filled(text, values) {
  return text.replace(/\{(\w+)\}/g, (braces, name) => String(values[name] ?? braces));
}

/** The front end's language, if the pack has it. */
function language() {
  const chosen = String(app.extensionManager?.setting?.get("Comfy.Locale") ?? "en");
  return translations[chosen]?.asyncVaeDecode ? chosen : "en";
}

function translated() {
  return translations[language()];
}
