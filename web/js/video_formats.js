/**
 * What the codecs of this pack's video formats take as `quality`, told by the names of the formats.
 */

/** @typedef {{ best: number, smallest: number, usual: number }} Scale CRFs: lower is better */

/** @type {[codec: RegExp, Scale][]} the first that fits */
const SCALES = [
  // What a graphics card encodes says so behind its codec.
  [/\((H\.26[45]|AV1), /, { best: 1, smallest: 51, usual: 23 }],
  [/H\.264/, { best: 0, smallest: 51, usual: 23 }],
  [/H\.265/, { best: 0, smallest: 51, usual: 28 }],
  [/AV1/, { best: 1, smallest: 63, usual: 30 }],
  [/VP9/, { best: 0, smallest: 63, usual: 31 }],
  [/^webp \(animated\)/, { best: 0, smallest: 63, usual: 23 }],
];

/**
 * @param {unknown} format
 * @returns {Scale | undefined} undefined: it has no quality to choose
 */
export function scaleOf(format) {
  return SCALES.find(([codec]) => codec.test(String(format)))?.[1];
}
