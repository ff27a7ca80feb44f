import { expect, test } from 'vitest';
import { Fuzzer } from './fuzzer.ts';

test('random registers, memory, commands and DMA under any schedule: nothing escapes, every access ends', () => {
  const totals = { ok: 0, abort: 0, stall: 0 };
  /** Agents that were seen with something to do, as `busy` was asked. */
  const readied = new Set<string>();
  for (let seed = 1; seed <= 40; seed++) {
    const fuzzer = new Fuzzer(seed);
    for (let i = 0; i < 400; i++) {
      try {
        fuzzer.step();
        for (const { name, agents, busy } of fuzzer.machine.smmus) {
          const ready = agents.filter((agent) => agent.ready).map((agent) => agent.name);
          if (busy() !== ready.length > 0) throw new Error(`${name} is ${busy() ? '' : 'not '}busy; ready: ${ready}`);
          for (const agent of ready) readied.add(agent.replace(/^\w+\./, ''));
        }
      } catch (error) {
        throw new Error(`seed ${seed}, step ${i}: ${error}`, { cause: error });
      }
    }
    // Whatever software did, hardware comes to rest.
    fuzzer.machine.drain();
    expect(fuzzer.machine.conductor.ready).toEqual([]);
    for (const end of ['ok', 'abort', 'stall'] as const) totals[end] += fuzzer.ends[end];
  }
  expect([...readied]).toEqual(expect.arrayContaining(['cmdq', 'cr0', 'eventq', 'irq_ctrl', 'stalls', 'vatos']));
  expect(totals.ok).toBeGreaterThan(100);
  expect(totals.abort).toBeGreaterThan(100);
  expect(totals.stall).toBeGreaterThan(10);
});
