"use strict";
// Without this script the page is complete; with it, tables can be sorted and searched.

function key(cell) {
  const given = cell.dataset.value;
  if (given !== undefined) return Number(given);
  const text = cell.textContent.trim();
  const number = cell.classList.contains("number") ? parseFloat(text.replace(/,/g, "")) : NaN;
  return Number.isNaN(number) ? text.toLowerCase() : number;
}

function compare(one, other) {
  // Numbers before texts, and what is empty last, whichever way round.
  if (one === other) return 0;
  if (typeof one === typeof other) {
    return typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true });
  }
  return typeof one === "number" ? -1 : 1;
}

function sort(table, heading) {
  const place = heading.cellIndex;
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const keyed = Array.from(table.tBodies[0].rows, (row) => [key(row.cells[place]), row]);
  keyed.sort((one, other) => {
    if (one[0] === "" || other[0] === "") return (one[0] === "") - (other[0] === "");
    return down ? compare(other[0], one[0]) : compare(one[0], other[0]);
  });
  table.tBodies[0].append(...keyed.map((pair) => pair[1]));
}

for (const table of document.querySelectorAll("table[data-sortable]")) {
  for (const heading of table.tHead.rows[0].cells) {
    // No <button>: a table's head that holds one is not repeated on every printed page.
    const button = document.createElement("span");
    button.setAttribute("role", "button");
    button.tabIndex = 0;
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(table, heading));
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort(table, heading);
    });
    heading.append(button);
  }
}

for (const tools of document.querySelectorAll(".tools")) {
  const rows = Array.from(tools.nextElementSibling.querySelectorAll("tbody tr"));
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const found = tools.querySelector("output");
  const field = tools.querySelector("input");
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase().split(/\s+/);
    let count = 0;
    rows.forEach((row, place) => {
      row.hidden = !wanted.every((word) => texts[place].includes(word));
      count += row.hidden ? 0 : 1;
    });
    found.textContent = field.value.trim() ? `${count} of ${rows.length}` : "";
  });
  tools.hidden = false;
}
