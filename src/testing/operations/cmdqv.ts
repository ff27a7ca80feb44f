/**
 * Tegra241 CMDQV: queues of a VM in its own memory, page 0 of its VINTF mapped into it, and what the guest does there
 * without its VMM or the host hearing of it.
 */
import {
  CMD_SYNC,
  VCMDQ_CONFIG,
  VCMDQ_CONS,
  VCMDQ_ERR,
  VCMDQ_GERROR,
  VCMDQ_GERRORN,
  VCMDQ_PROD,
  VCMDQ_STATUS,
  VCMDQ_STRIDE,
  type Words,
} from '../../../spec/index.ts';
import { HW_QUEUE_TYPE } from '../../../spec/uapi/constants.ts';
import { guestAddress } from '../guest.ts';
import type { GuestResult } from '../guest-cmdqv.ts';
import type { Lab } from '../lab.ts';
import type { OperationResult } from '../operation.ts';
import type { Window } from '../windows.ts';
import { handleOf, NO_ID, type Performers, type Texts } from './family.ts';
import { commandText, commandWords, type GuestCommand } from './guest-command.ts';

/** Registers of a VCMDQ in page 0. */
export const PAGE0_REGISTERS = {
  CONS: VCMDQ_CONS,
  PROD: VCMDQ_PROD,
  CONFIG: VCMDQ_CONFIG,
  STATUS: VCMDQ_STATUS,
  GERROR: VCMDQ_GERROR,
  GERRORN: VCMDQ_GERRORN,
} as const;

/** A command of a guest's on its own queue; of GARBAGE the words are no command at all. */
export type VcmdqCommand = GuestCommand | { readonly command: 'SYNC_IRQ' | 'GARBAGE' };

const GARBAGE = [0xffff_ffff, 0x1234_5678, 0xdead_beef, 0xffff_ffff];

function wordsOf(one: VcmdqCommand): Words {
  if (one.command === 'GARBAGE') return Uint32Array.from(GARBAGE);
  // What a guest's kernel may send on the SMMU's own queue, and VCMDQs do not have.
  if (one.command === 'SYNC_IRQ') return CMD_SYNC.encode({ CS: 'SIG_IRQ' });
  return commandWords(one as GuestCommand);
}

/** See the module comment. */
export type CmdqvOperation =
  /** IOMMU_HW_QUEUE_ALLOC: LVCMDQ `index` in guest memory, `bytes` from IPA page `page`, byte `offset` on. */
  | {
      readonly op: 'hwQueueAlloc';
      readonly as: string;
      readonly viommu: string;
      readonly index: number;
      readonly page: number;
      readonly offset?: number;
      readonly bytes: number;
    }
  /** mmap of what VIOMMU_ALLOC offered, put into a VM. An offset of a vIOMMU that is gone may be another one's by now. */
  | { readonly op: 'mmap'; readonly as: string; readonly viommu: string; readonly vm: string }
  | { readonly op: 'munmap'; readonly name: string }
  /** The guest clears PROD and CONS and enables a queue; disables it; goes on after an error. */
  | { readonly op: 'vcmdqStart'; readonly window: string; readonly index: number }
  | { readonly op: 'vcmdqStop'; readonly window: string; readonly index: number }
  | { readonly op: 'vcmdqRecover'; readonly window: string; readonly index: number }
  /** The guest queues commands and a CMD_SYNC, and waits for it; `post`: neither CMD_SYNC nor waiting. */
  | {
      readonly op: 'vcmdqIssue';
      readonly window: string;
      readonly index: number;
      readonly commands: readonly VcmdqCommand[];
      readonly post?: boolean;
    }
  /** The guest writes any value to a register of page 0, or reads one. */
  | {
      readonly op: 'vcmdqWrite';
      readonly window: string;
      readonly index: number;
      readonly register: keyof typeof PAGE0_REGISTERS;
      readonly value: number;
    }
  | {
      readonly op: 'vcmdqRead';
      readonly window: string;
      readonly index: number;
      readonly register: keyof typeof PAGE0_REGISTERS;
    };

const saw = (text: string): OperationResult => ({ status: 'ok', saw: text });

/** What a guest does through a window; without one there is nothing to do it to. */
function through(lab: Lab, name: string, act: (window: Window) => OperationResult): OperationResult {
  const window = lab.windows.get(name);
  if (window === undefined) return { status: 'skipped', why: `${name} is not mapped` };
  const result = act(window);
  lab.kernel.runInterrupts();
  return result;
}

/** A guest has more time than its polling loop shows. */
function patiently<T>(lab: Lab, attempt: () => T, tooEarly: (result: T) => boolean): T {
  const first = attempt();
  if (!tooEarly(first)) return first;
  lab.machine.drain();
  return attempt();
}

function queueText(result: GuestResult): string {
  if (result.status !== 'error') return result.status;
  const code = Object.entries(VCMDQ_ERR).find(([, value]) => value === result.code)?.[0] ?? String(result.code);
  return `error:${code} at ${result.index}`;
}

function issue(lab: Lab, window: Window, o: Extract<CmdqvOperation, { op: 'vcmdqIssue' }>): OperationResult {
  const queue = lab.windows.queue(window, o.index);
  const words = o.commands.map(wordsOf);
  if (o.post === true) {
    for (const one of words) queue.post(one);
    return saw('posted');
  }
  // One by one, so that the smallest ring takes them; the CMD_SYNC of the last covers all.
  let result: GuestResult = { status: 'done' };
  for (const [i, one] of words.entries()) {
    if (i === words.length - 1) queue.post(one, CMD_SYNC.encode({}));
    else queue.post(one);
    result = patiently(
      lab,
      () => queue.wait(),
      ({ status }) => status === 'timeout',
    );
    if (result.status !== 'done') break;
  }
  return saw(queueText(result));
}

const at = (window: Window, index: number, register: keyof typeof PAGE0_REGISTERS): bigint =>
  window.vma.pa + BigInt(index * VCMDQ_STRIDE + PAGE0_REGISTERS[register].offset);

/** How each is carried out. */
export const performCmdqv: Performers<CmdqvOperation> = {
  hwQueueAlloc: (lab, { as, viommu, index, page, offset = 0, bytes }) => {
    const { ctx, id } = handleOf(lab, viommu);
    const ipa = guestAddress(page) + BigInt(offset);
    const type = HW_QUEUE_TYPE.TEGRA241_CMDQV;
    const place = { nesting_parent_iova: ipa, length: BigInt(bytes) };
    lab.name(as, ctx.hwQueueAlloc({ viommu_id: id, type, index, ...place }).out_hw_queue_id, ctx);
    lab.windows.place(viommu, index, { ipa, bytes });
    return undefined;
  },
  mmap: (lab, { as, viommu, vm }) => {
    if (lab.windows.get(as) !== undefined) return { status: 'skipped', why: `${as} is there already` };
    const { ctx, offset, length } = lab.windows.offerOf(viommu) ?? { ctx: lab.ctx, offset: BigInt(NO_ID), length: 1n };
    const vma = ctx.mmap({ offset, length });
    lab.windows.open(as, lab.nameOf(vma.ownerId, ctx) ?? viommu, lab.guest(vm), vma);
    return undefined;
  },
  munmap: (lab, { name }) =>
    lab.windows.close(name) ? undefined : { status: 'skipped', why: `${name} is not mapped` },
  vcmdqStart: (lab, o) =>
    through(lab, o.window, (window) => {
      const queue = lab.windows.queue(window, o.index, true);
      const on = patiently(
        lab,
        () => queue.start(),
        (done) => !done,
      );
      return saw(on ? 'enabled' : 'disabled');
    }),
  vcmdqStop: (lab, o) =>
    through(lab, o.window, (window) => {
      const queue = lab.windows.queue(window, o.index);
      const off = patiently(
        lab,
        () => queue.stop(),
        (done) => !done,
      );
      return saw(off ? 'disabled' : 'enabled');
    }),
  vcmdqRecover: (lab, o) =>
    through(lab, o.window, (window) => {
      const queue = lab.windows.queue(window, o.index);
      queue.recover();
      const result = patiently(
        lab,
        () => queue.wait(),
        ({ status }) => status === 'timeout',
      );
      return saw(queueText(result));
    }),
  vcmdqIssue: (lab, o) => through(lab, o.window, (window) => issue(lab, window, o)),
  vcmdqWrite: (lab, o) =>
    through(lab, o.window, (window) => {
      lab.windows.cpu(window.guest).writel(at(window, o.index, o.register), o.value);
      return { status: 'ok' };
    }),
  vcmdqRead: (lab, o) =>
    through(lab, o.window, (window) =>
      saw(
        `0x${lab.windows
          .cpu(window.guest)
          .readl(at(window, o.index, o.register))
          .toString(16)}`,
      ),
    ),
};

const textOf = (one: VcmdqCommand): string =>
  one.command === 'GARBAGE' || one.command === 'SYNC_IRQ' ? one.command : commandText(one as GuestCommand);

const queueName = ({ window, index }: { readonly window: string; readonly index: number }): string =>
  `${window}.${index}`;

/** How each is told. */
export const cmdqvTexts: Texts<CmdqvOperation> = {
  hwQueueAlloc: (o) => [
    o.viommu,
    `LVCMDQ ${o.index}`,
    `${o.bytes} bytes at page ${o.page}${o.offset ? ` + 0x${o.offset.toString(16)}` : ''}`,
  ],
  mmap: (o) => [o.viommu, o.vm],
  munmap: (o) => [o.name],
  vcmdqStart: (o) => [queueName(o)],
  vcmdqStop: (o) => [queueName(o)],
  vcmdqRecover: (o) => [queueName(o)],
  vcmdqIssue: (o) => [queueName(o), o.commands.map(textOf).join(', '), o.post === true ? 'no wait' : undefined],
  vcmdqWrite: (o) => [queueName(o), `${o.register} = 0x${o.value.toString(16)}`],
  vcmdqRead: (o) => [queueName(o), o.register],
};
