/**
 * The words of the swap commands, in English, and their translations: labels are those of
 * `locales/<language>/commands.json`, messages those of `locales/<language>/main.json` under `asyncVaeDecode`.
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
};

/** Messages by key. */
export const MESSAGES = {
  replaced: "Replaced: {count}",
  nothingToReplace: "There is nothing to replace here",
  lost: "Replaced: {count}. The stock nodes do not know {what} and do as they always do.",
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
 * @param {Record<string, unknown>} [values] for what is in braces
 * @returns {string}
 */
export function message(key, values = {}) {
  const text = translated()?.asyncVaeDecode?.[key] ?? MESSAGES[key];
  return Object.entries(values).reduce((filled, [name, value]) => filled.replace(`{${name}}`, String(value)), text);
}

function translated() {
  return translations[app.extensionManager?.setting?.get("Comfy.Locale") ?? "en"];
}
