/**
 * The picture of a run: what `PipelineRun` holds, as an element. It knows no nodes and fetches nothing.
 */
import { LANE_OF_STAGE } from "./pipeline_run.js";
import { adviceText, clockText, message, numberText, secondsText } from "./texts.js";

/**
 * @typedef {import("./pipeline_run.js").PipelineRun} PipelineRun
 * @typedef {import("./pipeline_run.js").Saved} Saved
 */

/** Pixels that the view takes in a node, at zoom 1, and those of a file's name. */
const [HEIGHT, FILE_HEIGHT] = [172, 25];

const SVG = "http://www.w3.org/2000/svg";
const LANES = /** @type {const} */ (["decode", "copy", "save"]);
/** Which lane holds a run up; for the others (whole, ring) there is none to blame. @type {Record<string, string>} */
const LIMITS = { decode: "decode", copy: "copy", save: "save", whole: "decode", ring: "save" };
/** How fast the time axis follows a new estimate of the end, with each event. */
const AXIS_PACE = 0.35;
/** Milliseconds between two looks at the clock while nothing is told. */
const TICK = 500;
/** Seconds between two ticks of the axis. */
const STEPS = [0.001, 0.01, 0.1, 1]
  .flatMap((unit) => [1, 2, 5].map((factor) => factor * unit))
  .concat([10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800]);
/** Pixels that a character of a tick takes, and what is around them. */
const [CHARACTER, AROUND] = [6, 8];

export class PipelineElement {
  /**
   * @param {object} given
   * @param {(run: PipelineRun) => void} given.onTrace called when somebody asks for the trace
   * @param {(file: Saved) => string} given.addressOf where a file can be had
   * @param {() => string[]} given.inputs the inputs that the node has, which advice may be about
   */
  constructor({ onTrace, addressOf, inputs }) {
    loadStyle();
    this._addressOf = addressOf;
    this._inputs = inputs;
    /** Pixels that it takes in a node, at zoom 1. */
    this.height = HEIGHT;
    this.element = document.createElement("div");
    this.element.className = "async-vae-decode-view";
    /** @type {PipelineRun | null} */
    this.run = null;
    /** Milliseconds from the left edge of the lanes to the right one. */
    this._axisMs = 0;
    /** How many blocks of each stage are drawn already. @type {Record<string, number>} */
    this._drawn = {};
    /** @type {Record<string, number>} */
    this._workers = {};
    /** @type {Record<string, unknown>} */
    this._source = {};
    this._pending = 0;
    this._ticking = 0;
    const head = child(this.element, "div", "head");
    this._frames = child(head, "span", "frames");
    this._size = child(head, "span", "size");
    this._rate = child(head, "span", "rate");
    this._left = child(head, "span", "left");
    const lanes = child(this.element, "div", "lanes");
    /** @type {Record<string, SVGSVGElement>} */
    this._svg = {};
    /** @type {Record<string, HTMLElement>} */
    this._names = {};
    /** What is said in an empty lane. @type {Record<string, HTMLElement>} */
    this._notes = {};
    /** What is at work and has told nothing yet. @type {Record<string, SVGRectElement>} */
    this._going = {};
    for (const lane of LANES) {
      this._names[lane] = child(lanes, "span", "name");
      const svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("class", "lane");
      svg.setAttribute("preserveAspectRatio", "none");
      svg.dataset.lane = lane;
      const place = child(lanes, "div", "place");
      place.append(svg);
      this._svg[lane] = svg;
      this._notes[lane] = child(place, "span", "note");
    }
    this._axis = child(lanes, "div", "axis");
    this._advice = child(this.element, "div", "advice");
    this._file = /** @type {HTMLAnchorElement} */ (child(this.element, "a", "file"));
    this._foot = child(this.element, "div", "foot");
    this._chips = child(this._foot, "span", "");
    this._chips.className = "chips";
    const trace = child(this._foot, "button", "trace");
    trace.setAttribute("type", "button");
    trace.addEventListener("click", () => {
      if (this.run) onTrace(this.run);
    });
    this._trace = trace;
  }

  /**
   * Shows `run` as it is now; at most once in a frame of the screen.
   *
   * @param {PipelineRun} run
   */
  show(run) {
    this.height = HEIGHT + (fileOf(run) ? FILE_HEIGHT : 0);
    if (run !== this.run) {
      this.run = run;
      this._axisMs = 0;
      this._forget();
    }
    this._pending ||= requestAnimationFrame(() => {
      this._pending = 0;
      this._draw();
    });
  }

  _draw() {
    const run = this.run;
    if (!run) return;
    const { element } = this;
    clearTimeout(this._ticking);
    // Nothing may be told for minutes; the clock goes on. A node that is not on the page is drawn when it is shown.
    if (run.running && element.isConnected) this._ticking = setTimeout(() => this._draw(), TICK);
    element.dataset.run = run.id;
    element.dataset.outcome = run.outcome;
    element.toggleAttribute("data-dark", textIsLight(element));
    this._head(run);
    this._lanes(run);
    const { report } = run;
    const advice = run.written > 0 ? adviceText(run.advised, this._inputs()) : "";
    for (const lane of LANES) {
      this._names[lane].textContent = message(lane);
      const limiting = run.bottleneck !== null && LIMITS[run.bottleneck] === lane && advice !== "";
      this._names[lane].toggleAttribute("data-limit", limiting);
      if (limiting) this._advice.style.setProperty("--dot", `var(--${lane})`);
    }
    const trouble = run.outcome === "failed" ? run.error : "";
    const said = run.lost ? message("runUnknown") : trouble || advice;
    this._advice.textContent = said;
    this._advice.title = said;
    this._advice.toggleAttribute("data-trouble", Boolean(trouble));
    // The dot has the colour of trouble then.
    if (trouble) this._advice.style.removeProperty("--dot");
    this._trace.textContent = message("trace");
    this._trace.title = message("traceTitle");
    const file = fileOf(run);
    this._file.hidden = !file;
    if (file) {
      const { filename } = file;
      this._file.textContent = file === run.file ? filename : message("cutShort", { file: filename });
      this._file.href = this._addressOf(file);
      this._file.download = filename;
      this._file.title = message("download", { file: filename });
    }
    this._foot.hidden = !report;
    if (report) this._outcome(run, report);
  }

  /** @param {PipelineRun} run */
  _head(run) {
    const { report } = run;
    const { outcome } = run;
    const done = outcome === "completed";
    const bold = document.createElement("b");
    bold.textContent = String(run.written);
    const words = message(done ? "frames" : "framesOf", { total: run.total ?? "?" }).split("{count}");
    this._frames.replaceChildren(words[0], bold, words.slice(1).join(""));
    this._size.textContent = report?.width ? `${report.width} × ${report.height}` : "";
    this._rate.textContent = run.rate > 0 ? message("rate", { count: numberText(run.rate) }) : "";
    if (outcome === "running") this._left.textContent = timeText(run);
    else if (outcome === "completed") this._left.textContent = report ? secondsText(report.wall_seconds) : "";
    else this._left.textContent = message(outcome === "lost" ? "runLost" : outcome);
    this.element.title = report?.width ? summary(report) : "";
  }

  /** @param {PipelineRun} run */
  _lanes(run) {
    const workers = { ...run.lanes };
    // Another number of writers moves every block, and a summary takes the place of what was drawn.
    if (JSON.stringify(workers) !== JSON.stringify(this._workers)) this._forget();
    this._workers = workers;
    for (const [stage, blocks] of Object.entries(run.blocks)) {
      const lane = /** @type {Record<string, string>} */ (LANE_OF_STAGE)[stage];
      if (!lane) continue;
      if (blocks.length < (this._drawn[stage] ?? 0) || !this._continues(stage, blocks)) this._forget(stage);
      const rows = Math.max(1, workers[stage] ?? 1);
      const svg = this._svg[lane];
      for (let i = this._drawn[stage] ?? 0; i < blocks.length; i++) svg.append(rectangle(stage, blocks[i], rows, i));
      this._drawn[stage] = blocks.length;
      this._source[stage] = blocks[0];
    }
    const known = run.elapsed * 1000;
    const left = run.secondsLeft;
    const target = run.running ? (left === null ? known * 1.3 : known + left * 1000) : known;
    const paced = this._axisMs === 0 || !run.running ? target : this._axisMs + (target - this._axisMs) * AXIS_PACE;
    this._axisMs = Math.max(paced, known, 1);
    for (const lane of LANES) this._svg[lane].setAttribute("viewBox", `0 0 ${this._axisMs} 1`);
    this._names.decode.parentElement?.toggleAttribute("data-saves-only", run.savesOnly);
    const empty = (run.report?.unified ?? run.unified) && !run.blocks.copy?.length;
    this._notes.copy.textContent = empty ? message("noCopies") : "";
    this._goOn(run, known);
    this._ticks();
  }

  /**
   * Shows the step of the decoder that is at work, of which nothing is told before its end.
   *
   * @param {PipelineRun} run
   * @param {number} known milliseconds since the start
   */
  _goOn(run, known) {
    const going = (this._going.decode ??= document.createElementNS(SVG, "rect"));
    const ends = ["decode", "finish", "wait_slot"].flatMap((stage) => (run.blocks[stage] ?? []).map(([, , end]) => end));
    const since = Math.max(0, ...ends);
    const decodes = run.running && !run.savesOnly && (run.total === null || run.received < run.total);
    if (!decodes || known - since < TICK) {
      going.remove();
      return;
    }
    going.setAttribute("class", "going");
    for (const [name, value] of Object.entries({ x: since, y: 0, width: known - since, height: 1 })) {
      going.setAttribute(name, String(value));
    }
    if (!going.isConnected || !going.parentNode) this._svg.decode.append(going);
  }

  /**
   * Whether `blocks` begins with what is drawn of this stage.
   *
   * @param {string} stage
   * @param {unknown[]} blocks
   */
  _continues(stage, blocks) {
    return !this._drawn[stage] || this._source[stage] === blocks[0];
  }

  /** Takes away what is drawn. @param {string} [only] of this stage */
  _forget(only) {
    for (const lane of LANES) {
      this._svg[lane].querySelectorAll(only ? `rect.${only}` : "rect:not(.going)").forEach((rect) => rect.remove());
    }
    if (only) delete this._drawn[only];
    else this._drawn = {};
  }

  _ticks() {
    const seconds = this._axisMs / 1000;
    const step = STEPS.find((candidate) => candidate >= seconds / 4) ?? seconds / 4;
    const width = this._axis.clientWidth || 1;
    const ticks = [];
    for (let tick = 0; tick < seconds; tick += step) {
      const text = tick === 0 ? "0" : clockText(tick, seconds);
      const place = tick / seconds;
      // One that would be cut off at the right says nothing.
      if (place * width + text.length * CHARACTER + AROUND > width) break;
      const label = document.createElement("span");
      label.style.left = `${place * 100}%`;
      label.textContent = text;
      ticks.push(label);
    }
    this._axis.replaceChildren(...ticks);
  }

  /**
   * @param {PipelineRun} run
   * @param {import("./pipeline_run.js").Report} report
   */
  _outcome(run, report) {
    /** @type {[string, string, boolean][]} */
    const chips = [];
    const { decoding } = report;
    const { saved } = run;
    // What went wrong is said as in the server's log, where one goes on to look. First, as the last one is cut short
    // where there is not room for all.
    for (const warning of report.warnings) chips.push(["⚠", warning, true]);
    // Of no frames nothing is exact.
    if (decoding && decoding.kind !== "images" && report.frames > 0) {
      const { exact, bounded, detail } = decoding;
      const inexact = [message("inexactTitle"), ...(detail ? [`(${detail})`] : [])].join(" ");
      chips.push([message(exact ? "exact" : "inexact"), exact ? message("exactTitle") : inexact, !exact]);
      chips.push([
        message(bounded ? "bounded" : "unbounded"),
        message(bounded ? "boundedTitle" : "unboundedTitle"),
        !bounded,
      ]);
    }
    if (report.spooled) {
      const { frames, ahead_seconds } = report.spooled;
      const values = { count: String(frames), time: secondsText(ahead_seconds) };
      chips.push([message("spooled", values), message("spooledTitle", values), false]);
    }
    if (saved && run.outcome === "completed") {
      const times = { hidden: secondsText(saved.hidden), saving: secondsText(saved.saving) };
      chips.push([message("hidden", times), message("hiddenTitle", times), false]);
    }
    this._chips.replaceChildren(
      ...chips.map(([text, title, warn]) => {
        const chip = document.createElement("span");
        chip.className = warn ? "chip warn" : "chip";
        chip.textContent = text;
        chip.title = title;
        return chip;
      }),
    );
  }
}

/**
 * A block of a lane, whose viewBox is in milliseconds and 1 high.
 *
 * @param {string} stage
 * @param {import("./pipeline_run.js").Block} block
 * @param {number} rows workers of the stage, each with a row of its own
 * @param {number} index
 */
function rectangle(stage, [worker, start, end], rows, index) {
  const rect = document.createElementNS(SVG, "rect");
  const waiting = stage.startsWith("wait");
  const height = waiting ? 0.16 : 1 / rows;
  rect.setAttribute("x", String(start));
  rect.setAttribute("width", String(Math.max(0, end - start)));
  rect.setAttribute("y", String(waiting ? 0.42 : worker / rows + (rows > 1 ? height * 0.06 : 0)));
  rect.setAttribute("height", String(rows > 1 && !waiting ? height * 0.88 : height));
  // Neighbours differ: one sees what travelled together.
  rect.setAttribute("class", index % 2 && !waiting ? `${stage} odd` : stage);
  return rect;
}

/**
 * @param {Element} parent
 * @param {string} tag
 * @param {string} className
 */
function child(parent, tag, className) {
  const made = document.createElement(tag);
  made.className = className;
  parent.append(made);
  return made;
}

/** Whether the theme is a dark one, told by the colour of its text. @param {Element} element */
function textIsLight(element) {
  const [red, green, blue] = (getComputedStyle(element).color.match(/[\d.]+/g) ?? []).map(Number);
  return 0.299 * red + 0.587 * green + 0.114 * blue > 128;
}

/**
 * How long it will take, or has taken where that cannot be told: before two steps, and when the decoder is done and its
 * pace says nothing of what is left to save.
 * @param {PipelineRun} run
 */
function timeText(run) {
  const left = run.secondsLeft;
  if (left !== null && left > 0) return message("left", { time: secondsText(left) });
  const time = secondsText(Math.floor(run.elapsed));
  return run.written > 0 || run.savesOnly ? time : message("decodingFor", { time });
}

/**
 * The file that a run has saved, or what is left of it.
 * @param {PipelineRun} run
 * @returns {Saved | undefined}
 */
function fileOf(run) {
  return run.file ?? run.cutShort[0];
}

/** A run in one line. @param {import("./pipeline_run.js").Report} report */
function summary(report) {
  return message("summary", {
    frames: message("frames", { count: report.frames }),
    size: `${report.width}x${report.height}`,
    time: secondsText(report.wall_seconds),
    rate: message("rate", { count: numberText(report.fps) }),
  });
}

function loadStyle() {
  const id = "async-vae-decode-style";
  if (document.getElementById(id)) return;
  const link = document.createElement("link");
  link.id = id;
  link.rel = "stylesheet";
  link.href = new URL("pipeline_view.css", import.meta.url).href;
  document.head.append(link);
}
