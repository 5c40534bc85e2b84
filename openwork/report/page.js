// Reading values off the charts, sorting the table, and printing what is folded away. The page says everything without this.
for (const figure of document.querySelectorAll("[data-chart]")) {
  const { axes: [left, right], span: [first, last], clock, times, lines } = JSON.parse(figure.dataset.chart);
  const plot = figure.querySelector(".plot"), output = figure.querySelector("output");
  const values = figure.querySelectorAll(".legend data"), rule = document.createElement("hr");
  const show = (n) => {
    output.textContent = `${clock} ${times[n]}`;
    values.forEach((value, line) => { value.textContent = lines[line][n]; });
  };
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const time = first + ((event.clientX - box.left) / box.width - left) / (right - left) * (last - first);
    let n = 0;
    times.forEach((t, k) => { if (Math.abs(t - time) < Math.abs(times[n] - time)) n = k; });
    rule.style.left = `${100 * (left + (times[n] - first) / (last - first) * (right - left))}%`;
    plot.append(rule);
    show(n);
  });
  plot.addEventListener("pointerleave", () => { rule.remove(); show(times.length - 1); });
}
addEventListener("beforeprint", () => { for (const folded of document.querySelectorAll("details")) folded.open = true; });
for (const head of document.querySelectorAll("th[data-sort]")) {
  head.tabIndex = 0;
  const sort = () => {
    const table = head.closest("table"), body = table.tBodies[0], column = Number(head.dataset.sort);
    const up = head.getAttribute("aria-sort") === "descending";
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const order = (a, b) => key(a).localeCompare(key(b), undefined, { numeric: true });
    const numeric = (a, b) => (parseFloat(key(a)) || 0) - (parseFloat(key(b)) || 0);
    const rows = [...body.rows].sort(column ? numeric : order);
    body.append(...(up ? rows : rows.reverse()));
    for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
}
