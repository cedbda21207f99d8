/**
 * Runs that finish their files in the background: what becomes of them after their node has returned is said here.
 *
 * That a file is whole, the server says by showing the node's output once more.
 */
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { LABELS, message } from "./texts.js";

const COMMAND = "AsyncVAEDecode.EndBackground";

app.registerExtension({
  name: "AsyncVAEDecode.Background",
  commands: [{ id: COMMAND, label: LABELS[COMMAND], icon: "pi pi-stop-circle", function: endAll }],
  menuCommands: [{ path: ["Extensions", "Async VAE Decode"], commands: [COMMAND] }],
  setup() {
    api.addEventListener("async_vae_decode.failed", ({ detail }) => {
      // Who has ended it knows.
      if (detail.state === "failed") say("error", message("backgroundFailed", { message: detail.message }));
    });
  },
});

async function endAll() {
  const answer = await api.fetchApi("/async_vae_decode/runs/cancel", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ run: null }),
  });
  const { cancelled } = await answer.json();
  say("info", message("backgroundEnded", { count: cancelled }));
}

/**
 * @param {"info" | "error"} severity
 * @param {string} detail
 */
function say(severity, detail) {
  // What has failed stays until somebody has read it.
  const life = severity === "error" ? undefined : 5000;
  app.extensionManager.toast.add({ severity, summary: "Async VAE Decode", detail, life });
}
