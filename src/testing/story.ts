/** A case told step by step: what was done, what the kernel said, who took and freed which VMID. */
import type { OwnershipNote } from '../driver/kernel.ts';
import type { LabCase, RunResult } from './case.ts';
import type { LabConfig } from './lab.ts';
import type { Operation, OperationResult } from './operations.ts';

/** An operation as one line, like a call: `v0 = viommuAlloc(d0, s0)`. */
export function operationText(o: Operation): string {
  const call = (...args: readonly (string | number | undefined)[]): string =>
    `${'as' in o ? `${o.as} = ` : ''}${o.op}(${args.filter((arg) => arg !== undefined).join(', ')})`;
  switch (o.op) {
    case 'ioasAlloc':
      return call();
    case 'map':
      return call(
        o.ioas,
        `page ${o.page}`,
        `${o.pages} of ${o.vm} from ${o.from}`,
        o.readonly ? 'read-only' : undefined,
      );
    case 'unmap':
      return call(o.ioas, `page ${o.page}`, `${o.pages}`);
    case 'hwptAlloc':
      return call(o.dev, o.ioas, o.nestParent === true ? 'nest parent' : undefined);
    case 'viommuAlloc':
      return call(o.dev, o.parent);
    case 'vdeviceAlloc':
      return call(o.dev, o.viommu, `vSID ${o.vsid}`);
    case 'nestedAlloc':
      return call(
        o.dev,
        o.on,
        o.vste,
        o.vste === 'translate' ? `CD ${o.cd ?? 0}` : undefined,
        o.ats ? 'ATS' : undefined,
      );
    case 'attach':
      return call(o.dev, o.to);
    case 'detach':
    case 'bind':
    case 'unbind':
      return call(o.dev);
    case 'destroy':
      return call(o.name);
    case 'invalidate':
      return call(o.on, o.commands.map(({ command }) => command).join(' '));
    case 'dma':
      return call(o.dev, `${o.write ? 'write' : 'read'} page ${o.page}`);
    case 'fail':
      return call(`use ${o.nth} of ${o.point}`);
    case 'guestMap':
      return call(o.vm, `space ${o.space}`, `page ${o.page}`, o.to === null ? 'to nothing' : `to ${o.to}`);
  }
}

/** How an operation ended, in a few words; '' if there is nothing to say. */
export function resultText(result: OperationResult): string {
  if (result.status === 'error') return `${result.errno}: ${result.why}`;
  if (result.status === 'skipped') return `skipped: ${result.why}`;
  const { dma } = result;
  if (dma === undefined) return '';
  return dma.vm === undefined ? dma.status : `${dma.status}: page ${dma.page} of vm${dma.vm}`;
}

const ACTS = { alloc: 'takes', free: 'frees', give: 'is given', done: 'is done with' } as const;

/** Who took and freed which VMID, a sentence each. */
export function noteTexts(notes: readonly OwnershipNote[]): string[] {
  return notes.map(({ act, where, id, owner }) => `${owner} ${ACTS[act]} VMID ${id} of ${where}`);
}

/** The lines of a run: one for each step. */
export function storyLines(run: RunResult): string[] {
  const width = String(run.steps.length).length;
  const calls = run.steps.map(({ operation, twin }) =>
    twin === undefined
      ? operationText(operation)
      : `${operationText(operation)} | ${twin === null ? 'nothing' : operationText(twin)}`,
  );
  const column = Math.min(48, Math.max(0, ...calls.map((call) => call.length)));
  return run.steps.map((step, i) => {
    const said = [resultText(step.result), ...noteTexts(step.notes)].filter((text) => text !== '').join('; ');
    return `  ${String(i + 1).padStart(width)} ${(calls[i] ?? '').padEnd(column)}  ${said}`.trimEnd();
  });
}

/** A lab in one line. */
export function configText({ preset, smmus, devices, vms, vmidBits, policy, schedule }: LabConfig): string {
  const many = (count: number, what: string): string => `${count} ${what}${count === 1 ? '' : 's'}`;
  const when =
    schedule?.mode === 'seeded' ? `schedule seeded:${schedule.seed ?? 0}` : `schedule ${schedule?.mode ?? 'eager'}`;
  return [
    policy === undefined ? '' : `policy ${policy}`,
    preset ?? 'linuxNesting',
    vmidBits === undefined ? '' : `${vmidBits}-bit VMIDs`,
    many(smmus ?? 2, 'SMMU'),
    `${many(devices ?? 2, 'device')} each`,
    many(vms ?? 2, 'VM'),
    when,
  ]
    .filter((text) => text !== '')
    .join(', ');
}

/** The headline of a broken property. */
export function headline(property: string, one: LabCase, run: RunResult, drawnOps: number): string {
  const { finding } = run;
  const shrunk = drawnOps > one.steps.length ? ` (shrunk from ${drawnOps})` : '';
  return `${property} broken at step ${finding?.step ?? 0} of ${one.steps.length}${shrunk}: ${finding?.message ?? ''}`;
}
