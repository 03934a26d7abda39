// Reads /setpoint/live once a second and shows it. Texts go in as text, never as markup.
(() => {
  "use strict";
  const EVERY_MS = 1000;
  const PATIENCE_MS = 8000;
  const KEPT = 600;
  const KEY = "setpoint-key";
  const { words, plain } = charts;
  const byId = (id) => document.getElementById(id);
  const NAMES = { ttft: "TTFT", itl: "ITL", tpot: "TPOT", e2e: "E2E", queue_wait: "Queue wait", goodput: "Goodput", shed: "Shed" };
  const CLASSES = ["ok", "late", "shed", "failed", "cancelled"];

  const made = (tag, name, ...inside) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.append(...inside.filter((each) => each !== null && each !== undefined).map((each) => (each instanceof Node ? each : String(each))));
    return element;
  };
  const say = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const many = (count, one) => `${count.toLocaleString("en")} ${one}${count === 1 ? "" : "s"}`;
  const lasted = (seconds) => {
    const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
    if (days) return `${days} d ${hours} h`;
    return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min` : `${Math.round(seconds)} s`;
  };

  const rate = (name) => (sample) => (sample.span_s ? sample[name] / sample.span_s : null);
  const value = (name) => (sample) => sample[name];
  const pair = (metric) => [
    { name: "P50", look: "p50", of: value(`${metric}_p50`) },
    { name: "P99", look: "p99", of: value(`${metric}_p99`) },
  ];
  const limitOf = (metric) => (state) => {
    const limits = state.checks.filter((check) => check.metric === metric && check.statistic.startsWith("p")).map((check) => check.limit);
    return limits.length ? Math.max(...limits) : null;
  };
  const SPECS = [
    { id: "ttft", title: "TTFT", unit: "s", series: pair("ttft"), limit: limitOf("ttft"), optional: true },
    { id: "itl", title: "ITL", unit: "s", series: pair("itl"), limit: limitOf("itl"), optional: true },
    { id: "e2e", title: "E2E", unit: "s", series: pair("e2e"), limit: limitOf("e2e") },
    {
      id: "goodput", title: "Goodput of offered", unit: "share", most: 1, series: [{ name: "ok", look: "p99", of: value("goodput") }],
      limit: (state) => state.checks.find((check) => check.metric === "goodput")?.limit ?? null,
    },
    {
      id: "ended", title: "Requests ended", unit: "/s", stacked: true, smoothed: 5,
      series: CLASSES.map((name) => ({ name, look: name, of: rate(name) })),
    },
    {
      id: "queue", title: "Requests in the engine", unit: "",
      series: [{ name: "running", look: "p99", of: value("running") }, { name: "waiting", look: "second", of: value("waiting") }],
    },
    {
      id: "kv", title: "KV cache", unit: "share", most: 1,
      series: [{ name: "in use", look: "p99", of: value("kv") }, { name: "prefix hits, last minute", look: "second", of: value("prefix_hit_rate") }],
    },
    {
      id: "tokens", title: "Tokens", unit: "/s", smoothed: 5,
      series: [{ name: "output", look: "p99", of: rate("output_tokens") }, { name: "prompt", look: "second", of: rate("prompt_tokens") }],
    },
    { id: "step", title: "Step time", unit: "s", series: pair("step") },
    {
      id: "error", title: "Error of predicted step times, newest 512", unit: "share", optional: true,
      series: [{ name: "P50", look: "p50", of: value("error_p50") }, { name: "P95", look: "p99", of: value("error_p95") }],
    },
  ];
  const drawn = SPECS.map((spec) => ({ spec, chart: new charts.Chart(byId("charts"), spec) }));

  // The requirement

  const stateWord = (check) => (check.held === null ? "no data" : check.held ? "held" : "not held");
  const look = (check) => (check.held === null ? "v-none" : check.held ? "v-met" : "v-missed");
  const isShare = (check) => check.metric === "goodput" || check.metric === "shed";
  const unitOf = (check) => (isShare(check) ? "share" : check.statistic === "spread" ? "" : "s");
  const nameOf = (check) => {
    const name = NAMES[check.metric] ?? check.metric;
    return isShare(check) ? name : check.statistic === "spread" ? `${name} P99/P50` : `${name} ${check.statistic.toUpperCase()}`;
  };
  const shareWords = (check) => {
    const of = check.metric === "itl" ? "gap" : "request";
    if (!check.judged) return "nothing to judge yet";
    if (check.attained === null) return `of ${many(check.judged, of)}`;
    return `${words(Math.floor(check.attained * 1e4) / 1e4, "share")} of ${many(check.judged, of)} within, ${plain(check.needed, "share")} needed`;
  };

  const card = (check) => {
    const unit = unitOf(check);
    const shown = check.unbounded ? "none came" : words(check.value, unit);
    const end = isShare(check) ? 1 : check.limit * 1.5;
    const gauge = made("div", "gauge", made("i"), made("b"));
    gauge.children[0].style.width = `${check.unbounded ? 100 : Math.min(100, ((check.value ?? 0) / end) * 100)}%`;
    gauge.children[1].style.left = `calc(${Math.min(100, (check.limit / end) * 100)}% - 1px)`;
    return made(
      "li", `card ${look(check)}`,
      made("p", "card-name", made("span", "", nameOf(check)), made("b", "verdict", stateWord(check))),
      made("p", "card-value", shown),
      gauge,
      made("p", "card-limit", `limit ${check.statistic === "min" ? "≥" : "≤"} ${plain(check.limit, unit)}`),
      made("p", "card-share", shareWords(check)),
    );
  };

  const headline = (state) => {
    if (state.health !== "ok") return [`The server is ${state.health}`, state.health === "failed" ? "v-missed" : "v-none"];
    if (!state.checks.length) return ["No requirement: each request is judged by its own limits", "v-none"];
    const lost = state.checks.filter((check) => check.held === false);
    if (lost.length) return [`The requirement is not held: ${lost.map(nameOf).join(", ")}`, "v-missed"];
    const unknown = state.checks.filter((check) => check.held === null);
    if (unknown.length === state.checks.length) return ["Waiting for requests", "v-none"];
    return [`The requirement is held${unknown.length ? `; no data on ${unknown.map(nameOf).join(", ")}` : ""}`, "v-met"];
  };

  const showVerdict = (state) => {
    const [text, style] = headline(state);
    say(byId("headline"), text);
    byId("verdict").className = `banner ${style}`;
    const ended = CLASSES.reduce((sum, name) => sum + state.window.ended[name], 0);
    const span = `last ${Math.round(state.window.length_s || 0)} s`;
    say(byId("why"), ended ? `In the ${span} ${many(ended, "request")} ended, ${state.window.ended.ok.toLocaleString("en")} of them ok.` : `No request ended in the ${span}.`);
    byId("checks").replaceChildren(...state.checks.map(card));
  };

  // Figures of the minute

  const tile = (name, figure, more) => made("div", "", made("dt", "", name), made("dd", "", figure), made("dd", "more", more ?? ""));
  const showMinute = (state, last) => {
    const { window: minute, engine } = state;
    const ended = CLASSES.reduce((sum, name) => sum + minute.ended[name], 0);
    const part = (name) => (ended ? words(minute.ended[name] / ended, "share") : "–");
    const error = engine?.prediction_error;
    byId("tiles").replaceChildren(
      tile("Goodput of offered", words(minute.goodput_fraction, "share"), `${words(minute.goodput_rps, "/s")} ok`),
      tile("Offered", words(minute.offered_rps, "/s"), `${many(state.unfinished, "request")} under way`),
      tile("Shed", part("shed"), `late ${part("late")}, failed ${part("failed")}`),
      tile("Running", engine ? words(engine.running) : "–", engine ? `${engine.waiting} waiting` : ""),
      tile("KV cache", engine ? words(engine.kv_usage, "share") : "–", engine ? `peak ${words(engine.kv_peak, "share")}, ${many(minute.preemptions, "preemption")}` : ""),
      tile("Prefix hits", words(minute.prefix_hit_rate, "share"), "of prompt tokens"),
      tile("Output", words(minute.output_tokens_per_s, "/s"), `tokens; prompt ${words(minute.prompt_tokens_per_s, "/s")}`),
      tile("Step time", words(last?.step_p50, "s"), `P99 ${words(last?.step_p99, "s")}, ${words(minute.steps_per_s, "/s")}`),
      tile("Prediction error", words(error?.p50, "share"), error ? `P95 ${words(error.p95, "share")}` : ""),
      tile("Step-time model", engine?.prediction_source || "–", "coefficients"),
    );
    byId("ends").replaceChildren(...CLASSES.map((name) => {
      const bar = made("i", `c-${name}`);
      bar.style.flexGrow = minute.ended[name];
      bar.title = `${name} ${minute.ended[name]}`;
      return bar;
    }));
  };

  // Decisions and configuration

  const fill = (id, rows) => {
    byId(id).tBodies[0].replaceChildren(...rows);
    byId(id).hidden = !rows.length;
    const empty = byId(`${id}-empty`);
    if (empty) empty.hidden = Boolean(rows.length);
  };
  const showDecisions = (state) => {
    fill("refusals", state.refusals.map((one) => {
      const who = made("td", "who", one.name);
      who.title = one.name;
      return made("tr", "", made("td", "ago", lasted(one.ago_s)), who, made("td", "", one.why), made("td", "num", one.retry_after_s === null ? "–" : `in ${words(one.retry_after_s, "s")}`));
    }));
    fill("steps", state.steps.map((one) => made("tr", "", made("td", "num first", one.count), made("td", "", one.why))));
    const admitted = (state.engine?.admissions ?? []).map((one) => [`${one.decision === "admit" ? "Admitted" : "Refused"}: ${one.reason}`, one.count]);
    const shed = state.sheds.map((one) => [`Shed: ${one.what}`, one.count]);
    fill("counts", [...admitted.filter(([name]) => name.startsWith("Admitted")), ...shed].map(([name, count]) => made("tr", "", made("td", "", name), made("td", "num", count.toLocaleString("en")))));
  };
  const showConfig = (state) => {
    const facts = Object.entries({ ...state.about, setpoint: state.version }).filter(([, fact]) => fact !== null && fact !== "");
    byId("config").replaceChildren(...facts.map(([name, fact]) => made("div", "", made("dt", "", name.replaceAll("_", " ")), made("dd", "", typeof fact === "number" ? fact.toLocaleString("en") : fact))));
    say(byId("title"), state.requirement || state.model);
    say(byId("lead"), `${state.requirement ? `${state.model}, ` : ""}up for ${lasted(state.up_s)}`);
    document.title = `${state.requirement || state.model} · setpoint live`;
  };

  // Reading

  let samples = [];
  let next = 0;
  let failures = 0;
  let state = null;

  const redraw = () => {
    if (state) for (const { spec, chart } of drawn) chart.draw(samples, spec.limit?.(state));
  };
  const show = (answer) => {
    state = answer;
    const rows = answer.samples.map((row) => Object.fromEntries(answer.columns.map((name, index) => [name, row[index]])));
    samples = [...samples, ...rows].slice(-KEPT);
    next = answer.next;
    byId("live").hidden = false;
    byId("key-form").hidden = true;
    showVerdict(answer);
    showMinute(answer, samples.at(-1));
    showDecisions(answer);
    showConfig(answer);
    redraw();
  };
  const pulse = (style, text) => { byId("pulse").className = `pulse ${style}`; say(byId("pulse"), text); };

  const askForKey = (note) => {
    sessionStorage.removeItem(KEY);
    byId("live").hidden = true;
    byId("key-form").hidden = false;
    say(byId("key-note"), note);
    pulse("", "locked");
    byId("key").focus();
  };
  const read = async () => {
    const key = sessionStorage.getItem(KEY);
    if (document.body.dataset.keyNeeded === "yes" && !key) return askForKey("");
    const headers = key ? { authorization: `Bearer ${key}` } : {};
    const answer = await fetch(`setpoint/live?since=${next}`, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (answer.status === 401) return askForKey("That key does not open this server.");
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const found = await answer.json();
    // A server that was started anew counts from nothing: read it from its beginning.
    if (found.next < next) { samples = []; next = 0; return read(); }
    show(found);
    failures = 0;
    pulse("on", "live");
    return true;
  };
  const turn = async () => {
    let again = true;
    try {
      again = document.hidden || (await read()) === true;
    } catch {
      failures += 1;
      if (failures > 1) pulse("off", `no answer for ${failures} s`);
    }
    if (again) setTimeout(turn, EVERY_MS);
  };

  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = byId("key").value.trim();
    byId("key").value = "";
    if (!/^[\x21-\x7e]+$/.test(given)) return askForKey("A key is printable characters without spaces.");
    sessionStorage.setItem(KEY, given);
    turn();
  });
  addEventListener("resize", redraw);
  turn();
})();
