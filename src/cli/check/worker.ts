/** A worker thread of `smmulab check`: makes runs of the task it was started with. */
import { parentPort, workerData } from 'node:worker_threads';
import { CaseError } from '../../testing/lab.ts';
import { CliError } from '../error.ts';
import { Performer, type Request } from './performer.ts';
import type { Reply } from './pool.ts';
import type { Task } from './task.ts';

const kindOf = (error: unknown): 'cli' | 'case' | 'internal' => {
  if (error instanceof CliError) return 'cli';
  return error instanceof CaseError ? 'case' : 'internal';
};

// A module is loaded once: requests wait for it.
const performer = Performer.of(workerData as Task);

async function reply(request: Request): Promise<Reply> {
  try {
    return { answer: (await performer).perform(request) };
  } catch (error) {
    return { error: { kind: kindOf(error), message: error instanceof Error ? error.message : String(error) } };
  }
}

parentPort?.on('message', async (request: Request) => parentPort?.postMessage(await reply(request)));
