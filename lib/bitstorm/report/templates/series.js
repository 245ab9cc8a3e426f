'use strict';
// The long series in levels of detail, and the part of them that a chart shows.
//
// Level 0 has the newest points as they are; in each next level a bucket is four times as wide and
// holds the least and the greatest value of its points. The last level covers everything.

// A bucket a pixel shows every extreme; two let a line move inside the pixel.
const BUCKETS_A_PIXEL = 2;

class Series {
  constructor(page) {
    this.columns = page.series.columns;
    this.levels = page.series.levels;
    this.step = page.step_ms;
    this.frequency = page.frequency;
    const finest = this.levels[0];
    this.last = finest.first_ms + (finest.count - 1) * this.step;
    // The first bucket can begin before the first point.
    this.first = this.levels[this.levels.length - 1].first_ms;
    this.decoded = new Map();
  }

  // {low, high}: Float32Arrays of a column, decoded when first needed. NaN: nothing there.
  column(number, name) {
    const key = `${number} ${name}`;
    if (!this.decoded.has(key)) {
      const level = this.levels[number];
      const place = this.columns.findIndex(column => column.name === name);
      const parts = level.extremes ? 2 : 1;
      const values = floats(
        document.getElementById(`level-${number}`).textContent,
        place * parts * level.count, parts * level.count);
      this.decoded.set(key, {
        low: values.subarray(0, level.count),
        high: values.subarray((parts - 1) * level.count),
      });
    }
    return this.decoded.get(key);
  }

  // The finest level that covers the range with at most two buckets a pixel, else the last one, of
  // which `merge` buckets become one.
  choose(from, until, pixels) {
    const start = Math.max(from, this.first);
    const most = BUCKETS_A_PIXEL * pixels;
    const buckets = level => (Math.min(until, this.last) - start) / (level.width * this.step);
    const fits = level => level.first_ms <= start && buckets(level) <= most;
    const found = this.levels.findIndex(fits);
    const number = found < 0 ? this.levels.length - 1 : found;
    return {number, merge: Math.max(1, Math.ceil(buckets(this.levels[number]) / most))};
  }

  // What to draw of a column: times, values, and [least, greatest] of each one's bucket. A bucket
  // is a bar from its least to its greatest value, at its middle.
  line(name, choice, from, until) {
    const level = this.levels[choice.number];
    const width = level.width * this.step;
    const {low, high} = this.column(choice.number, name);
    const {merge} = choice;
    const bar = merge * width;
    const first = Math.max(0, Math.floor((from - level.first_ms) / bar)) * merge;
    const end = Math.min(level.count, Math.ceil((until - level.first_ms) / width) + 1);
    const middle = (merge * level.width - 1) / 2 * this.step;
    const x = [], y = [], ends = [];
    for (let at = first; at < end; at += merge) {
      let least = NaN, greatest = NaN;
      for (let one = at; one < Math.min(at + merge, level.count); one++) {
        if (!(low[one] >= least)) least = isNaN(low[one]) ? least : low[one];
        if (!(high[one] <= greatest)) greatest = isNaN(high[one]) ? greatest : high[one];
      }
      const time = Math.min(level.first_ms + at * width + middle, this.last);
      const pair = isNaN(least) ? [null, null] : [least, greatest];
      x.push(time);
      y.push(pair[0]);
      ends.push(pair);
      if (pair[0] !== pair[1]) {
        x.push(time);
        y.push(pair[1]);
        ends.push(pair);
      }
    }
    return {x, y, ends};
  }

  // The width of a bar in words.
  words(choice) {
    const points = this.levels[choice.number].width * choice.merge;
    return points === 1
      ? `One point each ${this.frequency}`
      : `One bar = ${points.toLocaleString('en-US')} × ${this.frequency}, `
        + 'from its lowest to its highest value';
  }
}

// `count` little-endian float32 from number `first` on, of base64 text.
function floats(text, first, count) {
  const from = 4 * first;
  const block = Math.floor(from / 3);
  const bytes = atob(text.slice(4 * block, 4 * Math.ceil((from + 4 * count) / 3)));
  const view = new DataView(new ArrayBuffer(4 * count));
  for (let at = 0; at < 4 * count; at++) view.setUint8(at, bytes.charCodeAt(from - 3 * block + at));
  const values = new Float32Array(count);
  for (let at = 0; at < count; at++) values[at] = view.getFloat32(4 * at, true);
  return values;
}
