// Shows the value under the pointer. The page is complete without it.
(() => {
  "use strict";
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);

  const show = (text, event) => {
    tip.textContent = text;
    tip.hidden = false;
    const room = 14;
    const left = Math.min(event.clientX + room, innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + room;
    const fits = below + tip.offsetHeight < innerHeight - 4;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${fits ? below : event.clientY - tip.offsetHeight - room}px`;
  };
  const hide = () => { tip.hidden = true; };

  // Native titles would open a second tooltip: keep them for assistive technology only.
  for (const svg of document.querySelectorAll("svg.plot")) {
    const title = svg.querySelector(":scope > title");
    svg.setAttribute("aria-label", title.textContent);
    svg.setAttribute("aria-describedby", svg.querySelector(":scope > desc").id);
    svg.removeAttribute("aria-labelledby");
    title.remove();
    for (const inner of svg.querySelectorAll("title")) {
      inner.parentNode.dataset.title = inner.textContent;
      inner.remove();
    }
  }

  const scale = (words) => {
    const [kind, low, high, start, end, unit = ""] = words.split(" ");
    const [from, to, first, last] = [low, high, start, end].map(Number);
    const position = { linear: (v) => v, log: Math.log10, tail: (v) => -Math.log10(1 - v) }[kind];
    const value = { linear: (p) => p, log: (p) => 10 ** p, tail: (p) => 1 - 10 ** -p }[kind];
    const [a, b] = [position(from), position(to)];
    return { unit, read: (px) => value(a + ((px - first) / (last - first)) * (b - a)) };
  };
  const digits = (value) => {
    const size = Math.abs(value);
    return size >= 99.95 ? value.toFixed(0) : size >= 9.995 ? value.toFixed(1) : value.toFixed(2);
  };
  const words = (value, unit) => {
    if (unit === "s") return value < 0.9995 ? `${digits(value * 1e3)} ms` : `${digits(value)} s`;
    if (unit === "share") return `${digits(value * 100)} %`;
    return unit.startsWith("/") ? `${digits(value)}${unit}` : `${digits(value)} ${unit}`.trim();
  };
  const points = new Map();
  const pointsOf = (path) => {
    if (!points.has(path)) {
      const found = path.getAttribute("d").match(/[ML][\d.-]+ [\d.-]+/g) || [];
      points.set(path, found.map((pair) => pair.slice(1).split(" ").map(Number)));
    }
    return points.get(path);
  };

  const nearest = (panel, x, y) => {
    let best = null;
    for (const path of panel.querySelectorAll("[data-tip]")) {
      const dots = path.classList.contains("dots");
      for (const [px, py] of pointsOf(path)) {
        const far = Math.hypot(px - x, (py - y) * (dots ? 1 : 0.6));
        if (far < 14 && (best === null || far < best.far)) best = { far, px, py, path };
      }
    }
    return best;
  };

  document.addEventListener("pointermove", (event) => {
    const titled = event.target.closest?.("[data-title]");
    if (titled) return show(titled.dataset.title, event);
    const svg = event.target.closest?.("svg.plot");
    if (!svg) return hide();
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    for (const panel of svg.querySelectorAll("g.panel")) {
      const found = nearest(panel, at.x, at.y);
      if (!found) continue;
      const x = scale(panel.dataset.x);
      const y = scale(panel.dataset.y);
      return show(`${found.path.dataset.tip}\n${words(y.read(found.py), y.unit)} at ${words(x.read(found.px), x.unit)}`, event);
    }
    return hide();
  }, { passive: true });
  document.addEventListener("pointerleave", hide);
  addEventListener("scroll", hide, { passive: true });
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
})();
