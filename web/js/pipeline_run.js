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
 * @property {string} summary
 * @property {string | null} bottleneck
 * @property {string} advice in English
 * @property {string | null} [advice_code]
 * @property {Record<string, number>} [advice_values]
 * @property {Record<string, { lanes: number, intervals: [number, number][] }>} stages
 * @property {string} [run]
 *
 * @typedef {object} News
 * @property {string} run
 * @property {string | null} prompt
 * @property {string | null} node
 * @property {string | null} type
 * @property {string | null} workflow
 * @property {string | null} client
 * @property {boolean} running
 * @property {number} [since]
 * @property {number} [told]
 * @property {number} [received]
 * @property {number} [written]
 * @property {number | null} [total]
 * @property {number} [seconds]
 * @property {string | null} [bottleneck]
 * @property {string} [advice] in English
 * @property {string | null} [advice_code]
 * @property {Record<string, number>} [advice_values] seconds that the advice names
 * @property {Record<string, number>} [lanes]
 * @property {Record<string, Block[]>} [blocks]
 * @property {Report} [report]
 */

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
    /** @type {string | null} */
    this.bottleneck = null;
    /** What holds it up and what to change, in every form. @type {Pick<News, "advice" | "advice_code" | "advice_values">} */
    this.advised = {};
    /** How many workers each stage has. @type {Record<string, number>} */
    this.lanes = {};
    /** @type {Record<string, Block[]>} */
    this.blocks = {};
    /** @type {Report | null} */
    this.report = null;
    /** The server knows nothing of it any more: it was restarted. */
    this.lost = false;
    /** When the first frames had been written, and how many. @type {[number, number] | null} */
    this._first = null;
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

  /** Frames a second since the first ones were written, and before that none. */
  get rate() {
    if (this.report) return this.report.fps;
    if (!this._first) return 0;
    const [seconds, written] = this._first;
    if (this.written > written && this.seconds > seconds) return (this.written - written) / (this.seconds - seconds);
    return this.seconds > 0 ? this.written / this.seconds : 0;
  }

  /** Seconds until the end, where they can be told. @returns {number | null} */
  get secondsLeft() {
    if (!this.running || this.total === null || this.rate === 0) return null;
    return Math.max(0, this.total - this.written) / this.rate;
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
    this.bottleneck = news.bottleneck ?? null;
    const { advice, advice_code, advice_values } = news;
    this.advised = { advice, advice_code, advice_values };
    this.lanes = news.lanes ?? this.lanes;
    this.report = news.report ?? this.report;
    if (!this._first && this.written > 0) this._first = [this.seconds, this.written];
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
