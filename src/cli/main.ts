#!/usr/bin/env node
/** The executable `smmulab`. */
import { readFileSync } from 'node:fs';
import { main } from './cli.ts';

/** A reader that has seen enough (`| head`) is no error. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});

process.exitCode = await main(process.argv.slice(2), {
  out: (text) => process.stdout.write(text),
  err: (text) => process.stderr.write(text),
  stdin: () => readFileSync(0),
  color: process.stdout.isTTY === true && (process.env.NO_COLOR ?? '') === '',
});
