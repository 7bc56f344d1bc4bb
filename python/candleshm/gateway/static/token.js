// The token of a gateway that has one. It is asked for once; the browser then keeps a cookie that no script can read.

export class Token {
  #dialog;
  #field;
  #fault;
  #given;

  /** `given()` is called once the gateway has taken the token. */
  constructor(dialog, given) {
    this.#dialog = dialog;
    this.#field = dialog.querySelector("input[type=password]");
    this.#fault = dialog.querySelector("[role=alert]");
    this.#given = given;
    dialog.querySelector("form").addEventListener("submit", event => {
      event.preventDefault();
      this.#show();
    });
  }

  /** Ask for the token if that is why there is no connection. */
  async look() {
    if (!this.#dialog.open && (await this.#status({})) === 401 && !this.#dialog.open) this.#dialog.showModal();
  }

  async #show() {
    const status = await this.#status({headers: {Authorization: `Bearer ${this.#field.value.trim()}`}});
    this.#field.value = "";
    if (status === 204) {
      this.#fault.textContent = "";
      this.#dialog.close();
      this.#given();
    } else {
      this.#fault.textContent = status === 401 ? "That is not the token of this gateway." : "The gateway does not respond.";
      this.#field.focus();
    }
  }

  async #status(options) {
    try {
      return (await fetch("page/session", {cache: "no-store", ...options})).status;
    } catch {
      return 0;
    }
  }
}
