// Answers: one card per picture. They are in memory alone, and outlive a change of the page.

import { send, sentence } from "./requests.js";

const KNOWN = "article.card:not(.bad)";

export class Answers {
  items = [];
  #number = 0;

  // "dropped" hears of pictures that are taken away, "again" of those that are to be asked about once more.
  constructor({ dropped, again }) {
    this.dropped = dropped;
    this.again = again;
  }

  // Show the answers in the section of a page that has just come.
  enter(page) {
    this.page = page;
    this.section = document.getElementById("answers");
    this.list = this.section.querySelector(".cards");
    this.order = document.getElementById("order");
    this.csv = document.getElementById("csv");
    this.said = document.getElementById("summary");
    this.order.value = this.orderValue ?? "sent";
    this.order.addEventListener("change", () => {
      this.orderValue = this.order.value;
      this.#update();
    });
    this.list.addEventListener("toggle", ({ target }) => this.#open(target), true);
    this.list.append(...this.items.map((item) => item.card));
    window.htmx.process(this.list); // forms of cards that were away
    this.#update();
  }

  // Show a place for each picture, until its answer comes.
  add(items) {
    for (const item of items) {
      item.number ??= this.#number++;
      if (!this.items.includes(item)) this.items.push(item);
      const card = this.#filled("waiting", item);
      const image = card.querySelector("img");
      image.src = item.thumbnail ?? URL.createObjectURL(item.file);
      image.addEventListener("load", () => URL.revokeObjectURL(image.src));
      image.addEventListener("error", () => image.removeAttribute("src")); // a format that the browser cannot show
      this.#put(item, card);
    }
    this.#update();
  }

  answered(item, card) {
    card.dataset.sent = item.number;
    const title = card.querySelector("h3");
    title.id = `card-${item.number}`;
    card.setAttribute("aria-labelledby", title.id);
    this.#put(item, card);
    window.htmx.process(card);
    this.#update();
  }

  failed(item, text, detail) {
    const card = this.#filled("failed", item);
    const title = card.querySelector("h3");
    title.id = `card-${item.number}`;
    title.textContent = text;
    card.setAttribute("aria-labelledby", title.id);
    if (detail) card.querySelector(".again").before(detail.cloneNode(true));
    card.querySelector(".again").addEventListener("click", () => this.again([item]));
    this.#put(item, card);
    this.#update();
  }

  remove(items) {
    items.forEach((item) => item.card?.remove());
    this.items = this.items.filter((item) => !items.includes(item));
    this.dropped(items);
    this.#update();
  }

  get title() {
    return document.getElementById("answers-title");
  }

  #filled(name, item) {
    const card = document.getElementById(`card-${name}`).content.firstElementChild.cloneNode(true);
    card.querySelector(".name").textContent = item.name;
    card.dataset.sent = item.number;
    return card;
  }

  #put(item, card) {
    const button = document.getElementById("card-remove").content.firstElementChild.cloneNode(true);
    button.setAttribute("aria-label", this.page.texts.remove.replace("#", item.name));
    button.addEventListener("click", () => {
      const next = item.card.nextElementSibling ?? item.card.previousElementSibling;
      this.remove([item]);
      (next?.querySelector(".remove") ?? document.getElementById("pictures")).focus();
    });
    card.append(button);
    if (item.card?.parentNode) item.card.replaceWith(card);
    else this.list.append(card);
    item.card = card;
  }

  #update() {
    this.section.classList.toggle("some", this.list.children.length > 0);
    const key = this.order.value;
    // As sent, the lowest first; by doubt, the highest, and what has no answer last.
    const place = ({ dataset }) => (key === "sent" ? Number(dataset.sent) : -Number(dataset.doubt ?? -2));
    const cards = [...this.list.children];
    const sorted = [...cards].sort((one, other) => place(one) - place(other));
    if (cards.some((card, at) => card !== sorted[at])) {
      const focused = document.activeElement;
      this.list.append(...sorted);
      focused.focus({ preventScroll: true });
    }
    const lines = sorted.filter((card) => card.dataset.line).map((card) => card.dataset.line);
    this.csv.hidden = !lines.length;
    const text = [this.csv.dataset.header, ...lines].map((line) => `${line}\r\n`).join("");
    this.csv.href = `data:text/csv;charset=utf-8,${encodeURIComponent(text)}`;
    this.said.textContent = this.summary();
  }

  summary() {
    const { texts } = this.page;
    const counted = (name, number) => (number === 1 ? texts[`${name}One`] : texts[`${name}Many`].replace("#", number));
    const number = (selector) => this.list.querySelectorAll(selector).length;
    const [both, unsure] = [number("[data-both]"), number("[data-unsure]")];
    const parts = [counted("pictures", this.list.children.length)];
    if (number(".waiting")) parts.push(counted("waiting", number(".waiting")));
    if (both) parts.push(counted("both", both));
    if (number(KNOWN)) parts.push(unsure ? counted("unsure", unsure) : texts.unsureNone);
    if (number(".bad")) parts.push(counted("refused", number(".bad")));
    return parts.join(" · ");
  }

  // The maps of a picture are made when somebody wants to see them: the picture is sent once more.
  async #open(details) {
    const place = details.open && details.querySelector(".maps-later:not([aria-busy])");
    if (!place) return;
    const item = this.items.find(({ card }) => card.contains(details));
    place.setAttribute("aria-busy", "true");
    const form = new FormData();
    if (item.model) form.append("model", item.model);
    item.append(form);
    const { status, page } = await send(place.dataset.address, form);
    const made = page?.querySelector(".maps-made");
    if (made) place.replaceWith(document.adoptNode(made));
    else {
      place.textContent = page?.querySelector(".problem strong")?.textContent ?? sentence(status, this.page.texts);
      place.removeAttribute("aria-busy"); // closed and opened again, it is tried again
    }
  }
}
