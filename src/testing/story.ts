/** A case told step by step: what was done, what the kernel said, who took and freed which VMID. */
import type { OwnershipNote } from '../driver/kernel.ts';
import type { LabCase, RunResult } from './case.ts';
import type { LabConfig } from './lab.ts';
import { ofTenant } from './ledger.ts';
import type { OperationResult } from './operation.ts';
import { operationText } from './operations.ts';

export { operationText } from './operations.ts';

/** How an operation ended, in a few words; '' if there is nothing to say. */
export function resultText(result: OperationResult): string {
  if (result.status === 'error')
    return `${result.errno}: ${result.why}${result.entries === undefined ? '' : `; entry_num ${result.entries}`}`;
  if (result.status === 'skipped') return `skipped: ${result.why}`;
  const { dma, saw } = result;
  if (saw !== undefined) return saw;
  if (dma === undefined) return '';
  const { vm, mm } = dma;
  return vm === undefined && mm === undefined
    ? dma.status
    : `${dma.status}: page ${dma.page} of ${dma.old ? 'the old ' : ''}${vm === undefined ? `mm${mm}` : `vm${vm}`}`;
}

const ACTS = {
  alloc: 'takes',
  free: 'frees',
  give: 'is given',
  begin: 'begins with',
  done: 'is done with',
  fail: 'fails with',
} as const;

/** Who took and freed which VMID, a sentence each. */
export function noteTexts(notes: readonly OwnershipNote[]): string[] {
  const tenants = new Map<string, number>();
  const texts: string[] = [];
  for (const { act, where, id, owner } of notes) {
    // They take hundreds: told as one.
    const many = ofTenant(owner) ? `${ACTS[act]} % of ${where}` : '';
    if (many === '') texts.push(`${owner} ${ACTS[act]} VMID ${id} of ${where}`);
    else tenants.set(many, (tenants.get(many) ?? 0) + 1);
  }
  for (const [what, count] of tenants)
    texts.push(`another tenant ${what.replace('%', `${count} VMID${count === 1 ? '' : 's'}`)}`);
  return texts;
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
