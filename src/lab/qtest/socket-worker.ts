/**
 * The worker thread of {@link QtestSocket}, as plain JavaScript: a thread that is started from source text runs alike
 * in the built package and under a test runner, which loads this tree's TypeScript in its own way.
 *
 * It is sent lists of request lines, and answers each list when as many replies are there: `{ replies, irqs }`, or
 * `{ error }` once the connection is lost. Each answer raises and notifies `signal`.
 */
export const SOCKET_WORKER = `
'use strict';
const { workerData } = require('node:worker_threads');
const { createConnection } = require('node:net');
const { connect, port, signal } = workerData;
const socket = createConnection(connect);
let wanted = 0;
let replies = [];
let irqs = [];
let pending = [];
let lost;
const answer = (message) => {
  wanted = 0;
  port.postMessage(message);
  Atomics.add(signal, 0, 1);
  Atomics.notify(signal, 0);
};
const lose = (why) => {
  lost = lost ?? why;
  if (wanted > 0) answer({ error: lost });
};
const take = (line) => {
  if (line.startsWith('IRQ ')) irqs.push(line);
  else replies.push(line);
  if (wanted === 0 || replies.length < wanted) return;
  const message = { replies, irqs };
  [replies, irqs] = [[], []];
  answer(message);
};
socket.setEncoding('latin1');
socket.setNoDelay(true);
socket.on('error', (error) => lose(error.message));
socket.on('close', () => lose('the connection was closed'));
socket.on('data', (chunk) => {
  const parts = chunk.split('\\n');
  const rest = parts.pop();
  if (parts.length > 0) {
    parts[0] = pending.join('') + parts[0];
    pending = [];
  }
  if (rest !== '') pending.push(rest);
  for (const line of parts) take(line.trimEnd());
});
port.on('message', (lines) => {
  wanted = lines.length;
  if (lost !== undefined) answer({ error: lost });
  else socket.write(lines.join('\\n') + '\\n');
});
`;
