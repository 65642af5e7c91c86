// Plans from stored similarities, by the rules of interlace.selection and interlace.sleb, and the page that shows them.
// The data is in window.INTERLACE_EXPLORER (explorer-data.js): profile -> record of the stage `explorer`.
(() => {
  "use strict";
  const DATA = window.INTERLACE_EXPLORER || {};
  const ROLES = ["drop", "tune", "anchor", "frozen"];
  const LETTER = { drop: "D", tune: "T", anchor: "A", frozen: "" };
  const SAYS = {
    "interlace": "the most redundant triplets that do not overlap; of each one's first two layers the more redundant goes, the other is tuned, the third is the anchor",
    "interlace-oa": "ordered: of each selected triplet always the first goes, the second is tuned, the third is the anchor",
    "interlace-tn": "the most redundant single layers go, the next layer is tuned; no triplets, no anchors",
    "consecutive": "one block of neighbouring layers goes, from the most redundant one on; as many after it are tuned",
    "random": "layers drawn at random go, others drawn at random are tuned",
    "sleb": "the layer goes without which the calibration loss is lowest, again and again; nothing is tuned",
    "sleb-ft": "what SLEB removed, and the next kept layer after each is tuned",
    "shortgpt-ft": "ShortGPT: the most redundant single layers go, and the next kept layer after each is tuned",
    "spaced-ft": "at a distance: as for ShortGPT, but the layers that go are as far apart as their number allows",
    "last": "the last layers go, and the last three that are left are tuned",
  };

  // ---- plans -------------------------------------------------------------------------------------------------------
  const byRedundancy = s => s.map((_, i) => i).sort((a, b) => s[b] - s[a] || a - b);
  const count = (role, f) => [...role.values()].filter(v => v === f).length;
  const span = (i, n) => Array.from({ length: n }, (_, k) => i + k);

  // The next kept layer after each dropped one is tuned
  const tuneNext = (m, order) => {
    const role = new Map(order.map(i => [i, "drop"]));
    for (const i of [...order].sort((a, b) => a - b)) {
      const next = span(i + 1, m.n_layers - i - 1).find(j => !role.has(j));
      if (next !== undefined) role.set(next, "tune");
    }
    return role;
  };

  // Each rule gives layer -> role, and tells `why` what it looked at: {window, span, value, taken, because}
  const RULES = {
    "interlace": (m, K, seed, why) => {
      const role = new Map(), s1 = m.similarity[1];
      for (const n of [3, 2]) for (const i of byRedundancy(m.similarity[n])) {
        if (count(role, "drop") === K) return role;
        const held = span(i, n).filter(j => role.has(j)), step = { window: i, span: n, value: m.similarity[n][i], taken: !held.length, held };
        why.push(step);
        if (held.length) continue;
        const [drop, tune] = s1[i] < s1[i + 1] ? [i + 1, i] : [i, i + 1];
        role.set(drop, "drop").set(tune, "tune");
        if (n === 3) role.set(i + 2, "anchor");
        Object.assign(step, { drop, tune, anchor: n === 3 ? i + 2 : null });
      }
      return role;
    },
    "interlace-oa": (m, K, seed, why) => {
      const role = new Map();
      for (const i of byRedundancy(m.similarity[3])) {
        if (count(role, "drop") === K) break;
        const held = span(i, 3).filter(j => role.has(j));
        why.push({ window: i, span: 3, value: m.similarity[3][i], taken: !held.length, held, drop: i, tune: i + 1, anchor: i + 2 });
        if (!held.length) role.set(i, "drop").set(i + 1, "tune").set(i + 2, "anchor");
      }
      return role;
    },
    "interlace-tn": (m, K, seed, why) => {
      const role = new Map(), L = m.n_layers;
      for (const i of byRedundancy(m.similarity[1])) {
        if (count(role, "drop") === K) break;
        const held = [i, i + 1].filter(j => role.has(j)), free = i + 1 < L && !held.length;
        why.push({ window: i, span: 1, value: m.similarity[1][i], taken: free, held, drop: i, tune: i + 1, anchor: null });
        if (free) role.set(i, "drop").set(i + 1, "tune");
      }
      return role;
    },
    "consecutive": (m, K, seed, why) => {
      const L = m.n_layers, best = byRedundancy(m.similarity[1])[0], b = K ? Math.max(0, Math.min(best, L - 2 * K)) : 0;
      if (K) why.push({ window: best, span: 1, value: m.similarity[1][best], taken: true, held: [], block: [b, b + K - 1] });
      return new Map([...span(b, K).map(i => [i, "drop"]), ...span(b + K, Math.max(0, Math.min(b + 2 * K, L) - b - K)).map(i => [i, "tune"])]);
    },
    "random": (m, K, seed) => {
      const order = m.random[seed];
      if (!order) throw new Error(`no draw of seed ${seed} is stored; there are ${Object.keys(m.random).join(", ")}`);
      return new Map([...order.slice(0, K).map(i => [i, "drop"]), ...order.slice(K, 2 * K).map(i => [i, "tune"])]);
    },
    "sleb": (m, K) => new Map(m.sleb.slice(0, K).map(i => [i, "drop"])),
    "sleb-ft": (m, K) => tuneNext(m, m.sleb.slice(0, K)),
    "shortgpt-ft": (m, K) => tuneNext(m, byRedundancy(m.similarity[1]).slice(0, K)),
    "spaced-ft": (m, K) => {
      const order = byRedundancy(m.similarity[1]);
      const apart = distance => order.reduce((taken, i) => taken.every(j => Math.abs(i - j) >= distance) ? [...taken, i] : taken, []);
      let distance = Math.max(1, Math.floor(m.n_layers / Math.max(K, 1)));
      while (distance > 1 && apart(distance).length < K) distance--;
      return tuneNext(m, apart(distance).slice(0, K));
    },
    "last": (m, K) => {
      const left = m.n_layers - K, first = Math.max(0, left - 3);
      return new Map([...span(left, K).map(i => [i, "drop"]), ...span(first, left - first).map(i => [i, "tune"])]);
    },
  };

  const modelOf = (profile, model) => {
    const m = DATA[profile]?.models?.[model];
    if (!m) throw new Error(`no scores of ${model} in profile ${profile}`);
    return m;
  };
  const strategiesOf = m => Object.keys(RULES).filter(s => !s.startsWith("sleb") || m.sleb);

  function plan(profile, model, strategy, ratio, seed = 42, why = []) {
    const m = modelOf(profile, model), L = m.n_layers;
    if (!strategiesOf(m).includes(strategy)) throw new Error(`no strategy '${strategy}'; there are ${strategiesOf(m).join(", ")}`);
    if (!(typeof ratio === "number" && ratio >= 0 && ratio < 1)) throw new Error(`ratio ${ratio}: it must lie in [0, 1); give the share of layers to drop, as 0.25`);
    const K = Math.floor(ratio * L + 1e-9), role = RULES[strategy](m, K, seed, why);
    const pick = f => [...role].filter(([, v]) => v === f).map(([i]) => i).sort((a, b) => a - b);
    const drop = pick("drop");
    if (drop.length < K) throw new Error(`ratio ${ratio}: strategy '${strategy}' cannot drop ${K} of ${L} layers, disjoint windows for only ${drop.length} are left; choose a ratio of at most ${(drop.length / L).toFixed(3)}`);
    return { kind: "plan", strategy, ratio: strategy.startsWith("sleb") ? K / L : ratio, n_layers: L, drop, tune: pick("tune"), anchor: pick("anchor") };
  }

  // As Python's json writes it, so that a plan copied here equals the file that `interlace plan` makes
  const json = p => "{" + Object.entries(p).map(([k, v]) => `"${k}": ` + (Array.isArray(v) ? `[${v.join(", ")}]` : typeof v === "number" ? (k === "ratio" && Number.isInteger(v) ? v.toFixed(1) : v) : `"${v}"`)).join(", ") + "}";

  function most(profile, model, strategy, seed) {
    const L = modelOf(profile, model).n_layers;
    let K = 0;
    try { while (K + 1 < L && (!strategy.startsWith("sleb") || K < modelOf(profile, model).sleb.length)) { plan(profile, model, strategy, (K + 1) / L, seed); K++; } } catch (e) { /* one more is too many */ }
    return K;
  }

  window.interlaceExplorer = { plan, json, most, strategies: (p, m) => strategiesOf(modelOf(p, m)), data: DATA };

  // ---- the page ----------------------------------------------------------------------------------------------------
  const root = document.getElementById("x-explorer");
  if (!root) return;
  const el = (tag, attributes = {}, ...inside) => {
    const e = document.createElement(tag);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
    e.append(...inside);
    return e;
  };
  const svg = (tag, attributes = {}, ...inside) => {
    const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
    e.append(...inside);
    return e;
  };
  const digits = v => v.toFixed(4);
  const listed = a => a.length ? a.join(", ") : "none";

  const models = Object.entries(DATA).flatMap(([p, d]) => Object.keys(d.models).map(m => `${p}/${m}`));
  if (!models.length) { root.append(el("p", {}, "No stored scores were found when this page was built: run interlace reproduce --only explorer.")); return; }
  const state = { model: models[0], strategy: "interlace", drop: null, seed: null, at: null };
  const fromAddress = address => {
    for (const [k, v] of new URLSearchParams(new URL(address).hash.slice(1))) if (["model", "strategy", "seed", "drop"].includes(k)) state[k] = k === "drop" ? Number(v) : v;
    if (!models.includes(state.model)) state.model = models[0];
  };

  const model = el("select", { id: "x-model" }, ...models.map(m => el("option", { value: m }, `${m.split("/")[1]} (profile ${m.split("/")[0]})`)));
  const strategy = el("select", { id: "x-strategy" });
  const seed = el("select", { id: "x-seed" });
  const drop = el("input", { id: "x-drop", type: "range", min: 0, step: 1 });
  const much = el("output", { for: "x-drop" });
  const seeds = el("label", { for: "x-seed" }, "Seed ", seed);
  const says = el("p", { class: "x-says" });
  const summary = el("p", { class: "x-summary", "aria-live": "polite" });
  const strip = el("ol", { class: "x-strip", "aria-label": "Layers and what becomes of them" });
  const legend = el("p", { class: "x-legend", "aria-hidden": "true" }, ...ROLES.map(f => el("span", {}, el("span", { class: `x-cell x-${f}` }, LETTER[f] || " "), f)));
  const chart = el("div", { class: "x-chart", role: "slider", tabindex: 0, "aria-label": "Layer to read the similarities at", "aria-valuemin": 0 });
  const readout = el("p", { class: "x-readout", "aria-hidden": "true" });
  const why = el("ol", { class: "x-why" });
  const whyTitle = el("h2", {}, "How they were chosen");
  const values = el("tbody");
  const text = el("pre", { class: "x-json", tabindex: 0, "aria-label": "The plan as JSON" });
  const copy = el("button", { type: "button", class: "x-copy" }, "Copy the plan");
  const copied = el("span", { role: "status" });
  root.replaceChildren(
    el("form", { class: "x-controls" }, el("label", { for: "x-model" }, "Model ", model), el("label", { for: "x-strategy" }, "Strategy ", strategy), seeds,
      el("label", { for: "x-drop", class: "x-wide" }, "Layers to drop ", drop, much)),
    says, strip, legend, summary, chart, readout, whyTitle, why,
    el("h2", {}, "The plan"), text, el("p", {}, copy, " ", copied),
    el("details", {}, el("summary", {}, "All similarities as a table"), el("div", { class: "x-scroll", tabindex: 0, role: "group", "aria-label": "Similarities by layer" }, el("table", {}, el("thead", {}, el("tr", {}, ...["first layer", "S₁, one layer", "S₂, a pair", "S₃, a triplet", "role"].map(t => el("th", { scope: "col" }, t)))), values))));
  root.querySelector("form").addEventListener("submit", e => e.preventDefault());

  const options = (select, names, chosen) => {
    select.replaceChildren(...names.map(n => el("option", { value: n }, n)));
    select.value = names.includes(chosen) ? chosen : names[0];
    return select.value;
  };

  function draw() {
    const [profile, name] = state.model.split("/"), m = modelOf(profile, name), L = m.n_layers;
    model.value = state.model;
    state.strategy = options(strategy, strategiesOf(m), state.strategy);
    state.seed = options(seed, Object.keys(m.random), state.seed);
    seeds.hidden = state.strategy !== "random";
    const max = most(profile, name, state.strategy, state.seed);
    if (state.drop === null || Number.isNaN(state.drop)) state.drop = Math.floor(L / 4);
    state.drop = Math.max(0, Math.min(max, Math.round(state.drop)));
    drop.max = max;
    drop.value = state.drop;
    const K = state.drop, steps = [], p = plan(profile, name, state.strategy, K / L, state.seed, steps);
    const role = i => ROLES.find(f => f !== "frozen" && p[f].includes(i)) || "frozen";
    much.textContent = `${K} of ${L} layers, ratio ${(K / L).toFixed(3)}` + (K === max ? state.strategy.startsWith("sleb") ? " (as far as SLEB was searched)" : " (as many as this strategy can)" : "");
    drop.setAttribute("aria-valuetext", much.textContent);
    says.textContent = `${state.strategy}: ${SAYS[state.strategy]}.`;
    summary.textContent = K ? `Dropped: ${listed(p.drop)}. Tuned: ${listed(p.tune)}. Held as anchors: ${listed(p.anchor)}. The other ${L - p.drop.length - p.tune.length - p.anchor.length} layers stay frozen.` : `Nothing is dropped: the dense model with its ${L} layers.`;
    strip.style.setProperty("--n", L);
    strip.replaceChildren(...span(0, L).map(i => el("li", { class: `x-cell x-${role(i)}`, title: `layer ${i}: ${role(i)}` }, el("span", { class: "x-number" }, String(i)), el("span", { "aria-hidden": "true" }, LETTER[role(i)] || "·"), el("span", { class: "x-hidden" }, ` ${role(i)}`))));
    plot(m, p, steps, role);
    whyTitle.hidden = why.hidden = !steps.length;
    why.replaceChildren(...steps.map(s => el("li", { class: s.taken ? "" : "x-skipped" }, told(s, m))));
    values.replaceChildren(...span(0, L).map(i => el("tr", {}, el("th", { scope: "row" }, String(i)), ...[1, 2, 3].map(k => el("td", {}, i < m.similarity[k].length ? digits(m.similarity[k][i]) : "–")), el("td", {}, role(i)))));
    text.textContent = json(p);
    copied.textContent = "";
    history.replaceState(null, "", "#" + new URLSearchParams({ model: state.model, strategy: state.strategy, drop: K, ...(state.strategy === "random" ? { seed: state.seed } : {}) }));
  }

  function told(s, m) {
    const layers = s.span === 1 ? `Layer ${s.window}` : `Layers ${span(s.window, s.span).join(", ")}`;
    const head = `${layers}: S${"₁₂₃"[s.span - 1]} = ${digits(s.value)}. `;
    if (s.block) return `${head}The highest of all; the block is ${s.block[0]} to ${s.block[1]}.`;
    if (!s.taken) return head + (s.held.length ? `Passed over: ${s.held.length > 1 ? "layers" : "layer"} ${s.held.join(", ")} ${s.held.length > 1 ? "have" : "has"} a role already.` : "Passed over: no layer follows that could be tuned.");
    if (s.span === 1 || state.strategy === "interlace-oa") return `${head}Drop ${s.drop}, tune ${s.tune}${s.anchor === null ? "" : `, hold ${s.anchor}`}.`;
    return `${head}Drop ${s.drop} (S₁ = ${digits(m.similarity[1][s.drop])}), tune ${s.tune} (S₁ = ${digits(m.similarity[1][s.tune])})${s.anchor === null ? "; a pair, without an anchor" : `, hold ${s.anchor}`}.`;
  }

  function plot(m, p, steps, role) {
    const narrow = root.clientWidth < 600, W = narrow ? 440 : 800, H = narrow ? 300 : 260, left = 48, right = 8, top = 10, bottom = 34, L = m.n_layers;
    const all = [1, 2, 3].flatMap(k => m.similarity[k]), near = v => -Math.log10(Math.max(1 - v, 1e-6));
    const lo = near(Math.min(...all)) - .15, hi = near(Math.max(...all)) + .15;
    const x = i => left + (i + .5) / L * (W - left - right), y = v => H - bottom - (near(v) - lo) / (hi - lo) * (H - top - bottom);
    const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, "aria-hidden": "true" });
    const step = (W - left - right) / L;
    for (const s of steps) if (s.taken && s.span > 1) picture.append(svg("rect", { class: "x-window", x: x(s.window) - step * .46, y: top, width: step * (s.span - .08), height: H - top - bottom }));
    for (const t of [0, .5, .8, .9, .95, .98, .99, .995, .998, .999, .9995, .9999]) if (near(t) > lo && near(t) < hi) picture.append(svg("line", { class: "x-grid", x1: left, x2: W - right, y1: y(t), y2: y(t) }), svg("text", { class: "x-tick", x: left - 6, y: y(t) + 4, "text-anchor": "end" }, String(t)));
    for (let i = 0; i < L; i += 5) picture.append(svg("text", { class: "x-tick", x: x(i), y: H - bottom + 16, "text-anchor": "middle" }, String(i)));
    picture.append(svg("text", { class: "x-tick", x: (W + left) / 2, y: H - 3, "text-anchor": "middle" }, "first layer of the window"));
    for (const k of [1, 2, 3]) picture.append(svg("polyline", { class: `x-line x-s${k}`, points: m.similarity[k].map((v, i) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`).join(" ") }));
    m.similarity[1].forEach((v, i) => { if (role(i) !== "frozen") picture.append(svg("circle", { class: `x-dot x-${role(i)}`, cx: x(i), cy: y(v), r: 4 })); });
    const cursor = svg("line", { class: "x-cursor", y1: top, y2: H - bottom, x1: 0, x2: 0 });
    picture.append(cursor);
    const key = svg("g");
    [1, 2, 3].forEach((k, n) => key.append(svg("line", { class: `x-line x-s${k}`, x1: W - 262 + n * 85, x2: W - 234 + n * 85, y1: H - bottom - 12, y2: H - bottom - 12 }), svg("text", { class: "x-key", x: W - 229 + n * 85, y: H - bottom - 8 }, ["S₁ layer", "S₂ pair", "S₃ triplet"][n])));
    picture.append(key);
    chart.replaceChildren(picture);
    chart.setAttribute("aria-valuemax", L - 1);
    const read = i => {
      state.at = i = Math.max(0, Math.min(L - 1, i));
      cursor.setAttribute("x1", x(i)); cursor.setAttribute("x2", x(i));
      const said = `layer ${i} (${role(i)}): ` + [1, 2, 3].map(k => `S${"₁₂₃"[k - 1]} ${i < m.similarity[k].length ? digits(m.similarity[k][i]) : "–"}`).join(", ");
      readout.textContent = said;
      chart.setAttribute("aria-valuenow", i);
      chart.setAttribute("aria-valuetext", said);
    };
    chart.onpointermove = e => { const box = picture.getBoundingClientRect(); read(Math.floor(((e.clientX - box.left) / box.width * W - left) / step)); };
    chart.onkeydown = e => {
      const to = { ArrowRight: state.at + 1, ArrowUp: state.at + 1, ArrowLeft: state.at - 1, ArrowDown: state.at - 1, Home: 0, End: L - 1 }[e.key];
      if (to !== undefined) { e.preventDefault(); read(to); }
    };
    read(state.at ?? p.drop[0] ?? 0);
  }

  model.addEventListener("change", () => { state.model = model.value; state.at = null; draw(); });
  strategy.addEventListener("change", () => { state.strategy = strategy.value; draw(); });
  seed.addEventListener("change", () => { state.seed = seed.value; draw(); });
  drop.addEventListener("input", () => { state.drop = Number(drop.value); draw(); });
  copy.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(text.textContent); copied.textContent = "Copied."; }
    catch (e) {
      const range = document.createRange();
      range.selectNodeContents(text);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      copied.textContent = document.execCommand("copy") ? "Copied." : "Selected: copy it with your keyboard.";
    }
  });
  addEventListener("hashchange", e => { fromAddress(e.newURL); draw(); });      // newURL: a draw since then may have put the old plan back into location
  let width = root.clientWidth;
  addEventListener("resize", () => { if (root.clientWidth !== width) { width = root.clientWidth; draw(); } });
  fromAddress(location.href);
  draw();
})();
