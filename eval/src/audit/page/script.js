"use strict";
(() => {
  const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
  const one = (id) => document.getElementById(id);
  all(".tools").forEach((tools) => { tools.hidden = false; });

  // Light and dark.
  const theme = one("theme");
  const dark = () => {
    const set = document.documentElement.dataset.theme;
    return set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const name = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.hidden = false;
  name();
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    name();
  });

  // What a link leads to is opened.
  const open = () => {
    const target = location.hash && one(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") {
      target.open = true;
      target.scrollIntoView({ block: "nearest" });
    }
  };
  addEventListener("hashchange", open);
  open();

  // Search, and which verdicts are shown: in the table and in the picture.
  const rows = all("#outputs tbody tr");
  const boxes = all(".box");
  const chips = all(".chip");
  const search = one("search");
  const matches = (element, words, shown) => {
    const text = element.dataset.name.toLowerCase();
    return shown.has(element.dataset.standing) && words.every((word) => text.includes(word));
  };
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = new Set(chips.filter((chip) => chip.getAttribute("aria-pressed") === "true").map((c) => c.dataset.standing));
    let count = 0;
    rows.forEach((row) => {
      row.hidden = !matches(row, words, shown);
      count += row.hidden ? 0 : 1;
    });
    boxes.forEach((box) => box.classList.toggle("dim", !matches(box, words, shown)));
    one("shown").textContent = count === rows.length ? `${count} outputs` : `${count} of ${rows.length} outputs`;
  };
  search.addEventListener("input", filter);
  chips.forEach((chip) => chip.addEventListener("click", () => {
    chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
    filter();
  }));
  filter();

  // Columns are sorted by their headings.
  const body = document.querySelector("#outputs tbody");
  all("#outputs th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      all("#outputs th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.sort;
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        const numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
        return numbers ? x - y : x < y ? -1 : x > y ? 1 : 0;
      };
      const sorted = rows.slice().sort((a, b) => (down ? compare(b, a) : compare(a, b)));
      body.append(...sorted);
    });
  });

  // All that matters is open on paper.
  addEventListener("beforeprint", () => {
    all('.card .badge.is-refuted').forEach((badge) => { badge.closest("details").open = true; });
  });

  const picture = one("picture");
  if (!picture) { return; }
  const canvas = picture.parentElement;
  const whole = picture.viewBox.baseVal;
  const size = { width: whole.width, height: whole.height };
  canvas.classList.add("moves");
  picture.removeAttribute("width");
  picture.removeAttribute("height");
  picture.setAttribute("preserveAspectRatio", "none");
  let view = { x: 0, y: 0, scale: 1 };
  const show = () => {
    const { clientWidth: width, clientHeight: height } = canvas;
    picture.setAttribute("viewBox", `${view.x} ${view.y} ${width / view.scale} ${height / view.scale}`);
  };
  const fitting = () => Math.min(canvas.clientWidth / size.width, canvas.clientHeight / size.height, 1.25);
  const centre = (scale) => {
    view = { scale, x: (size.width - canvas.clientWidth / scale) / 2, y: (size.height - canvas.clientHeight / scale) / 2 };
    show();
  };
  const fit = () => centre(fitting());
  const begin = () => {
    const wide = canvas.clientWidth;
    const most = Math.min(innerHeight * 0.7, 760);
    const scale = Math.min(1.1, wide / size.width);
    // Too large to read at once: begin at the goals, on the right.
    const readable = Math.max(scale, wide < 600 ? 0.62 : 0.7);
    canvas.style.height = `${Math.round(Math.max(180, Math.min(most, size.height * readable)))}px`;
    if (fitting() >= 0.62) { fit(); return; }
    const goals = boxes.filter((box) => box.querySelector(".goal"));
    const places = (goals.length ? goals : boxes).map((box) => box.transform.baseVal.consolidate().matrix.f);
    const middle = places.reduce((sum, place) => sum + place, 0) / places.length;
    const room = canvas.clientHeight / readable;
    const y = room >= size.height ? (size.height - room) / 2 : Math.min(Math.max(0, middle - room / 2), size.height - room);
    const x = wide / readable >= size.width ? (size.width - wide / readable) / 2 : size.width - wide / readable;
    view = { scale: readable, x, y };
    show();
  };
  const zoom = (factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) => {
    const scale = Math.min(3, Math.max(Math.min(fitting(), 0.6) / 1.5, view.scale * factor));
    view.x += x / view.scale - x / scale;
    view.y += y / view.scale - y / scale;
    view.scale = scale;
    show();
  };
  one("closer").addEventListener("click", () => zoom(1.4));
  one("farther").addEventListener("click", () => zoom(1 / 1.4));
  one("whole").addEventListener("click", fit);
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) { return; }
    event.preventDefault();
    const place = canvas.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 300), event.clientX - place.left, event.clientY - place.top);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const step = 60 / view.scale;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key === "+") { zoom(1.4); } else if (event.key === "-") { zoom(1 / 1.4); } else if (moves[event.key]) {
      view.x += moves[event.key][0];
      view.y += moves[event.key][1];
      show();
      event.preventDefault();
    }
  });
  const fingers = new Map();
  let moved = 0;
  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    moved = 0;
    canvas.classList.add("held");
  });
  addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) { return; }
    const spread = () => {
      const [a, b] = fingers.values();
      return Math.hypot(a[0] - b[0], a[1] - b[1]);
    };
    const distance = fingers.size === 2 ? spread() : 0;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size === 2) {
      const place = canvas.getBoundingClientRect();
      const [a, b] = fingers.values();
      zoom(spread() / distance, (a[0] + b[0]) / 2 - place.left, (a[1] + b[1]) / 2 - place.top);
    } else {
      view.x -= (event.clientX - before[0]) / view.scale;
      view.y -= (event.clientY - before[1]) / view.scale;
      show();
    }
    moved += Math.abs(event.clientX - before[0]) + Math.abs(event.clientY - before[1]);
  });
  const release = (event) => {
    fingers.delete(event.pointerId);
    canvas.classList.remove("held");
  };
  addEventListener("pointerup", release);
  addEventListener("pointercancel", release);
  canvas.addEventListener("dragstart", (event) => event.preventDefault());
  canvas.addEventListener("click", (event) => { if (moved > 6) { event.preventDefault(); } }, true);
  addEventListener("resize", show);
  addEventListener("beforeprint", () => {
    picture.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
    picture.setAttribute("preserveAspectRatio", "xMinYMin meet");
  });
  addEventListener("afterprint", () => {
    picture.setAttribute("preserveAspectRatio", "none");
    show();
  });
  begin();

  // A box that is pointed at shows what it needs and what needs it.
  const numbers = (text) => (text ? text.split(" ").map(Number) : []);
  const needs = boxes.map((box) => numbers(box.dataset.needs));
  const neededBy = boxes.map(() => []);
  needs.forEach((inputs, at) => inputs.forEach((input) => neededBy[input].push(at)));
  const lines = all(".lines path").map((path) => ({ path, from: Number(path.dataset.from), to: numbers(path.dataset.to) }));
  const reach = (start, next) => {
    const seen = new Set([start]);
    const pending = [start];
    while (pending.length) {
      next[pending.pop()].forEach((other) => {
        if (!seen.has(other)) {
          seen.add(other);
          pending.push(other);
        }
      });
    }
    return seen;
  };
  const pointed = one("pointed");
  const point = (at) => {
    const below = reach(at, needs);
    const above = reach(at, neededBy);
    const inside = (from, to) => (below.has(from) && below.has(to)) || (above.has(from) && above.has(to));
    picture.classList.add("lit");
    boxes.forEach((box, other) => box.classList.toggle("dim", !below.has(other) && !above.has(other)));
    lines.forEach((line) => {
      const on = line.to.some((to) => inside(line.from, to));
      line.path.classList.toggle("on", on);
      line.path.classList.toggle("dim", !on);
    });
    const title = boxes[at].querySelector("title").textContent;
    pointed.textContent = `${title}. Needs ${below.size - 1}, needed by ${above.size - 1} of the boxes.`;
  };
  const leave = () => {
    picture.classList.remove("lit");
    lines.forEach((line) => line.path.classList.remove("on", "dim"));
    pointed.textContent = "";
    filter();
  };
  boxes.forEach((box, at) => {
    box.addEventListener("pointerenter", () => { if (!fingers.size) { point(at); } });
    box.addEventListener("pointerleave", leave);
    box.addEventListener("focus", () => point(at));
    box.addEventListener("blur", leave);
  });
})();
