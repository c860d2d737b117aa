// Values under the pointer, and a page that looks the same after it has loaded itself anew. It is complete without both.
"use strict";
try {
  const key = `view of ${location.pathname}`;
  const parts = [...document.querySelectorAll("details, .legend input")];
  const seen = JSON.parse(sessionStorage.getItem(key));
  if (seen && seen.parts.length === parts.length) {
    parts.forEach((part, index) => { part["open" in part ? "open" : "checked"] = seen.parts[index]; });
    scrollTo(0, seen.y);
  }
  const keep = () => ({ y: scrollY, parts: parts.map((part) => ("open" in part ? part.open : part.checked)) });
  addEventListener("pagehide", () => sessionStorage.setItem(key, JSON.stringify(keep())));
} catch { /* a browser that keeps nothing for this page */ }
for (const plot of document.querySelectorAll("svg.plot")) {
  const figure = plot.parentElement;
  const [left, top, right, bottom] = plot.dataset.box.split(" ").map(Number);
  const [low, high] = plot.dataset.range.split(" ").map(Number); // kimg at left and right
  const ns = "http://www.w3.org/2000/svg";
  const lines = [...plot.querySelectorAll("g.run")].map((group) => ({
    group,
    name: group.dataset.name,
    points: group.dataset.values.split(";").map((point) => point.split(" ").map(Number)),
    written: group.dataset.values.split(";").map((point) => point.split(" ")[1]),
  }));
  let box = null, pointer = null;

  const leave = () => {
    if (box) { box.remove(); pointer.remove(); box = pointer = null; }
  };
  const move = (event) => {
    const shape = plot.getBoundingClientRect();
    const x = ((event.clientX - shape.left) / shape.width) * plot.viewBox.baseVal.width;
    if (x < left - 6 || x > right + 6 ) { leave(); return; }
    const kimg = low + ((x - left) / (right - left)) * (high - low);
    if (!box) {
      box = figure.appendChild(Object.assign(document.createElement("div"), { className: "values" }));
      pointer = plot.appendChild(document.createElementNS(ns, "path"));
      pointer.setAttribute("class", "pointer");
    }
    pointer.setAttribute("d", `M${Math.min(Math.max(x, left), right)} ${top}V${bottom}`);
    const head = document.createElement("div");
    head.textContent = `${Number(kimg.toPrecision(4))} kimg`;
    box.replaceChildren(head);
    for (const line of lines) {
      if (getComputedStyle(line.group).display === "none") continue;
      let near = 0;
      line.points.forEach((point, index) => {
        if (Math.abs(point[0] - kimg) < Math.abs(line.points[near][0] - kimg)) near = index;
      });
      const row = document.createElement("div");
      const name = row.appendChild(document.createElement("b"));
      name.className = line.group.getAttribute("class").split(" ")[0];
      name.textContent = line.name;
      row.append(` ${line.written[near]}`);
      box.append(row);
    }
    const beside = event.clientX - figure.getBoundingClientRect().left;
    const width = box.offsetWidth;
    box.style.left = `${Math.max(0, Math.min(beside > figure.clientWidth / 2 ? beside - width - 12 : beside + 12, figure.clientWidth - width))}px`;
    box.style.top = `${plot.offsetTop + 8}px`;
  };
  plot.addEventListener("pointermove", move);
  plot.addEventListener("pointerdown", move);
  plot.addEventListener("pointerleave", leave);
}
