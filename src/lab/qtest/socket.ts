/** A qtest connection whose caller waits for each answer: the socket lives in a worker thread. */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import { parseQtestAddress, QTEST_ADDRESS_FORM } from './server.ts';
import { SOCKET_WORKER } from './socket-worker.ts';

/** What one or more requests were answered. */
export interface QtestAnswer {
  /** One line a request, in order. */
  readonly replies: readonly string[];
  /** Lines about interrupts that came meanwhile: `IRQ raise N`, `IRQ lower N`. */
  readonly irqs: readonly string[];
}

/** Sends requests and waits. A {@link QtestSocket}, or a session in the same process. */
export interface QtestLink {
  /** @throws QtestLinkError when the other side is gone or silent */
  exchange(lines: readonly string[]): QtestAnswer;
}

/** The other side cannot be reached, does not answer, or refuses a request. */
export class QtestLinkError extends Error {
  override readonly name = 'QtestLinkError';
}

/** How long one exchange may take by default, in milliseconds. */
const PATIENCE = 30_000;

/**
 * Connects to a qtest server: `smmulab serve --qtest`, or QEMU's `-qtest unix:PATH,server=on,wait=off`. The calling
 * thread is blocked (`Atomics.wait`) while an answer is awaited, so the server must run in another thread or process.
 */
export class QtestSocket implements QtestLink {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #signal = new Int32Array(new SharedArrayBuffer(4));
  readonly #patience: number;
  #broken: string | null = null;

  /**
   * @param where `unix:PATH` or `tcp:127.0.0.1:PORT`
   * @param patience milliseconds that one exchange may take
   * @throws QtestLinkError for an address of another form. That nobody listens there shows at the first exchange.
   */
  constructor(where: string, patience = PATIENCE) {
    const address = parseQtestAddress(where);
    if (address === undefined) throw new QtestLinkError(`'${where}' is not ${QTEST_ADDRESS_FORM}`);
    const { port1, port2 } = new MessageChannel();
    const connect = address.kind === 'unix' ? { path: address.path } : { host: '127.0.0.1', port: address.port };
    this.#port = port1;
    this.#patience = patience;
    this.#worker = new Worker(SOCKET_WORKER, {
      eval: true,
      execArgv: [],
      workerData: { connect, port: port2, signal: this.#signal },
      transferList: [port2],
    });
    // A connection that nobody closed does not keep the process.
    this.#worker.unref();
    port1.unref();
  }

  exchange(lines: readonly string[]): QtestAnswer {
    if (this.#broken !== null) throw new QtestLinkError(this.#broken);
    if (lines.length === 0) return { replies: [], irqs: [] };
    this.#port.postMessage(lines);
    for (;;) {
      const before = Atomics.load(this.#signal, 0);
      const message: { message: QtestAnswer | { readonly error: string } } | undefined = receiveMessageOnPort(
        this.#port,
      );
      if (message !== undefined) {
        if ('error' in message.message) return this.#break(`the qtest server is gone: ${message.message.error}`);
        return message.message;
      }
      if (Atomics.wait(this.#signal, 0, before, this.#patience) === 'timed-out')
        return this.#break(`no answer to '${lines[0]?.slice(0, 64)}' within ${this.#patience} ms`);
    }
  }

  /** Ends the connection. */
  close(): void {
    this.#broken ??= 'the connection was closed';
    this.#port.close();
    void this.#worker.terminate();
  }

  /** After a lost answer, replies could no longer be told apart. */
  #break(why: string): never {
    this.#broken = why;
    throw new QtestLinkError(why);
  }
}
