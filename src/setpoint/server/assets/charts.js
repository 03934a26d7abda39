// Small time series in SVG, redrawn once a second. Texts go in as text, never as markup.
const charts = (() => {
  "use strict";
  const SPACE = "http://www.w3.org/2000/svg";
  const HEIGHT = 168;
  const ROOM = { left: 46, right: 8, top: 10, bottom: 22 };
  const LEAST_SPAN_S = 60;
  const MOST_SPAN_S = 600;

  const digits = (value) => {
    const size = Math.abs(value);
    return size >= 99.95 || value === 0 ? value.toFixed(0) : size >= 9.995 ? value.toFixed(1) : value.toFixed(2);
  };
  const words = (value, unit) => {
    if (value === null || value === undefined) return "–";
    if (unit === "s") return value < 0.9995 ? `${digits(value * 1e3)} ms` : `${digits(value)} s`;
    if (unit === "share") return `${digits(value * 100)} %`;
    if (unit === "/s") return `${digits(value)}/s`;
    return Number.isInteger(value) ? value.toLocaleString("en") : digits(value);
  };
  // The same without zeros at its end, for what does not move.
  const plain = (value, unit) => words(value, unit).replace(/\.(\d*?)0+(?=\D|$)/, (_, kept) => (kept ? `.${kept}` : ""));
  const svg = (name, attributes, text) => {
    const made = document.createElementNS(SPACE, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // The least of 1, 2, 2.5, 5 times a power of ten that is not below the value.
  const niceTop = (value) => {
    if (!(value > 0)) return 1;
    const power = 10 ** Math.floor(Math.log10(value));
    return [1, 2, 2.5, 5, 10].map((step) => step * power).find((top) => top >= value * 0.9999);
  };
  const ago = (seconds) => (seconds < 1 ? "now" : seconds < 90 ? `−${Math.round(seconds)} s` : `−${Math.round(seconds / 60)} min`);

  const smooth = (values, over) => values.map((_, index) => {
    const near = values.slice(Math.max(0, index - over + 1), index + 1).filter((value) => value !== null);
    return near.length ? near.reduce((sum, value) => sum + value, 0) / near.length : null;
  });

  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);

  class Chart {
    // spec: {id, title, unit, series: [{name, look, of(sample)}], stacked, limit(state), most, smoothed}
    constructor(host, spec) {
      this.spec = spec;
      this.figure = document.createElement("figure");
      this.figure.id = `chart-${spec.id}`;
      this.caption = document.createElement("figcaption");
      this.plot = svg("svg", { class: "plot", role: "img", "aria-label": `${spec.title} over time` });
      this.figure.append(this.caption, this.plot);
      host.append(this.figure);
      this.plot.addEventListener("pointermove", (event) => this.point(event), { passive: true });
      this.plot.addEventListener("pointerleave", () => { tip.hidden = true; this.cursor?.remove(); });
    }

    draw(samples, limit) {
      const { spec } = this;
      this.times = samples.map((sample) => sample.at_s);
      this.values = spec.series.map((each) => {
        const raw = samples.map((sample) => each.of(sample) ?? null);
        return spec.smoothed ? smooth(raw, spec.smoothed) : raw;
      });
      const known = this.values.some((values) => values.some((value) => value !== null));
      this.figure.hidden = Boolean(spec.optional) && !known;
      if (this.figure.hidden) return;
      this.width = Math.max(240, this.plot.clientWidth || 480);
      const now = this.times.at(-1) ?? 0;
      this.span = Math.min(MOST_SPAN_S, Math.max(LEAST_SPAN_S, now - (this.times[0] ?? now)));
      this.top = spec.most ?? niceTop(Math.max(this.highest() * 1.05, limit ? limit * 1.1 : 0));
      this.label();
      this.plot.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
      this.plot.replaceChildren(...this.axes(), ...(spec.stacked ? this.stacks() : []), ...this.limit(limit), ...this.lines());
    }

    highest() {
      const columns = this.spec.stacked ? this.stacked().at(-1) : this.values.flat();
      return columns.reduce((most, value) => Math.max(most, value ?? 0), 0);
    }

    label() {
      const title = document.createElement("strong");
      title.textContent = this.spec.title;
      const keys = this.spec.series.map((each, index) => {
        const key = document.createElement("span");
        const value = document.createElement("b");
        key.className = `c-${each.look}`;
        value.textContent = words(this.values[index].at(-1), this.spec.unit);
        key.append(`${each.name} `, value);
        return key;
      });
      this.caption.replaceChildren(title, ...keys);
    }

    x(at) { return this.width - ROOM.right - ((this.times.at(-1) - at) / this.span) * (this.width - ROOM.left - ROOM.right); }
    y(value) { return HEIGHT - ROOM.bottom - (Math.min(value, this.top) / this.top) * (HEIGHT - ROOM.top - ROOM.bottom); }

    axes() {
      const drawn = [0, 0.5, 1].flatMap((share) => {
        const y = this.y(share * this.top);
        return [
          svg("line", { x1: ROOM.left, x2: this.width - ROOM.right, y1: y, y2: y, class: share ? "gridline" : "base" }),
          svg("text", { x: ROOM.left - 8, y: y + 4, "text-anchor": "end" }, plain(share * this.top, this.spec.unit)),
        ];
      });
      const marks = [1, 0.5, 0].map((share) => svg("text", {
        x: this.width - ROOM.right - share * (this.width - ROOM.left - ROOM.right),
        y: HEIGHT - 5,
        "text-anchor": share === 0 ? "end" : share === 1 ? "start" : "middle",
      }, ago(share * this.span)));
      return [...drawn, ...marks];
    }

    limit(limit) {
      if (!limit) return [];
      const y = this.y(limit);
      return [
        svg("line", { x1: ROOM.left, x2: this.width - ROOM.right, y1: y, y2: y, class: "limit" }),
        svg("text", { x: ROOM.left + 4, y: y - 5, class: "limit-text" }, `limit ${plain(limit, this.spec.unit)}`),
      ];
    }

    lines() {
      if (this.spec.stacked) return [];
      return this.values.map((values, index) => {
        let path = "";
        let open = false;
        values.forEach((value, at) => {
          if (value !== null) path += `${open ? "L" : "M"}${this.x(this.times[at]).toFixed(1)} ${this.y(value).toFixed(1)}`;
          open = value !== null;
        });
        return svg("path", { d: path || "M0 0", class: `line c-${this.spec.series[index].look}` });
      });
    }

    stacked() {
      const sums = [];
      this.values.forEach((values, index) => sums.push(values.map((value, at) => (value ?? 0) + (index ? sums[index - 1][at] : 0))));
      return sums;
    }

    stacks() {
      const sums = this.stacked();
      const side = (tops) => tops.map((value, at) => `${this.x(this.times[at]).toFixed(1)} ${this.y(value).toFixed(1)}`);
      return sums.map((tops, index) => {
        const below = index ? sums[index - 1] : tops.map(() => 0);
        const path = tops.length ? `M${side(tops).join("L")}L${side(below).reverse().join("L")}Z` : "M0 0";
        return svg("path", { d: path, class: `stack c-${this.spec.series[index].look}` });
      });
    }

    point(event) {
      if (!this.times?.length) return;
      const box = this.plot.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * this.width;
      let nearest = 0;
      this.times.forEach((at, index) => {
        if (Math.abs(this.x(at) - x) < Math.abs(this.x(this.times[nearest]) - x)) nearest = index;
      });
      const at = this.x(this.times[nearest]);
      this.cursor?.remove();
      this.cursor = svg("line", { x1: at, x2: at, y1: ROOM.top, y2: HEIGHT - ROOM.bottom, class: "cursor" });
      this.plot.append(this.cursor);
      const lines = this.spec.series.map((each, index) => `${each.name} ${words(this.values[index][nearest], this.spec.unit)}`);
      tip.textContent = [ago(this.times.at(-1) - this.times[nearest]), ...lines].join("\n");
      tip.hidden = false;
      tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8))}px`;
      tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 14)}px`;
    }
  }

  return { Chart, words, plain };
})();
