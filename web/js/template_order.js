/**
 * Puts the example first among the pack's templates that needs no model: the server lists them as its file system does,
 * which on many is in no order, and the front end shows them so.
 */
import { api } from "../../../scripts/api.js";

/** What the pack's folder is called, which users choose. */
const FOLDER = decodeURIComponent(new URL("../", import.meta.url).pathname.split("/").at(-2) ?? "");

const listed = api.getWorkflowTemplates;
if (listed) {
  api.getWorkflowTemplates = async function (/** @type {any[]} */ ...args) {
    const templates = await listed.apply(this, args);
    // Their names begin with their places.
    templates?.[FOLDER]?.sort();
    return templates;
  };
}
