for (const table of document.querySelectorAll("table.results")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
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
}
for (const choice of document.querySelectorAll(".choice")) {
  const buttons = [...choice.querySelectorAll("button")];
  const show = chosen => buttons.forEach(button => {
    button.setAttribute("aria-pressed", button === chosen);
    document.getElementById(button.dataset.shows).hidden = button !== chosen;
  });
  buttons.forEach(button => button.addEventListener("click", () => show(button)));
  show(buttons[0]);
  choice.hidden = false;
}
for (const button of document.querySelectorAll("button.copy")) {
  const source = document.getElementById(button.dataset.copies), told = document.getElementById("copied");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      told.textContent = "Copied.";
    } catch {
      source.closest("details").open = true;
      getSelection().selectAllChildren(source);
      told.textContent = document.execCommand("copy") ? "Copied." : "Selected below: copy it with the keyboard.";
    }
  });
  button.hidden = false;
}
