/**
 * What the browser knows of a run: news from the server, added up. Draws nothing and fetches nothing.
 */

/** Stages of the server, in the order in which frames travel, and the lane of the view that shows each. */
export const LANE_OF_STAGE = /** @type {const} */ ({
  decode: "decode",
  finish: "decode",
  wait_slot: "decode",
  copy: "copy",
  wait_sinks: "copy",
  save: "save",
});

/** With more blocks than this, the server's summary of the whole run takes the place of what was collected. */
export const MOST_BLOCKS = 1200;

/**
 * @typedef {[lane: number, startMs: number, endMs: number, frames: number]} Block
 *
 * @typedef {{ filename: string, subfolder: string, type: string }} Saved a file, as ComfyUI names it in outputs
 *
 * @typedef {object} Report
 * @property {"running" | "completed" | "cancelled" | "failed"} outcome
 * @property {number} frames
 * @property {number | null} total_frames
 * @property {number} wall_seconds
 * @property {number} fps
 * @property {number} width
 * @property {number} height
 * @property {number | null} hidden_share
 * @property {{ kind: string, exact: boolean, bounded: boolean, detail?: string } | null} decoding
 * @property {string[]} warnings
 * @property {{ frames: number, ahead_seconds: number } | null} [spooled] what waited on disk
 * @property {string} summary
 * @property {string | null} bottleneck
 * @property {string} advice in English
 * @property {string | null} [advice_code]
 * @property {Record<string, number>} [advice_values]
 * @property {import("./texts.js").Advice["advice_measured"]} [advice_measured]
 * @property {boolean} [unified]
 * @property {Record<string, { lanes: number, intervals: [number, number][] }>} stages
 * @property {string} [run]
 * @property {boolean} [finishing] the node has returned, and its files are not whole yet
 *
 * @typedef {object} News
 * @property {string} run
 * @property {string | null} prompt
 * @property {string | null} node
 * @property {string | null} type
 * @property {string | null} workflow
 * @property {string | null} client
 * @property {number} [began] when, in seconds, on the clock of the server
 * @property {boolean} running
 * @property {number} [since]
 * @property {number} [told]
 * @property {number} [received]
 * @property {number} [written]
 * @property {number | null} [total]
 * @property {number} [seconds]
 * @property {number} [steps] decode steps that have ended
 * @property {number | null} [rate] frames a second over all of them; null before there are two, as is the time left
 * @property {number | null} [seconds_left]
 * @property {boolean} [unified] nothing has to be copied
 * @property {string | null} [error] what ended it
 * @property {Saved[]} [cut_short] files that hold less than the clip
 * @property {string | null} [bottleneck]
 * @property {string} [advice] in English
 * @property {string | null} [advice_code]
 * @property {Record<string, number>} [advice_values] seconds that the advice names
 * @property {import("./texts.js").Advice["advice_measured"]} [advice_measured]
 * @property {Record<string, number>} [lanes]
 * @property {Record<string, Block[]>} [blocks]
 * @property {Report} [report]
 */

/** Less than this share of a run is not worth a word. */
const NOTICEABLE = 0.02;

/**
 * @param {[start: number, end: number][]} intervals
 * @returns {number}
 */
function lengthOfUnion(intervals) {
  let [length, reached] = [0, -Infinity];
  for (const [start, end] of [...intervals].sort(([one], [other]) => one - other)) {
    length += Math.max(0, end - Math.max(start, reached));
    reached = Math.max(reached, end);
  }
  return length;
}

export class PipelineRun {
  /** @param {News} news the first that is known of it */
  constructor(news) {
    this.id = news.run;
    this.about = news;
    this.running = news.running;
    this.told = 0;
    this.received = 0;
    this.written = 0;
    /** @type {number | null} */
    this.total = null;
    this.seconds = 0;
    /** When that was told, on the clock of the browser. */
    this._toldAt = performance.now();
    this.unified = false;
    /** The video that it has saved. @type {Saved | null} */
    this.file = null;
    /** @type {number | null} */
    this._rate = null;
    /** @type {number | null} */
    this._secondsLeft = null;
    /** What ended it. */
    this.error = "";
    /** Files that hold less than the clip. @type {Saved[]} */
    this.cutShort = [];
    /** @type {string | null} */
    this.bottleneck = null;
    /** What holds it up and what to change, in every form. @type {import("./texts.js").Advice} */
    this.advised = {};
    /** How many workers each stage has. @type {Record<string, number>} */
    this.lanes = {};
    /** @type {Record<string, Block[]>} */
    this.blocks = {};
    /** @type {Report | null} */
    this.report = null;
    /** The server knows nothing of it any more: it was restarted. */
    this.lost = false;
    /** Frames that were written at the last change, and when. @type {[frames: number, seconds: number]} */
    this._change = [0, 0];
  }

  /**
   * Adds what an event tells.
   *
   * @param {News} news
   * @returns {boolean} false where news in between are missing, so that the whole has to be fetched
   */
  add(news) {
    if (news.since === undefined || news.told === undefined) return true;
    if (news.since < this.told) return true; // Told before.
    if (news.since > this.told) return false;
    this._take(news);
    for (const [stage, blocks] of Object.entries(news.blocks ?? {})) {
      this.blocks[stage] = (this.blocks[stage] ?? []).concat(blocks);
    }
    return this._blockCount() <= MOST_BLOCKS;
  }

  /**
   * Takes the server's summary of the whole run instead of what is known.
   *
   * @param {News} snapshot
   */
  replace(snapshot) {
    this._take(snapshot);
    this.blocks = { ...snapshot.blocks };
  }

  /** Whether it saves frames that are there already. */
  get savesOnly() {
    return this.report?.decoding?.kind === "images" || /^AsyncSave/.test(this.about.type ?? "");
  }

  /** Seconds since its start, which go on between two news. */
  get elapsed() {
    return this.running ? this.seconds + (performance.now() - this._toldAt) / 1000 : this.seconds;
  }

  /** Frames a second: over all steps of the decoder that have ended, which the server tells; 0 before there are two. */
  get rate() {
    if (this.report) return this.report.fps;
    const [frames, seconds] = this._change;
    return this._rate ?? (this.savesOnly && seconds > 0 ? frames / seconds : 0);
  }

  /** Seconds until the end, where they can be told. @returns {number | null} */
  get secondsLeft() {
    if (!this.running) return null;
    if (this._secondsLeft !== null) return Math.max(0, this._secondsLeft - (this.elapsed - this.seconds));
    if (!this.savesOnly || this.total === null || this.rate === 0) return null;
    const [frames, seconds] = this._change;
    return Math.max(0, (this.total - frames) / this.rate - (this.elapsed - seconds));
  }

  /**
   * What is known of the time that saving took and how much of it passed while frames were decoded, in seconds.
   * @returns {{ saving: number, hidden: number } | null} null where it does not matter
   */
  get saved() {
    const share = this.report?.hidden_share;
    if (!this.report || share === null || share === undefined) return null;
    const blocks = ["copy", "save"].flatMap((stage) => this.blocks[stage] ?? []);
    const saving = lengthOfUnion(blocks.map(([, start, end]) => [start, end])) / 1000;
    return saving < NOTICEABLE * this.report.wall_seconds ? null : { saving, hidden: share * saving };
  }

  /** @returns {"running" | "completed" | "cancelled" | "failed" | "lost"} */
  get outcome() {
    if (this.lost) return "lost";
    return this.running || !this.report ? "running" : this.report.outcome;
  }

  /** @param {News} news */
  _take(news) {
    this.running = news.running;
    this.told = news.told ?? this.told;
    this.received = news.received ?? this.received;
    this.written = news.written ?? this.written;
    this.total = news.total ?? this.total;
    this.seconds = news.seconds ?? this.seconds;
    this._toldAt = performance.now();
    this.unified = news.unified ?? this.unified;
    this._rate = news.rate ?? null;
    this._secondsLeft = news.seconds_left ?? null;
    this.error = news.error ?? this.error;
    this.cutShort = news.cut_short ?? this.cutShort;
    this.bottleneck = news.bottleneck ?? null;
    const { advice, advice_code, advice_values, advice_measured } = news;
    this.advised = { advice, advice_code, advice_values, advice_measured };
    this.lanes = news.lanes ?? this.lanes;
    this.report = news.report ?? this.report;
    if (this.written !== this._change[0]) this._change = [this.written, this.seconds];
  }

  _blockCount() {
    return Object.values(this.blocks).reduce((count, blocks) => count + blocks.length, 0);
  }
}

/**
 * A run of which only the report is left, as with an output that comes from ComfyUI's cache.
 *
 * @param {Report} report
 * @returns {PipelineRun}
 */
export function runOfReport(report) {
  const run = new PipelineRun({
    run: report.run ?? "",
    prompt: null,
    node: null,
    type: null,
    workflow: null,
    client: null,
    running: false,
  });
  run.report = report;
  run.received = run.written = report.frames;
  run.total = report.total_frames;
  run.seconds = report.wall_seconds;
  run.bottleneck = report.bottleneck;
  run.advised = report;
  for (const [stage, { intervals }] of Object.entries(report.stages)) {
    run.blocks[stage] = intervals.map(([start, end]) => [0, start * 1000, end * 1000, 0]);
    run.lanes[stage] = 1;
  }
  return run;
}
