// What happened, the newest first.

import {clock} from "./figures.js";

const KEPT = 200;

export class Events {
  #list;
  #nothing;
  #items = new Map();

  constructor(list, nothing) {
    this.#list = list;
    this.#nothing = nothing;
  }

  /** Begin anew with what the gateway remembers. */
  begin(events) {
    this.#list.replaceChildren();
    this.#items.clear();
    for (const event of events) this.add({...event, replaced: null});
    this.#show();
  }

  #show() {
    this.#list.hidden = !this.#items.size;
    this.#nothing.hidden = this.#items.size > 0;
  }

  add({number, replaced, at, block, text, bad}) {
    this.#items.get(replaced)?.remove();
    this.#items.delete(replaced);
    const item = document.createElement("li");
    const time = document.createElement("time");
    time.dateTime = new Date(at).toISOString();
    time.textContent = clock(at);
    const sign = document.createElement("span");
    sign.className = "sign";
    sign.textContent = bad ? "▲" : "";
    const what = document.createElement("span");
    what.className = "what";
    what.textContent = text;
    what.title = text;
    const where = document.createElement("span");
    where.className = "where";
    where.textContent = block;
    if (bad) item.dataset.bad = "";
    item.append(time, sign, what, where);
    this.#list.prepend(item);
    this.#items.set(number, item);
    while (this.#items.size > KEPT) {
      const oldest = this.#items.keys().next().value;
      this.#items.get(oldest).remove();
      this.#items.delete(oldest);
    }
    this.#show();
  }

  get texts() {
    return [...this.#items.values()].map(item => item.querySelector(".what").textContent);
  }
}
