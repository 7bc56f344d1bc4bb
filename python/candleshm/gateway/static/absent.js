// What is not there, drawn behind the candles: hatched where rows are missing, dotted where the exchange has a hole.

import {HOLE} from "./board.js";

const HATCH_PX = 7, DOT_PX = 5, STRIP_PX = 3;

export class AbsentRows {
  #chart = null;
  #update = () => {};
  #runs = [];
  #colors = {missing: "#888", hole: "#888", text: "#888", panel: "#fff"};

  /** Show other runs: each `{from, to, state, count}` with the times of its first and last row in seconds. */
  show(runs) {
    this.#runs = runs;
    this.#update();
  }

  get runs() {
    return this.#runs;
  }

  paint(colors) {
    this.#colors = colors;
    this.#update();
  }

  attached({chart, requestUpdate}) {
    this.#chart = chart;
    this.#update = requestUpdate;
  }

  detached() {
    this.#chart = null;
    this.#update = () => {};
  }

  paneViews() {
    return [{zOrder: () => "bottom", renderer: () => ({draw: target => target.useBitmapCoordinateSpace(scope => this.#draw(scope))})}];
  }

  /** Where each run stands now, in pixels of the page. */
  spans() {
    if (!this.#chart) return [];
    const scale = this.#chart.timeScale();
    const half = scale.options().barSpacing / 2;
    return this.#runs.flatMap(run => {
      const first = scale.timeToCoordinate(run.from);
      const last = scale.timeToCoordinate(run.to);
      return first === null || last === null ? [] : [{...run, left: first - half, right: last + half}];
    });
  }

  #draw({context, bitmapSize, horizontalPixelRatio: ratio}) {
    for (const {left, right, state, count} of this.spans()) {
      const from = Math.floor(left * ratio);
      const width = Math.max(Math.ceil(right * ratio) - from, Math.ceil(2 * ratio));
      if (from > bitmapSize.width || from + width < 0) continue;
      context.save();
      context.beginPath();
      context.rect(from, 0, width, bitmapSize.height);
      context.clip();
      const isHole = state === HOLE;
      const color = isHole ? this.#colors.hole : this.#colors.missing;
      context.fillStyle = color;
      context.globalAlpha = 0.1;
      context.fillRect(from, 0, width, bitmapSize.height);
      context.globalAlpha = isHole ? 0.55 : 0.4;
      if (isHole) this.#dot(context, from, width, bitmapSize.height, ratio);
      else this.#hatch(context, from, width, bitmapSize.height, ratio, color);
      context.globalAlpha = 1;
      context.fillRect(from, bitmapSize.height - STRIP_PX * ratio, width, STRIP_PX * ratio);
      this.#label(context, from, width, isHole, count, ratio);
      context.restore();
    }
  }

  #hatch(context, from, width, height, ratio, color) {
    const step = HATCH_PX * ratio;
    context.strokeStyle = color;
    context.lineWidth = ratio;
    context.beginPath();
    // The lines keep their places on the screen, so that runs beside each other fit together.
    for (let x = Math.floor((from - height) / step) * step; x < from + width; x += step) {
      context.moveTo(x, height);
      context.lineTo(x + height, 0);
    }
    context.stroke();
  }

  #dot(context, from, width, height, ratio) {
    const step = DOT_PX * ratio;
    const size = Math.max(1, Math.round(ratio));
    for (let x = Math.floor(from / step) * step; x < from + width; x += step) {
      for (let y = step / 2; y < height; y += step) context.fillRect(Math.round(x), Math.round(y), size, size);
    }
  }

  #label(context, from, width, isHole, count, ratio) {
    context.font = `600 ${11 * ratio}px system-ui, sans-serif`;
    const texts = isHole ? [count === 1 ? "hole" : `${count} holes`, `○ ${count}`] : [`${count} missing`, `△ ${count}`];
    const roomFor = text => context.measureText(text).width + 8 * ratio;
    const text = texts.find(known => roomFor(known) <= width);
    if (!text) return;
    const room = roomFor(text);
    context.fillStyle = this.#colors.panel;
    context.fillRect(from + (width - room) / 2, 4 * ratio, room, 16 * ratio);
    context.textAlign = "center";
    context.fillStyle = this.#colors.text;
    context.fillText(text, from + width / 2, 16 * ratio);
  }
}
