// Reading values off the pictures, sorting tables, and printing what is folded away. The page says everything without this.
// A mouse points by moving, a finger by touching: it leaves when it is lifted, and what it pointed at stays until it touches
// something else.
const pointed = (plot, show, hide) => {
  for (const kind of ["pointerdown", "pointermove"]) plot.addEventListener(kind, show);
  plot.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") hide(); });
  addEventListener("pointerdown", (event) => { if (!plot.contains(event.target)) hide(); });
};
for (const figure of document.querySelectorAll("[data-chart]")) {
  const { axes: [left, right], span: [first, last], clock, times, lines } = JSON.parse(figure.dataset.chart);
  const plot = figure.querySelector(".plot"), output = figure.querySelector("output");
  const values = figure.querySelectorAll(".legend data"), rule = document.createElement("hr");
  const show = (n) => {
    output.textContent = `${clock} ${times[n]}`;
    values.forEach((value, line) => { value.textContent = lines[line][n]; });
  };
  pointed(plot, (event) => {
    const box = plot.getBoundingClientRect();
    const time = first + ((event.clientX - box.left) / box.width - left) / (right - left) * (last - first);
    let n = 0;
    times.forEach((t, k) => { if (Math.abs(t - time) < Math.abs(times[n] - time)) n = k; });
    rule.style.left = `${100 * (left + (times[n] - first) / (last - first) * (right - left))}%`;
    plot.append(rule);
    show(n);
  }, () => { if (rule.isConnected) { rule.remove(); show(times.length - 1); } });
}
addEventListener("beforeprint", () => { for (const folded of document.querySelectorAll("details")) folded.open = true; });
for (const head of document.querySelectorAll("th[data-sort]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const table = head.closest("table"), body = table.tBodies[0], column = Number(head.dataset.sort);
    const text = (row) => row.cells[column].textContent.trim();
    const value = (row) => parseFloat(row.cells[column].dataset.value);
    const numeric = [...body.rows].some((row) => !Number.isNaN(value(row)));
    // Numbers begin with the largest and names with the first; what is missing stays last.
    const before = head.getAttribute("aria-sort");
    const up = before ? before === "descending" : !numeric;
    const order = (a, b) => {
      if (!numeric) return text(a).localeCompare(text(b), undefined, { numeric: true }) * (up ? 1 : -1);
      const [x, y] = [value(a), value(b)];
      return Number.isNaN(x) - Number.isNaN(y) || (x - y) * (up ? 1 : -1) || 0;
    };
    body.append(...[...body.rows].sort(order));
    for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  });
}
for (const form of document.querySelectorAll(".frontier")) {
  const focus = (n) => {
    form.classList.toggle("focused", n !== null);
    for (const part of form.querySelectorAll("[data-method]")) part.classList.toggle("here", part.dataset.method === n);
  };
  let held = null;
  for (const key of form.querySelectorAll(".methods li")) {
    key.addEventListener("pointerenter", () => focus(key.dataset.method));
    key.addEventListener("pointerleave", () => focus(held));
    key.addEventListener("click", () => { held = held === key.dataset.method ? null : key.dataset.method; focus(held); });
  }
  for (const plot of form.querySelectorAll(".plot")) {
    const spots = [...plot.querySelectorAll(".spot")].map((spot) => {
      const title = spot.querySelector("title"), text = title.textContent;
      spot.setAttribute("aria-label", text);
      title.remove();  // or the browser shows it beside ours
      return { text, place: spot.querySelector(".mark"), method: spot.parentNode.dataset.method };
    });
    const tip = document.createElement("div");
    tip.className = "tip";
    const hide = () => { if (tip.isConnected) { tip.remove(); focus(held); } };
    pointed(plot, (event) => {
      let best = null, least = event.pointerType === "touch" ? 36 : 24;
      for (const spot of spots) {
        const box = spot.place.getBoundingClientRect();
        const away = Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
        if (away < least) [best, least] = [spot, away];
      }
      if (!best) { hide(); return; }
      const around = plot.getBoundingClientRect(), box = best.place.getBoundingClientRect();
      tip.textContent = best.text;
      plot.append(tip);
      const x = box.x - around.x, y = box.y - around.y;
      const roomX = around.width - tip.offsetWidth, roomY = around.height - tip.offsetHeight;
      const right = x + 20 <= roomX, left = x - 10 >= tip.offsetWidth;
      const across = right ? x + 20 : left ? x - 10 - tip.offsetWidth : x - tip.offsetWidth / 2;
      const down = right || left ? y - 10 : y + 24 <= roomY ? y + 24 : y - 10 - tip.offsetHeight;
      tip.style.left = `${Math.max(0, Math.min(across, roomX))}px`;
      tip.style.top = `${Math.max(0, Math.min(down, roomY))}px`;
      focus(best.method);
    }, hide);
  }
}
