// The websocket to the gateway: it is lost when nothing came for a while, and connects again with growing pauses.

// The gateway tells the collectors' states every 0.4 s.
const SILENT_MS = 2000;
const PAUSE_MS_MIN = 500;
const PAUSE_MS_MAX = 8000;
const ASK_MS = 150;

export class Link {
  #socket = null;
  #receive;
  #change;
  #pauseMs = PAUSE_MS_MIN;
  #wanted = null;
  #timer = 0;
  #lastMs = 0;
  #asking = 0;
  #askedMs = -Infinity;

  /** `receive(message)` is called for each message, `change()` when the connection comes or goes. */
  constructor(receive, change) {
    this.#receive = receive;
    this.#change = change;
    this.isOpen = false;
    this.lostMs = null;
    this.againMs = null;
    this.bytes = 0;
    setInterval(() => this.#judge(), 250);
    // A machine that slept, or a network that came back, does not wait for the pause.
    addEventListener("online", () => this.#again(0));
    document.addEventListener("visibilitychange", () => document.hidden || this.isOpen || this.#again(0));
    this.#connect();
  }

  /** Ask for the candles of a series; it is asked for again after a reconnect. */
  draw(block, symbol) {
    this.#wanted = {block, symbol};
    // A key that is held down chooses faster than anybody looks.
    this.#asking ||= setTimeout(() => this.#ask(), performance.now() - this.#askedMs > ASK_MS ? 0 : ASK_MS);
  }

  /** Connect now, whatever the pause. */
  retry() {
    this.#pauseMs = PAUSE_MS_MIN;
    this.#again(0);
  }

  #ask() {
    clearTimeout(this.#asking);
    this.#asking = 0;
    if (!this.isOpen || !this.#wanted) return;
    this.#askedMs = performance.now();
    this.#socket.send(JSON.stringify(this.#wanted));
  }

  #connect() {
    const url = new URL("page/live", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url);
    this.#socket = socket;
    this.againMs = null;
    this.#lastMs = Date.now();
    socket.onmessage = event => {
      if (socket !== this.#socket) return;
      this.#lastMs = Date.now();
      this.bytes += event.data.length;
      if (!this.isOpen) this.#opened();
      this.#receive(JSON.parse(event.data));
    };
    socket.onclose = () => socket === this.#socket && this.#lost();
  }

  #opened() {
    this.isOpen = true;
    this.lostMs = null;
    this.#pauseMs = PAUSE_MS_MIN;
    this.#ask();
    this.#change();
  }

  #lost() {
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onclose = null;
      socket.close();
    }
    this.isOpen = false;
    this.lostMs ??= Date.now();
    this.#again(this.#pauseMs * (0.75 + Math.random() / 2));
    this.#pauseMs = Math.min(this.#pauseMs * 2, PAUSE_MS_MAX);
    this.#change();
  }

  #again(pauseMs) {
    if (this.#socket) return;
    clearTimeout(this.#timer);
    this.againMs = Date.now() + pauseMs;
    this.#timer = setTimeout(() => this.#connect(), pauseMs);
  }

  #judge() {
    // While the page is hidden its timers hardly run, and messages wait: that is no silence of the gateway.
    if (this.#socket && !document.hidden && Date.now() - this.#lastMs > SILENT_MS) this.#lost();
  }
}
