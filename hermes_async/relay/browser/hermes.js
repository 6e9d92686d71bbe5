/**
 * The client of a hermes_async relay for browsers: a session's or a task's events, in order, whatever breaks in between.
 *
 * It stands on socket.io-client 4, which the page's import map or its bundler finds, and does what `RelayClient` does in
 * Python. How to use it: docs/browser.md.
 */
import { io } from "socket.io-client";

/** Milliseconds between two tries to connect: the first, and the longest. */
const BACKOFF_FIRST = 200;
const BACKOFF_LONGEST = 5_000;
/** Milliseconds for a relay to answer. */
const ANSWER = 10_000;

/** The token is not accepted, or has expired. A token function may throw it, too, to end all following. */
export class Unauthorized extends Error {
  name = "Unauthorized";
}

/** The session or task does not exist, or the token does not allow it. */
export class UnknownTask extends Error {
  name = "UnknownTask";
}

/** The relay does not understand what is wanted. */
export class InvalidInput extends Error {
  name = "InvalidInput";
}

/** A command is not obeyed: `code` is one of those in docs/wire.md, such as `limit_exceeded`. */
export class Refused extends Error {
  name = "Refused";

  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** No relay answered in time. */
export class RelayUnavailable extends Error {
  name = "RelayUnavailable";
}

/** The connection broke, or was never made; another one may do better. */
class Lost extends Error {
  name = "Lost";
}

/**
 * Events `first` to `last` were trimmed from the log. `snapshot` has the tasks by id, as they are once every event up
 * to `asOf` is applied: what follows with a `seq` up to that is in it already.
 */
export class Gap {
  type = "gap";

  constructor(first, last, asOf, snapshot) {
    Object.assign(this, { first, last, asOf, snapshot });
  }

  /** Where to go on, as of any event. */
  get seq() {
    return this.last;
  }
}

/** Follows sessions and tasks over a relay, and commands them. Each `follow` has a connection of its own. */
export class RelayClient {
  #url;
  #token;
  #timeout;
  #giveUpAfter;
  #closing = new AbortController();
  #forCommands = null;

  /**
   * @param {string} url The relay's, for example `location.origin`.
   * @param {string | (() => string | Promise<string>)} token A token, or a function that gives a fresh one for each
   *   connection. What the function throws counts as a lost connection, unless it is `Unauthorized`.
   * @param {{timeout?: number, giveUpAfter?: number}} [options] `timeout`: milliseconds within which the first connection
   *   of a `follow` must be made; `giveUpAfter`: milliseconds to go on trying after a connection broke, for ever by default.
   */
  constructor(url, token, { timeout = 10_000, giveUpAfter = Infinity } = {}) {
    this.#url = url;
    this.#token = token;
    this.#timeout = timeout;
    this.#giveUpAfter = giveUpAfter;
  }

  /**
   * Yield the events with a `seq` beyond `after`, past and future: of a session for ever, or of a task until its end.
   *
   * Each comes once and in order; in place of events that are no longer kept comes a `Gap`. It may take as long as you
   * like to deal with one: no more than a batch is held meanwhile.
   *
   * @param {{session?: string, task?: string, after?: number, signal?: AbortSignal}} what The session's id or the task's,
   *   the last `seq` that you have seen, and what ends it.
   * @throws {Unauthorized | UnknownTask | InvalidInput | RelayUnavailable}
   */
  async *follow({ session, task, after = 0, signal } = {}) {
    const ending = AbortSignal.any([this.#closing.signal, ...(signal ? [signal] : [])]);
    const place = new Place(session, task, after);
    const patience = new Patience(this.#url, this.#timeout);
    while (!place.ended && !ending.aborted) {
      try {
        yield* this.#followOnce(place, patience, ending);
      } catch (error) {
        if (!(error instanceof Lost)) throw error;
        place.lost = error.message;
      }
      if (!place.ended && !ending.aborted) await patience.wait(place.lost, ending);
    }
  }

  /**
   * Give a command and return the relay's answer; commands share a connection, which is kept for the next one.
   *
   * @param {string} name One of the commands of docs/wire.md.
   * @param {object} said What it is about.
   * @throws {Unauthorized | UnknownTask | InvalidInput | Refused}
   * @throws {RelayUnavailable} Nobody knows whether it was obeyed.
   */
  async command(name, said = {}) {
    try {
      const connection = this.#commanding();
      await connection.opened;
      return await connection.ask(name, said);
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
      throw new RelayUnavailable(`the relay at ${this.#url} did not answer (${error.message})`);
    }
  }

  /** End every `follow`, and whatever else is connected. */
  close() {
    this.#closing.abort();
    this.#forCommands?.close();
  }

  /** Return the connection for commands, which may still have to open. */
  #commanding() {
    if (this.#closing.signal.aborted) throw new Lost("closed");
    if (!this.#forCommands || this.#forCommands.gone) {
      const connection = (this.#forCommands = new Connection());
      connection.opened = within(this.#timeout, this.#open(connection)).catch((error) => {
        connection.close();
        throw error;
      });
    }
    return this.#forCommands;
  }

  /** Yield what one connection brings. */
  async *#followOnce(place, patience, ending) {
    place.restart();
    const connection = new Connection();
    const end = () => connection.close();
    ending.addEventListener("abort", end);
    try {
      await within(patience.left(), this.#subscribe(connection, place));
      patience.renew(this.#giveUpAfter);
      for (let batch; !place.ended && !ending.aborted && (batch = await connection.next()); ) {
        yield* place.advance(batch);
      }
      if (connection.expired && !place.ended && typeof this.#token !== "function") {
        throw new Unauthorized("the token has expired; ask for a new one");
      }
    } finally {
      ending.removeEventListener("abort", end);
      connection.close();
    }
  }

  async #subscribe(connection, place) {
    await this.#open(connection);
    await connection.ask("subscribe", place.wanted());
  }

  async #open(connection) {
    await connection.open(this.#url, await this.#freshToken());
  }

  async #freshToken() {
    if (typeof this.#token !== "function") return this.#token;
    try {
      return await this.#token();
    } catch (error) {
      throw error instanceof Unauthorized ? error : new Lost(`there is no token: ${error?.message ?? error}`);
    }
  }
}

/** One connection to a relay, good for one subscription, or for commands. */
class Connection {
  /** The token ran out while we were connected. */
  expired = false;
  /** It is closed, by us or by the relay. */
  gone = false;
  #socket = null;
  #arrived = [];
  #wanted = null;
  #acknowledge = () => {};
  #refuse = () => {};

  /** Connect. */
  open(url, token) {
    if (this.gone) throw new Lost("closed");
    this.#socket = io(url, {
      auth: { token },
      transports: ["websocket"],
      reconnection: false,
      forceNew: true,
      timeout: ANSWER,
    });
    this.#socket.on("events", (batch, acknowledge) => this.#arrive({ batch, acknowledge }));
    this.#socket.on("auth.expired", () => (this.expired = true));
    this.#socket.on("disconnect", (reason) => this.#go(reason));
    // What closes before the first packet of Engine.IO is no "disconnect" and no "connect_error"; a refusal that came
    // right before is still to be read.
    this.#socket.io.engine.on("close", (reason) => setTimeout(() => this.#go(reason)));
    const opened = new Promise((connected, refused) => {
      this.#refuse = refused;
      this.#socket.on("connect", connected);
      this.#socket.on("connect_error", (error) => {
        const unauthorized = error.data?.code === "unauthorized";
        refused(unauthorized ? new Unauthorized(error.data.message ?? error.message) : new Lost(error.message));
      });
    });
    return within(ANSWER, opened);
  }

  /** Give a command and return its answer. */
  async ask(command, said) {
    let answer;
    try {
      answer = await this.#socket.timeout(ANSWER).emitWithAck(command, said);
    } catch {
      throw new Lost("the relay did not answer");
    }
    if (answer?.ok) return answer;
    throw refusal(answer?.error);
  }

  /** Acknowledge the batch before, and return the next one, or null when the connection is gone. */
  async next() {
    this.#acknowledge();
    this.#acknowledge = () => {};
    if (!this.#arrived.length) await new Promise((arrived) => (this.#wanted = arrived));
    const received = this.#arrived.shift();
    if (received) this.#acknowledge = received.acknowledge;
    return received?.batch ?? null;
  }

  /** Disconnect. */
  close() {
    this.#go("closed");
    this.#socket?.disconnect();
  }

  #go(why) {
    this.gone = true;
    this.#refuse(new Lost(why)); // it may go while it opens, which is no connect_error
    this.#arrive(null);
  }

  #arrive(received) {
    this.#arrived.push(received);
    this.#wanted?.();
    this.#wanted = null;
  }
}

/** The error that a relay's refusal of a command becomes; some say that another connection may do better. */
function refusal({ code, message } = {}) {
  const kinds = { not_found: UnknownTask, invalid: InvalidInput, unauthorized: Unauthorized };
  if (code in kinds) return new kinds[code](message);
  if (!code || ["unavailable", "internal", "too_many"].includes(code)) return new Lost(message ?? "the relay refused");
  return new Refused(code, message);
}

/** How far a subscription has been followed. */
class Place {
  ended = false;
  lost = "";
  #session;
  #task;
  #after;
  #tasks = {};

  constructor(session, task, after) {
    this.#session = session;
    this.#task = task;
    this.#after = after;
  }

  /** What to subscribe to. */
  wanted() {
    return { session: this.#session, task: this.#task, after: this.#after };
  }

  /** Forget what a lost connection had begun to tell. */
  restart() {
    this.#tasks = {};
  }

  /** Yield what is new in a batch; what is missing is lost, and comes again with the next connection. */
  *advance({ events, gap, snapshot, end }) {
    if (gap && snapshot) yield* this.#leap(gap, snapshot);
    for (const event of events) {
      if (event.seq <= this.#after) continue;
      if (this.#task === undefined && event.seq !== this.#after + 1) {
        throw new Lost(`event ${this.#after + 1} did not come before event ${event.seq}`);
      }
      this.#after = event.seq;
      yield event;
    }
    this.ended = end;
  }

  *#leap([first, last], { seq, tasks, more }) {
    for (const task of tasks) this.#tasks[task.id] = task;
    if (more || last <= this.#after) return;
    this.#after = last;
    yield new Gap(first, last, seq, this.#tasks);
    this.#tasks = {};
  }
}

/** How long to wait before a connection is tried again, and when to give up. */
class Patience {
  #url;
  #limit;
  #deadline;
  #delay = BACKOFF_FIRST;

  constructor(url, timeout) {
    this.#url = url;
    this.#limit = timeout;
    this.#deadline = Date.now() + timeout;
  }

  /** A connection was made; the next one may take `limit` milliseconds from its loss on. */
  renew(limit) {
    this.#limit = limit;
    this.#deadline = null;
    this.#delay = BACKOFF_FIRST;
  }

  /** Milliseconds until we give up. */
  left() {
    return this.#deadline === null ? Infinity : this.#deadline - Date.now();
  }

  /** Wait before the next try, a random part of what would be due, so that clients do not come back in step. */
  async wait(why, ending) {
    this.#deadline ??= Date.now() + this.#limit;
    if (this.left() <= 0) throw new RelayUnavailable(`no relay answers at ${this.#url} (${why})`);
    const delay = this.#delay * (0.5 + Math.random() / 2);
    this.#delay = Math.min(BACKOFF_LONGEST, this.#delay * 2);
    await pause(Math.min(delay, this.left()), ending);
  }
}

/** Return what a promise gives, or throw Lost after so many milliseconds. */
async function within(milliseconds, promise) {
  if (milliseconds === Infinity) return promise;
  let timer;
  const late = new Promise((_, refuse) => {
    timer = setTimeout(() => refuse(new Lost("no answer")), Math.max(0, milliseconds));
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Wait, but not beyond the end. */
function pause(milliseconds, ending) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      ending.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    ending.addEventListener("abort", done);
  });
}
