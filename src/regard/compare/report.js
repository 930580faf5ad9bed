const table = document.querySelector("table.results"), body = table.tBodies[0];
const heads = [...table.tHead.rows[0].cells];
heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const before = head.getAttribute("aria-sort");
  const first = head.dataset.better === "higher" ? "descending" : "ascending";
  const order = !before ? first : before === "ascending" ? "descending" : "ascending";
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const compare = (a, b) => key(a) === "" ? 1 : key(b) === "" ? -1 :
    (order === "ascending" ? 1 : -1) * (column ? key(a) - key(b) : key(a).localeCompare(key(b)));
  body.append(...[...body.rows].sort(compare));
}));
