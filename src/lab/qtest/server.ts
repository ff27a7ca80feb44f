/** Serves qtest sessions on a unix socket or on loopback TCP. */
import { createServer, type Socket } from 'node:net';
import { MAX_LINE, QtestSession, type QtestTarget } from './protocol.ts';

/** Where to listen. Nothing but a unix socket and the loopback address exists. */
export type QtestAddress =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly port: number };

/** What {@link parseQtestAddress} expects. */
export const QTEST_ADDRESS_FORM = 'unix:PATH or tcp:127.0.0.1:PORT';

/** Reads `unix:PATH` or `tcp:127.0.0.1:PORT` (port 0: any free one). Undefined if it is neither. */
export function parseQtestAddress(text: string): QtestAddress | undefined {
  const unix = /^unix:(.+)$/.exec(text);
  if (unix?.[1] !== undefined) return { kind: 'unix', path: unix[1] };
  const tcp = /^tcp:(?:127\.0\.0\.1|localhost):(\d{1,5})$/.exec(text);
  const port = Number(tcp?.[1] ?? Number.NaN);
  return port <= 65535 ? { kind: 'tcp', port } : undefined;
}

/** Options of {@link serveQtest}. */
export interface QtestServerOptions {
  readonly address: QtestAddress;
  /** A machine at power-on, for each connection (or once, for a shared one). */
  readonly target: () => QtestTarget;
  /** Told where the server listens, in the form of {@link QTEST_ADDRESS_FORM}. */
  readonly listening: (where: string) => void;
  readonly failed: (error: Error) => void;
}

/** A running server. */
export interface QtestServer {
  /** Ends all connections, stops listening, then calls `done`. */
  stop(done: () => void): void;
}

/** Starts a server. */
export function serveQtest(options: QtestServerOptions): QtestServer {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    converse(socket, new QtestSession(options.target()));
  });
  server.on('error', options.failed);
  server.on('listening', () => {
    const at = server.address();
    options.listening(typeof at === 'object' && at !== null ? `tcp:${at.address}:${at.port}` : `unix:${at}`);
  });
  if (options.address.kind === 'unix') server.listen(options.address.path);
  else server.listen(options.address.port, '127.0.0.1');
  return {
    stop(done) {
      server.close(() => done());
      for (const socket of sockets) socket.destroy();
    },
  };
}

/**
 * Splits the stream into lines and answers each in order. While replies wait to be taken, no further line is read or
 * answered, so that what is held for one connection is bounded: one line, one chunk, one reply above the socket's mark.
 */
function converse(socket: Socket, session: QtestSession): void {
  let pending: string[] = [];
  let length = 0;
  /** Whole lines of the last chunk that are not answered yet, the next one last. */
  let lines: string[] = [];
  let tooLong = false;
  const answer = (): void => {
    for (let line = lines.pop(); line !== undefined; line = lines.pop()) {
      const replies = session.handle(line.endsWith('\r') ? line.slice(0, -1) : line);
      if (replies.length > 0 && !socket.write(`${replies.join('\n')}\n`)) {
        socket.pause();
        return;
      }
    }
    if (tooLong) socket.end(`FAIL the line is longer than ${MAX_LINE} characters\n`);
    socket.resume();
  };
  socket.setEncoding('latin1');
  socket.setNoDelay(true);
  socket.on('error', () => socket.destroy());
  socket.on('drain', answer);
  socket.on('data', (chunk) => {
    const parts = chunk.toString().split('\n');
    const rest = parts.pop() ?? '';
    if (parts[0] !== undefined) {
      parts[0] = pending.join('') + parts[0];
      pending = [];
      length = 0;
    }
    if (rest !== '') pending.push(rest);
    length += rest.length;
    if (length > MAX_LINE) {
      // What else the client sends is taken and forgotten.
      socket.removeAllListeners('data');
      tooLong = true;
      pending = [];
    }
    lines = [...parts.reverse(), ...lines];
    answer();
  });
}
