"use strict";
// Language: the two radio buttons do the work in CSS; here are the first choice and what CSS cannot reach.
(() => {
  const asked = new URLSearchParams(location.search).get("lang") || navigator.language || "";
  const chinese = document.getElementById("lang-zh");
  if (asked.toLowerCase().startsWith("zh")) chinese.checked = true;
  const relabel = () => {
    const lang = chinese.checked ? "zh" : "en";
    document.documentElement.lang = lang;
    for (const option of document.querySelectorAll("option[data-en]")) option.textContent = option.dataset[lang];
  };
  for (const input of document.querySelectorAll("input[name=language]")) input.addEventListener("change", relabel);
  relabel();
})();

// The items: filtered in memory, drawn a page at a time. Texts only ever become text nodes.
(() => {
  const source = document.getElementById("item-data");
  if (!source) return;
  const { models, groups, items } = JSON.parse(source.textContent);
  const PAGE = 20;
  const $ = (id) => document.getElementById(id);
  const box = $("browse"), list = $("list"), more = $("more"), select = $("task"), search = $("search");
  const words = $("words").content, card = $("card").content;
  const word = (name) => words.querySelector(`[data-word="${name}"]`).cloneNode(true);
  const make = (tag, name, ...children) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    node.append(...children);
    return node;
  };
  const place = (item) => `${item.s} · ${item.t}`;
  let state = "", found = [], drawn = 0;

  const within = (name, item) => name === place(item) || (groups[name] || []).includes(place(item));
  const counts = new Map();
  for (const item of items) {
    counts.set(place(item), (counts.get(place(item)) || 0) + 1);
    const answers = item.a.flatMap((a) => (a ? [a.a || "", a.o || ""] : []));
    item.text = [item.q, item.k, item.d, item.g, ...item.c, ...answers].join("\n").toLowerCase();
  }
  for (const name of Object.keys(groups)) counts.set(name, items.filter((item) => within(name, item)).length);
  for (const [name, n] of [...counts].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const option = make("option", "", `${name} (${n})`);
    option.value = name;
    select.append(option);
  }

  // A bar for each model: the choice's share among the choices, e^loglikelihood over their sum.
  const share = (values, i) => {
    const top = Math.max(...values.filter((v) => v !== null));
    const sum = values.reduce((all, v) => all + (v === null ? 0 : Math.exp(v - top)), 0);
    return values[i] === null ? 0 : Math.exp(values[i] - top) / sum;
  };
  const bars = (item, i) => item.a.map((answer, m) => {
    if (!answer) return "";
    if (!answer.l) return (answer.k || []).includes(i) ? make("span", "likely picked", make("span", "who", models[m]), word("picked")) : "";
    const values = answer.l, best = values[i] !== null && values.every((v) => v === null || v <= values[i]);
    const fill = make("i", "");
    fill.style.width = `${(100 * share(values, i)).toFixed(1)}%`;
    const row = make("span", `likely model${Math.min(m, 2)}${best ? " picked" : ""}`,
      make("span", "who", models[m]), make("span", "track", fill), make("span", "number", values[i] === null ? "–" : values[i].toFixed(2)));
    if (best) row.append(word("picked"));
    return row;
  });

  const draw = (item) => {
    const node = card.cloneNode(true), at = (selector) => node.querySelector(selector);
    at(".state").append(word(item.f));
    at(".where").textContent = [place(item), item.d, item.k].filter(Boolean).join(" · ");
    if (!item.x) at(".badge").remove();
    at(".question").textContent = item.q;
    item.c.forEach((text, i) => {
      const right = item.r.includes(i);
      at(".choices").append(make("div", right ? "choice right" : "choice", make("span", "tick", right ? "✓" : ""), make("span", "what", make("span", "dim", `${String.fromCharCode(65 + i)}  `), text), make("span", "bars", ...bars(item, i))));
    });
    const answers = at(".answers");
    const says = (who, text, kind) => answers.append(make("dt", "", who), make("dd", kind || "", text));
    if (!item.r.length) says(word("right-answer"), item.g);
    item.a.forEach((answer, m) => {
      if (!answer || answer.l) return;
      const value = answer.v[item.m];
      if (!answer.k) says(models[m], answer.a || word("nothing"), value === 1 ? "good" : value === 0 ? "bad" : "");
      if (answer.o) {
        const body = make("details", "", make("summary", "", word("wrote")), make("pre", "", answer.o));
        answers.append(make("dt", "", answer.k ? models[m] : ""), make("dd", "", body));
      }
    });
    if (!answers.children.length) answers.remove();
    at(".values").textContent = item.a.map((answer, m) => answer && `${models[m]}: ${Object.entries(answer.v).map(([k, v]) => `${k} ${v}`).join(", ")}`).filter(Boolean).join("  ·  ");
    const prompt = at(".prompt");
    if (!item.p.length) prompt.remove();
    prompt.addEventListener("toggle", () => {
      if (prompt.children.length > 1) return;
      for (const [role, text] of item.p) {
        if (role) prompt.append(make("h4", "dim", role));
        prompt.append(make("pre", "", text));
      }
    });
    list.append(node);
  };
  const page = () => {
    for (const item of found.slice(drawn, drawn + PAGE)) draw(item);
    drawn = Math.min(drawn + PAGE, found.length);
    more.hidden = drawn >= found.length;
  };
  const filter = () => {
    const parts = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = items.filter((item) =>
      (!state || (state === "contaminated" ? item.x : item.f === state)) &&
      (!select.value || within(select.value, item)) && parts.every((part) => item.text.includes(part)));
    $("matches").textContent = found.length.toLocaleString("en");
    list.replaceChildren();
    drawn = 0;
    page();
  };
  const choose = (name) => {
    state = name;
    for (const button of $("states").children) button.setAttribute("aria-pressed", String(button.dataset.state === state));
  };
  $("states").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) { choose(button.dataset.state); filter(); }
  });
  select.addEventListener("change", filter);
  search.addEventListener("input", filter);
  more.addEventListener("click", page);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-state]");
    if (!link) return;
    choose(link.dataset.state);
    select.value = link.dataset.task;
    search.value = "";
    filter();
  });
  box.hidden = false;
  filter();
})();
