// Selected items of the list: one, a range, or all.

export class Selection {
  constructor({ page, rows }) {
    this.page = page;
    this.rows = rows;
    this.picked = new Set();
    this.last = "";
  }

  get size() {
    return this.picked.size;
  }

  items() {
    return this.rows().map((row) => row.dataset.item).filter((item) => this.picked.has(item));
  }

  // Select a row or not; `range`: with all rows since the last one.
  toggle(row, { range = false } = {}) {
    if (this.page.dataset.canMark === undefined) return;
    const { item } = row.dataset;
    const all = this.rows().map((each) => each.dataset.item);
    const from = all.indexOf(this.last);
    if (range && from >= 0) {
      const to = all.indexOf(item);
      for (const each of all.slice(Math.min(from, to), Math.max(from, to) + 1)) this.picked.add(each);
    } else if (this.picked.has(item)) this.picked.delete(item);
    else this.picked.add(item);
    this.last = item;
    this.refresh();
  }

  all(isWanted) {
    if (this.page.dataset.canMark === undefined) return;
    this.picked = new Set(isWanted ? this.rows().map((row) => row.dataset.item) : []);
    this.refresh();
  }

  refresh() {
    const known = new Set(this.rows().map((row) => row.dataset.item));
    for (const item of this.picked) if (!known.has(item)) this.picked.delete(item);
    for (const row of this.rows()) {
      const isPicked = this.picked.has(row.dataset.item);
      row.classList.toggle("r-picked", isPicked);
      const check = row.querySelector(".r-check");
      if (check) check.checked = isPicked;
    }
    this.page.classList.toggle("r-picking", this.size > 0);
    const bulk = this.page.querySelector(".r-bulk");
    bulk.hidden = !this.size;
    bulk.querySelector(".r-selected").textContent = `${this.size} selected`;
  }
}
