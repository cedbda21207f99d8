"""The live view of a run in its node: while it runs, afterwards, after a reload, in a second tab, in a subgraph."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from async_decode.report.words import ADVICE
from tests.browser.test_after_run import is_early_vue
from tests.comfyui.client import Client
from tests.comfyui.fixtures import Models
from tests.comfyui.server import PACK_FOLDER, REPOSITORY

if TYPE_CHECKING:
    from tests.browser.front_end import FrontEnd, Renderer, Theme

NODE = "AsyncVAEDecodeSaveFrames"
VIEW = ".async-vae-decode-view"
#: Milliseconds for what happens on a server that may be busy.
PATIENCE = 90_000
#: How many blocks each lane shows, what the view says, and of which run it is; null where there is no view.
SHOWN = """
() => {
  const view = document.querySelector(".async-vae-decode-view");
  if (!view) return null;
  const blocks = {};
  for (const svg of view.querySelectorAll("svg")) blocks[svg.dataset.lane] = svg.querySelectorAll("rect").length;
  const written = view.querySelector("b")?.textContent;
  return { ...view.dataset, blocks, written, text: view.innerText, height: view.getBoundingClientRect().height };
}
"""
#: The view of the node whose id is ``id``, on the page or not.
VIEW_OF_NODE = "window.testNode(id).widgets.find(({ name }) => name.startsWith('async_vae_decode'))?.element"
WIDGET = "node.widgets.find(({ name }) => name.startsWith('async_vae_decode'))"
_numbers = itertools.count()


class Scene:
    """A decode that waits in the middle: 13 frames of noise, or 17 of the demo, held at its third step.

    Args:
        front_end: where it is built.
        client: who opens the gate.
        latent, vae: the nodes that give them, with their widgets.
    """

    def __init__(
        self,
        front_end: FrontEnd,
        client: Client,
        latent: tuple[str, dict[str, Any]],
        vae: str,
        *,
        action: str = "hold",
        saver: tuple[str, dict[str, Any]] = (NODE, {"compression": 9, "writers": 2}),
    ) -> None:
        self.front_end = front_end
        self.client = client
        self.gate = f"view-{next(_numbers)}"
        load_latent = front_end.add(latent[0], pos=(40, 100), **latent[1])
        load_vae = front_end.add("TestLoadVAE", pos=(40, 320), vae_name=vae)
        step = front_end.add("TestDecoderStep", pos=(40, 460), step=3, action=action, gate=self.gate)
        self.node = front_end.add(saver[0], pos=(400, 100), filename_prefix="view", **saver[1])
        front_end.connect(load_latent, "LATENT", self.node, "samples")
        front_end.connect(load_vae, "VAE", step, "vae")
        front_end.connect(step, "VAE", self.node, "vae")
        front_end.centre(self.node)

    def run_until_held(self, written: int = 0) -> str:
        """Queue it; return the prompt's id when its view shows so many frames and a block of decoding."""
        prompt_id = self.front_end.queue()
        self.wait_for("shown && shown.blocks.decode > 0 && Number(shown.written) >= argument", written)
        self.front_end.centre(self.node)
        return prompt_id

    def finish(self, prompt_id: str) -> dict[str, Any]:
        """Open the gate; return what the view shows when the run is over."""
        self.client.open_gate(self.gate)
        self.front_end.wait(prompt_id)
        self.wait_for('shown.outcome !== "running"')
        return self.shown()

    def shown(self) -> Any:
        """What the view shows."""
        return self.front_end.page.evaluate(SHOWN)

    def wait_for(self, condition: str, argument: Any = None, front_end: FrontEnd | None = None) -> None:
        """Wait until what the view shows fulfils a condition."""
        page = (front_end or self.front_end).page
        page.wait_for_function(
            f"(argument) => {{ const shown = ({SHOWN})(); return {condition}; }}", arg=argument, timeout=PATIENCE
        )


@pytest.fixture
def stage(client: Client, models: Models) -> Callable[..., Scene]:
    """Builds a scene in a front end, with noise for a latent."""

    def stage(front_end: FrontEnd, **settings: Any) -> Scene:
        # Front ends change a seed after each run, unless they are told not to.
        noise = {"shape": "1,16,4,8,8", "seed": 100 + next(_numbers), "control_after_generate": "fixed"}
        return Scene(front_end, client, ("TestLatent", noise), models.file("wan21"), **settings)

    return stage


@pytest.mark.parametrize(("renderer", "theme"), [("litegraph", "dark"), ("vue", "light")])
def test_lanes_fill_while_the_node_runs_and_stay_afterwards(
    open_front_end: Callable[..., FrontEnd], client: Client, demo: dict[str, str], renderer: Renderer, theme: Theme
) -> None:
    front_end = open_front_end(renderer=renderer, theme=theme)
    scene = Scene(front_end, client, ("LoadLatent", {"latent": demo["latent"]}), demo["vae"])

    prompt_id = scene.run_until_held(written=4)
    running = scene.shown()
    front_end.screenshot("pipeline-running", scene.node)
    done = scene.finish(prompt_id)
    front_end.centre(scene.node)
    front_end.screenshot("pipeline-done", scene.node)

    assert running["outcome"] == "running"
    assert "/ 17 frames" in running["text"]
    assert running["blocks"]["save"] >= 4
    assert done["run"] == running["run"]
    assert done["outcome"] == "completed"
    assert done["text"].startswith("17 frames") and "fps" in done["text"]
    # Two spans, decode and finish, for each piece of which some may be drawn as one.
    assert done["blocks"]["decode"] > running["blocks"]["decode"]
    assert done["blocks"]["save"] >= 17
    assert "exact" in done["text"] and "bounded" in done["text"] and " hidden" in done["text"]
    assert "nothing to copy" in running["text"] and "nothing to copy" in done["text"]
    assert "Trace" in done["text"]
    assert 140 < done["height"] / front_end.page.evaluate("() => window.app.canvas.ds.scale") < 260


@pytest.mark.own_page
def test_a_reload_in_mid_run_and_a_second_tab(
    open_front_end: Callable[..., FrontEnd], stage: Callable[..., Scene]
) -> None:
    front_end = open_front_end()
    scene = stage(front_end)
    prompt_id = scene.run_until_held()
    before = scene.shown()

    front_end.reload()
    scene.wait_for("shown && shown.blocks.decode > 0")
    reloaded = scene.shown()
    beside = open_front_end(beside=front_end)
    beside.load(front_end.workflow())
    scene.wait_for("shown && shown.blocks.decode > 0", front_end=beside)
    second = beside.page.evaluate(SHOWN)
    front_end.page.bring_to_front()
    done = scene.finish(prompt_id)
    beside.page.bring_to_front()
    scene.wait_for('shown.outcome === "completed"', front_end=beside)

    assert before["run"] == reloaded["run"] == second["run"] == done["run"]
    assert reloaded["outcome"] == second["outcome"] == "running"
    assert reloaded["blocks"]["decode"] >= before["blocks"]["decode"] > 0
    assert done["text"].startswith("13 frames")
    assert beside.page.evaluate(SHOWN)["blocks"] == done["blocks"]


@pytest.mark.own_page
def test_a_run_that_is_over_is_there_after_a_reload(front_end: FrontEnd, stage: Callable[..., Scene]) -> None:
    scene = stage(front_end)
    done = scene.finish(scene.run_until_held())

    front_end.reload()
    scene.wait_for('shown && shown.outcome === "completed"')

    reloaded = scene.shown()
    assert (reloaded["run"], reloaded["blocks"]) == (done["run"], done["blocks"])


def test_the_trace_is_downloaded(front_end: FrontEnd, stage: Callable[..., Scene], tmp_path: Path) -> None:
    scene = stage(front_end)
    scene.finish(scene.run_until_held())

    with front_end.page.expect_download() as download:
        front_end.page.click(f"{VIEW} button.trace")
    file = tmp_path / "trace.json"
    download.value.save_as(file)

    trace = json.loads(file.read_text("utf-8"))
    assert download.value.suggested_filename.endswith(".json")
    assert trace["otherData"]["report"]["frames"] == 13
    assert sum(event["ph"] == "X" for event in trace["traceEvents"]) > 13


@pytest.mark.own_page
@pytest.mark.parametrize("renderer", ["litegraph", "vue"])
def test_a_node_in_a_subgraph_shows_its_run(
    open_front_end: Callable[..., FrontEnd], stage: Callable[..., Scene], renderer: Renderer
) -> None:
    front_end = open_front_end(renderer=renderer)
    scene = stage(front_end)
    scene.node = into_a_subgraph(front_end, scene.node)

    if renderer == "vue" and front_end.server.core.version.startswith("0.3."):
        # Its front end, 1.27.10, hands the outermost graph to its Vue nodes once and for all: with a subgraph open it
        # goes on drawing the nodes outside, and none of those inside. So there is no place for the view until LiteGraph
        # draws again, least of all in the node outside that has the same id.
        scene.client.open_gate(scene.gate)
        front_end.wait(front_end.queue())
        front_end.node(scene.node, "new Promise((done) => setTimeout(done, 500))")
        assert scene.shown() is None
        front_end.setting("Comfy.VueNodes.Enabled", False)
        scene.wait_for('shown && shown.outcome === "completed"')
        done = scene.shown()
    else:
        done = scene.finish(scene.run_until_held())
    front_end.centre(scene.node)
    front_end.screenshot(f"pipeline-subgraph-{renderer}", scene.node)

    assert done["outcome"] == "completed"
    assert done["text"].startswith("13 frames")
    assert front_end.node(scene.node, "node.widgets.some((widget) => widget.name.startsWith('async_vae_decode'))")


def test_a_run_shows_in_its_own_workflow_only(front_end: FrontEnd, stage: Callable[..., Scene]) -> None:
    scene = stage(front_end)
    workflow = front_end.workflow()
    prompt_id = scene.run_until_held()

    front_end.load({**workflow, "id": "0f0f0f0f-1111-4222-8333-444444444444"})
    front_end.page.evaluate(
        "() => window.comfyAPI.api.api.addEventListener('executed', () => (window.executedHere = true))"
    )
    scene.client.open_gate(scene.gate)
    front_end.wait(prompt_id)
    front_end.page.wait_for_function("() => window.executedHere", timeout=PATIENCE)
    front_end.centre(scene.node)
    elsewhere = scene.shown()
    front_end.load(workflow)
    scene.wait_for('shown && shown.outcome === "completed"')

    assert elsewhere is None
    assert scene.shown()["text"].startswith("13 frames")


@pytest.mark.own_page
def test_a_cancelled_run_and_a_failed_one_say_so(
    front_end: FrontEnd, stage: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = stage(front_end)
    prompt_id = scene.run_until_held()
    scene.client.interrupt()
    cancelled = scene.finish(prompt_id)
    front_end.clear()
    failing = stage(front_end, action="raise", saver=("AsyncVAEDecodeSaveVideo", {}))
    front_end.set_widget(failing.node, "filename_prefix", "failed/view")
    failed_id = front_end.queue()
    front_end.wait(failed_id)
    failing.wait_for('shown && shown.outcome !== "running"')
    front_end.centre(failing.node)
    front_end.screenshot("pipeline-failed", failing.node)

    assert (cancelled["outcome"], failing.shown()["outcome"]) == ("cancelled", "failed")
    assert "cancelled" in cancelled["text"]
    assert "the decoder fails at step 3" in failing.shown()["text"], "the reason is in the view"
    (left,) = (front_end.server.output / "failed").glob("view_*_cut-short.mp4")
    assert f"Cut short: {left.name}" in failing.shown()["text"]
    # Older front ends show a dialog in front of it.
    front_end.page.keyboard.press("Escape")
    with front_end.page.expect_download() as download:
        front_end.page.locator(f"{VIEW} a.file").click()
    download.value.save_as(tmp_path / "left.mp4")
    assert (tmp_path / "left.mp4").read_bytes() == left.read_bytes()
    # After a reload as well.
    front_end.reload()
    failing.wait_for('shown && shown.outcome === "failed"')
    assert f"Cut short: {left.name}" in failing.shown()["text"]


#: By what a text is in the view, its least contrast with what is behind it, as WCAG 2 counts it.
CONTRAST = """
() => {
  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const colour = (css) => {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = css;
    pixel.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = pixel.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const light = (rgb) => rgb
    .map((part) => part / 255)
    .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const least = {};
  const view = document.querySelector(".async-vae-decode-view");
  const around = [];
  for (let element = view; element; element = element.parentElement) around.unshift(element);
  const drawn = view.closest("[data-node-id]") ? [] : [window.LiteGraph.NODE_DEFAULT_BGCOLOR];
  for (const element of view.querySelectorAll("*")) {
    const told = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    if (!told || !element.checkVisibility()) continue;
    const inside = [];
    for (let part = element; part !== view; part = part.parentElement) inside.unshift(part);
    const layers = drawn.length ? [...drawn, ...[view, ...inside].map((part) => getComputedStyle(part).backgroundColor)]
      : [...around, ...inside].map((part) => getComputedStyle(part).backgroundColor);
    const below = layers.map(colour).reduce((ground, layer) => over(layer, ground), [255, 255, 255]);
    const [darker, lighter] = [light(below), light(over(colour(getComputedStyle(element).color), below))].sort();
    const name = `${element.tagName} ${element.className}`;
    least[name] = Math.min(least[name] ?? 21, (lighter + 0.05) / (darker + 0.05));
  }
  return least;
}
"""


def test_texts_can_be_read_in_either_theme(
    open_front_end: Callable[..., FrontEnd], stage: Callable[..., Scene], renderer: Renderer, theme: Theme
) -> None:
    front_end = open_front_end(renderer=renderer, theme=theme)
    scene = stage(front_end, action="raise", saver=("AsyncVAEDecodeSaveVideo", {}))
    front_end.wait(front_end.queue())
    scene.wait_for('shown && shown.outcome === "failed"')
    front_end.page.keyboard.press("Escape")
    front_end.centre(scene.node)
    front_end.screenshot("pipeline-failed", scene.node)

    contrast = front_end.page.evaluate(CONTRAST)

    assert len(contrast) > 7, contrast
    assert {name: ratio for name, ratio in contrast.items() if ratio < 4.5} == {}


def test_what_comes_from_the_cache_shows_the_run_that_made_it(front_end: FrontEnd, stage: Callable[..., Scene]) -> None:
    scene = stage(front_end)
    front_end.connect(front_end.node(scene.node, "String(node.graph.nodes[1].id)"), "VAE", scene.node, "vae")
    front_end.wait(front_end.queue())
    scene.wait_for('shown && shown.outcome === "completed"')
    ran = scene.shown()

    # Without the run in the browser's memory, as after the workflow had been opened anew.
    front_end.load(front_end.workflow())
    entry = front_end.wait(front_end.queue())
    scene.wait_for('shown && shown.outcome === "completed"')

    assert json.loads(entry["outputs"][scene.node]["async_vae_decode"][0])["run"] == ran["run"]
    assert scene.shown()["run"] == ran["run"]


@pytest.mark.parametrize("language", ["fr", "zh"])
def test_speaks_the_language_of_the_front_end(
    open_front_end: Callable[..., FrontEnd], stage: Callable[..., Scene], language: str
) -> None:
    said = json.loads((REPOSITORY / "locales" / language / "main.json").read_text("utf-8"))["asyncVaeDecode"]
    front_end = open_front_end(settings={"Comfy.Locale": language})
    scene = stage(front_end)

    prompt_id = scene.run_until_held()
    running = scene.shown()
    done = scene.finish(prompt_id)
    front_end.centre(scene.node)
    front_end.screenshot(f"pipeline-{language}", scene.node)
    outputs = front_end.get(f"/history/{prompt_id}")[prompt_id]["outputs"]
    report = json.loads(outputs[scene.node]["async_vae_decode"][0])

    assert [name for name in ("decode", "copy", "save") if said[name] not in running["text"]] == []
    assert said["framesOf"].format(count=running["written"], total=13) in running["text"]
    assert done["text"].startswith(said["frames"].format(count=13))
    assert [name for name in ("exact", "bounded", "trace") if said[name] not in done["text"]] == []
    # What programs read stays English.
    assert report["advice"].split("{")[0] in str(ADVICE[report["advice_code"]])
    if report["advice_code"] in said["advice"]:
        assert said["advice"][report["advice_code"]] in done["text"]

    front_end.setting("Comfy.Locale", "en")
    scene.wait_for('shown && shown.text.startsWith("13 frames")')
    if report["advice_code"] in said["advice"]:
        assert report["advice"] in scene.shown()["text"]


def test_times_and_numbers_are_written_as_the_language_does(open_front_end: Callable[..., FrontEnd]) -> None:
    front_end = open_front_end(settings={"Comfy.Locale": "fr"})
    written = """
      async (address) => {
        const { adviceText, clockText, numberText, secondsText } = await import(address);
        const given = { advice: "English", advice_values: { seconds: 1.25 } };
        const measured = { setting: "preset veryfast", other: 0.25, own: 1.75 };
        return [
          ...[0.4204, 9.7, 99, 200.4, 240].map(secondsText), numberText(0.12345), numberText(1234.5),
          adviceText({ ...given, advice_code: "save_lags" }, ["writers", "compression"]),
          adviceText({ ...given, advice_code: "save_lags" }, []),
          adviceText({ ...given, advice_code: "save_lags", advice_measured: measured }, ["preset"]),
          adviceText({ ...given, advice_code: "of tomorrow", advice_measured: measured }, []), adviceText({}, []),
          clockText(40, 60), clockText(200, 300), clockText(3900, 7200),
        ];
      }
    """

    told = front_end.page.evaluate(written, f"/extensions/{PACK_FOLDER}/js/texts.js")

    assert told[:7] == ["420 ms", "9,7 s", "99 s", "3 min 20 s", "4 min", "0,123", "1235"]
    assert "(il a continué 1,25 s après le décodage)" in told[7]
    assert "plus de writers ou une compression plus faible" in told[7] and "preset" not in told[7]
    assert told[8].endswith("après le décodage)") and "writers" not in told[8]
    assert told[9].endswith(
        "essayez un preset plus rapide. Une exécution précédente semblable a attendu ses fichiers 250 ms avec preset "
        "veryfast, celle-ci 1,75 s."
    )
    assert told[10:] == ["English", "", "40 s", "3:20", "1:05:00"]


def test_is_english_where_there_are_no_translations(
    open_front_end: Callable[..., FrontEnd], stage: Callable[..., Scene]
) -> None:
    front_end = open_front_end(settings={"Comfy.Locale": "fr"})
    front_end.page.route("**/i18n", lambda route: route.abort())
    front_end.reload()
    scene = stage(front_end)

    done = scene.finish(scene.run_until_held())

    assert done["text"].startswith("13 frames")
    assert [word for word in ("decode", "exact", "Trace") if word not in done["text"]] == []


#: A view of its own, with news as they would come; the clock of the browser is the test's.
TOLD = """
async ([folder, inputs, type, news, later, width = 360]) => {
  const { PipelineElement } = await import(`${folder}/pipeline_element.js`);
  const { PipelineRun } = await import(`${folder}/pipeline_run.js`);
  const clock = performance.now;
  let now = clock.call(performance);
  performance.now = () => now;
  try {
    const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    const addressOf = ({ filename }) => `/at/${filename}`;
    const view = new PipelineElement({ onTrace: () => {}, addressOf, inputs: () => inputs });
    view.element.style.width = `${width}px`;
    document.body.append(view.element);
    const run = new PipelineRun({ run: "one", running: true, type, ...news[0] });
    const shown = [];
    for (const one of news) {
      run.add({ since: run.told, told: run.told, ...one });
      view.show(run);
      await frame();
      now += later * 1000;
      view.show(run);
      await frame();
      const ticks = [...view.element.querySelectorAll(".axis span")];
      const right = view.element.querySelector(".axis").getBoundingClientRect().right;
      shown.push({
        text: view.element.innerText,
        ticks: ticks.map(({ textContent }) => textContent),
        cut: ticks.some((tick) => tick.getBoundingClientRect().right > right + 0.5),
        chips: [...view.element.querySelectorAll(".chip")].map(({ textContent }) => textContent),
        over: [...view.element.querySelectorAll(".left, .trace, .frames")]
          .map((part) => part.getBoundingClientRect().right - view.element.getBoundingClientRect().right),
        going: Boolean(view.element.querySelector("rect.going")),
        dot: getComputedStyle(view.element.querySelector(".advice"), "::before").backgroundColor,
        stall: `rgb(${getComputedStyle(view.element).getPropertyValue("--stall").match(/\\d+/g).join(", ")})`,
        link: [...view.element.querySelectorAll("a.file")].map((file) => file.getAttribute("href"))[0],
        lanes: [...view.element.querySelectorAll(".name")].filter((name) => name.offsetParent).length,
      });
    }
    view.element.remove();
    return shown;
  } finally {
    performance.now = clock;
  }
}
"""
FOLDER = f"/extensions/{PACK_FOLDER}/js"
REPORT = {
    "outcome": "failed", "frames": 0, "total_frames": 81, "wall_seconds": 376, "fps": 0, "width": 0, "height": 0,
    "hidden_share": None, "decoding": {"kind": "tapped", "exact": True, "bounded": True}, "warnings": [], "stages": {},
    "unified": True,
}  # fmt: skip


def test_time_goes_on_while_nothing_is_told(front_end: FrontEnd) -> None:
    waiting = {"running": True, "received": 0, "written": 0, "total": 81, "seconds": 2, "unified": True}
    one_step = {**waiting, "received": 8, "written": 8, "seconds": 60, "steps": 1, "rate": None, "seconds_left": None}
    two_steps = {**one_step, "received": 16, "written": 16, "seconds": 120, "steps": 2, "rate": 0.133}
    two_steps["seconds_left"] = 487.2
    two_steps |= {"bottleneck": "decode", "advice": "Decoding is the limit.", "advice_code": "of tomorrow"}
    early = {**waiting, "bottleneck": "decode", "advice": "Decoding is the limit.", "advice_code": "of tomorrow"}

    first, second, third = front_end.page.evaluate(
        TOLD, [FOLDER, [], "AsyncVAEDecodeSaveVideo", [early, one_step, two_steps], 35]
    )

    assert "decoding, 37 s" in first["text"] and first["going"]
    assert "Decoding is the limit" not in first["text"], "no advice before there is a frame"
    assert "left" not in first["text"] and "fps" not in first["text"]
    assert "95 s" in second["text"] and "left" not in second["text"] and "fps" not in second["text"]
    assert "0.133 fps" in third["text"] and "7 min 32 s left" in third["text"]
    assert "Decoding is the limit" in third["text"]
    assert "nothing to copy" in third["text"]
    assert third["ticks"][0] == "0" and all(":" in tick for tick in third["ticks"][1:]), third["ticks"]
    assert not any(shown["cut"] for shown in (first, second, third))


def test_a_failed_run_says_why_and_names_what_is_left(front_end: FrontEnd) -> None:
    ended = {"running": False, "received": 0, "written": 0, "total": 81, "seconds": 376, "report": REPORT}
    file = {"filename": "clip_00001_cut-short.mp4", "subfolder": "", "type": "output"}
    ended |= {"error": "decode failed: out of memory", "cut_short": [file]}
    decoding = {"running": True, "received": 8, "written": 8, "total": 81, "seconds": 2, "bottleneck": "decode"}
    decoding |= {"advice": "Decoding is the limit.", "advice_code": "of tomorrow"}

    _, shown = front_end.page.evaluate(TOLD, [FOLDER, [], "AsyncVAEDecodeSaveVideo", [decoding, ended], 0])

    assert "decode failed: out of memory" in shown["text"]
    assert "Cut short: clip_00001_cut-short.mp4" in shown["text"]
    assert shown["link"] == "/at/clip_00001_cut-short.mp4"
    assert shown["dot"] == shown["stall"], "its dot has the colour of trouble, not of the lane that was the limit"
    assert shown["chips"] == [], "of no frames nothing is exact or bounded"


def test_warnings_come_before_what_may_be_cut_off(front_end: FrontEnd) -> None:
    report = {**REPORT, "frames": 8, "hidden_share": 0.5, "warnings": ["look"], "fps": 0.2}
    ended = {"running": False, "received": 8, "written": 8, "total": 81, "seconds": 376, "report": report}
    ended |= {"blocks": {"save": [[0, 0, 30_000, 8]]}}
    whole = {**ended, "report": {**report, "outcome": "completed"}}

    shown = [
        front_end.page.evaluate(TOLD, [FOLDER, [], "AsyncVAEDecodeSaveVideo", [news], 0])[0] for news in (ended, whole)
    ]

    assert shown[0]["chips"] == ["⚠", "exact", "bounded"], "what is hidden says nothing of a run that has failed"
    assert shown[1]["chips"] == ["⚠", "exact", "bounded", "15 s of 30 s hidden"]


def test_frames_that_waited_on_disk_are_told(front_end: FrontEnd) -> None:
    spooled = {"frames": 61, "ahead_seconds": 4.0}
    report = {**REPORT, "outcome": "completed", "frames": 81, "spooled": spooled}
    ended = {"running": False, "received": 81, "written": 81, "total": 81, "seconds": 376, "report": report}
    without = {**ended, "report": {**report, "spooled": None}}

    shown = [
        front_end.page.evaluate(TOLD, [FOLDER, [], "AsyncVAEDecodeSaveVideo", [news], 0])[0]
        for news in (ended, without)
    ]

    assert [one["chips"] for one in shown] == [["exact", "bounded", "frames on disk: 61"], ["exact", "bounded"]]


def test_how_it_ended_is_in_view_in_the_narrowest_node(front_end: FrontEnd) -> None:
    report = {**REPORT, "outcome": "cancelled", "frames": 80, "width": 1280, "height": 720, "fps": 0.213}
    report |= {"warnings": ["look"]}
    ended = {"running": False, "received": 80, "written": 80, "total": 81, "seconds": 376, "report": report}

    (shown,) = front_end.page.evaluate(TOLD, [FOLDER, [], "AsyncVAEDecode", [ended], 0, 190])

    assert "cancelled" in shown["text"]
    assert max(shown["over"]) < -5, "the border and what is kept free beside it"


def test_seconds_that_are_hidden_are_told_where_they_matter(front_end: FrontEnd) -> None:
    report = {**REPORT, "outcome": "completed", "frames": 81, "hidden_share": 0.5, "fps": 0.2}
    ended = {"running": False, "received": 81, "written": 81, "total": 81, "seconds": 376, "report": report}
    little = {**ended, "blocks": {"save": [[0, 1000, 1600, 81]]}}
    much = {**ended, "blocks": {"save": [[0, 0, 30_000, 40], [1, 20_000, 40_000, 41]]}}

    shown = [
        front_end.page.evaluate(TOLD, [FOLDER, [], "AsyncVAEDecodeSaveVideo", [news], 0])[0] for news in (little, much)
    ]

    assert shown[0]["chips"] == ["exact", "bounded"]
    assert shown[1]["chips"] == ["exact", "bounded", "20 s of 40 s hidden"]


def test_advice_is_about_inputs_that_the_node_has(front_end: FrontEnd) -> None:
    report = {
        **REPORT,
        "outcome": "completed",
        "frames": 9,
        "decoding": {"kind": "images", "exact": True, "bounded": True},
    }
    lags = {"bottleneck": "save", "advice": "…", "advice_code": "save_lags", "advice_values": {"seconds": 3}}
    ended = {"running": False, "received": 9, "written": 9, "total": 9, "seconds": 9, "report": report, **lags}

    def text(type: str, *inputs: str) -> Any:
        return front_end.page.evaluate(TOLD, [FOLDER, list(inputs), type, [ended], 0])[0]

    frames = text("AsyncSaveFrames", "writers", "compression")
    assert "try more writers or a lower compression." in frames["text"]
    assert frames["lanes"] == 2, "what saves images decodes none"
    assert "try a faster preset." in text("AsyncSaveVideo", "preset")["text"]
    nothing = text("AsyncVAEDecode", "chunk_size")["text"]
    assert "Saving is behind (it went on for 3 s after decoding)" in nothing and "try" not in nothing


def test_the_view_behaves_as_the_node_does(
    open_front_end: Callable[..., FrontEnd], stage: Callable[..., Scene], renderer: Renderer
) -> None:
    front_end = open_front_end(renderer=renderer)
    scene = stage(front_end)
    scene.finish(scene.run_until_held())
    front_end.centre(scene.node, scale=0.8)
    page = front_end.page

    def grab(button: str = "left") -> None:
        box = page.locator(f"{VIEW} .lanes").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down(button=button)  # type: ignore[arg-type]
        page.mouse.move(box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2 + 40, steps=6)
        page.mouse.up(button=button)  # type: ignore[arg-type]

    place, offset = "[...node.pos]", "[...window.app.canvas.ds.offset]"
    before = front_end.node(scene.node, place)
    grab()
    page.wait_for_function("([id, x]) => window.testNode(id).pos[0] > x + 30", arg=[scene.node, before[0]])
    looked, moved = front_end.node(scene.node, offset), front_end.node(scene.node, place)
    grab("middle")
    # Early Vue nodes are dragged by the middle button as well, wherever it takes hold of them.
    page.wait_for_function(
        """([id, x, early, left]) => window.app.canvas.ds.offset[0] > x + 30
          || (early && window.testNode(id).pos[0] > left + 30)""",
        arg=[scene.node, looked[0], is_early_vue(front_end), moved[0]],
    )
    box = page.locator(f"{VIEW} .lanes").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 40, box["y"] + 20)
    page.mouse.wheel(0, -120)
    page.wait_for_function("() => window.app.canvas.ds.scale > 0.81")


def test_a_side_panel_lists_no_view(open_front_end: Callable[..., FrontEnd], stage: Callable[..., Scene]) -> None:
    front_end = open_front_end()
    scene = stage(front_end)
    scene.finish(scene.run_until_held())

    options = front_end.node(scene.node, f"{WIDGET}.options")

    assert options["hideInPanel"] is True
    panel = front_end.page.locator('[data-testid="properties-panel"]')
    if not panel.count():
        return  # Older front ends have none.
    front_end.node(scene.node, "(window.app.canvas.select(node), null)")
    assert "async_vae_decode" not in panel.inner_text()


def test_the_view_is_no_part_of_the_workflow(front_end: FrontEnd, stage: Callable[..., Scene]) -> None:
    scene = stage(front_end)
    values = front_end.node(scene.node, "node.serialize().widgets_values")
    inputs = front_end.prompt()[scene.node]["inputs"]

    scene.finish(scene.run_until_held())

    assert front_end.node(scene.node, "node.serialize().widgets_values") == values
    assert front_end.prompt()[scene.node]["inputs"] == inputs


def test_the_view_can_be_switched_off(open_front_end: Callable[..., FrontEnd], stage: Callable[..., Scene]) -> None:
    setting = "AsyncVAEDecode.View.Enabled"
    front_end = open_front_end(settings={setting: False})
    scene = stage(front_end)
    scene.client.open_gate(scene.gate)
    front_end.wait(front_end.queue())
    off = scene.shown()

    front_end.setting(setting, True)
    scene.wait_for('shown && shown.outcome === "completed"')
    front_end.setting(setting, False)
    scene.wait_for("shown === null")

    assert off is None
    assert not front_end.node(scene.node, "node.widgets.some((widget) => widget.name.startsWith('async_vae_decode'))")


def into_a_subgraph(front_end: FrontEnd, node: str) -> str:
    """Put ``node`` into a subgraph of its own, under the id of a node outside, and open that; return its new id."""
    outer = front_end.node(node, "((graph) => String(graph.convertToSubgraph(new Set([node])).node.id))(node.graph)")
    workflow = front_end.workflow()
    (subgraph,) = workflow["definitions"]["subgraphs"]
    taken = next(other["id"] for other in workflow["nodes"] if str(other["id"]) != outer)
    (inner,) = subgraph["nodes"]
    for link in subgraph["links"]:
        link.update({end: taken for end in ("origin_id", "target_id") if link[end] == inner["id"]})
    inner["id"] = taken
    front_end.load(workflow)
    opened = front_end.node(
        outer, "(window.app.canvas.openSubgraph(node.subgraph, node), String(node.subgraph.nodes[0].id))"
    )
    return f"{outer}:{opened}"
