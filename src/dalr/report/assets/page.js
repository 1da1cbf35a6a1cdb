// Sorting, group by group; without this script every table stands in its own order.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.cells[column];
        return cell.dataset.value !== undefined ? Number(cell.dataset.value) : cell.textContent.trim();
      };
      const rank = (entry) => (typeof entry === "number" ? 0 : entry === "–" ? 2 : 1);
      for (const body of table.tBodies) {
        const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
        rows.sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          if (rank(x) !== rank(y)) return rank(x) - rank(y);
          const order = typeof x === "number" ? x - y : x.localeCompare(y, undefined, { numeric: true });
          return descending ? -order : order;
        });
        body.append(...rows);
      }
    });
  });
}
