for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const at = head.cellIndex;
    const value = (row) => row.cells[at].textContent;
    const numbers = head.classList.contains("n");
    const order = (a, b) => numbers
      ? Number(value(a).replaceAll(",", "")) - Number(value(b).replaceAll(",", ""))
      : value(a).localeCompare(value(b), "en", { numeric: true });
    const rows = [...body.rows].sort((a, b) => (down ? order(b, a) : order(a, b)));
    body.append(...rows);
  });
}
const tip = document.createElement("div");
tip.className = "tip-box";
tip.hidden = true;
document.body.append(tip);
for (const map of document.querySelectorAll("svg[data-cells]")) {
  const [left, top, width, height] = map.dataset.cells.split(" ").map(Number);
  const rows = JSON.parse(map.dataset.rows);
  const columns = JSON.parse(map.dataset.columns);
  const show = (event) => {
    const box = map.getBoundingClientRect();
    const scale = map.viewBox.baseVal.width / box.width;
    const row = rows[Math.floor(((event.clientY - box.top) * scale - top) / height)];
    const column = columns[Math.floor(((event.clientX - box.left) * scale - left) / width)];
    tip.hidden = row === undefined || column === undefined;
    tip.textContent = `${row} · ${column}`;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${event.clientY + 16}px`;
  };
  map.addEventListener("pointermove", show);
  map.addEventListener("pointerdown", show);
  map.addEventListener("pointerleave", () => { tip.hidden = true; });
}
