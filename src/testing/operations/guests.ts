/** What a guest does itself: it changes its memory, and sends commands through its VMM. */
import { CMD_SYNC, type Words } from '../../../spec/index.ts';
import { HWPT_INVALIDATE_DATA_TYPE } from '../../../spec/uapi/constants.ts';
import { IommufdError } from '../../iommufd/index.ts';
import { FIRST_DATA_PAGE, GUEST_CDS, GUEST_PAGES, GUEST_SPACES } from '../guest.ts';
import { CaseError, type Lab } from '../lab.ts';
import type { OperationResult } from '../operation.ts';
import { errorResult, handleOf, type Performers, type Texts, within } from './family.ts';
import { commandText, commandWords, type GuestCommand } from './guest-command.ts';

export { commandWords, type GuestCommand } from './guest-command.ts';

/** See the module comment. */
export type GuestOperation =
  | { readonly op: 'invalidate'; readonly on: string; readonly commands: readonly GuestCommand[] }
  /** A guest changes its own stage 1 table; `to` null: page not mapped. */
  | {
      readonly op: 'guestMap';
      readonly vm: string;
      readonly space: number;
      readonly page: number;
      readonly to: number | null;
    }
  /** A guest writes one of its CDs; `space` null: one that is not valid. See {@link GuestCd}. */
  | {
      readonly op: 'guestCd';
      readonly vm: string;
      readonly cd: number;
      readonly space: number | null;
      readonly asid?: number;
      readonly stall?: boolean;
      readonly outside?: boolean;
    }
  /** A guest points a table of its stage 1, on the way to its data pages, at the next table of another space. */
  | {
      readonly op: 'guestTable';
      readonly vm: string;
      readonly space: number;
      readonly level: number;
      /** The other space; null: not valid; 'outside': where it has no memory; 'beyond': an address above IPS. */
      readonly to: number | null | 'outside' | 'beyond';
    };

function checkPages(page: number, to: number | null): void {
  for (const one of [page, to ?? page])
    if (!Number.isInteger(one) || one < FIRST_DATA_PAGE || one >= GUEST_PAGES)
      throw new CaseError(`guest page ${one}, expected ${FIRST_DATA_PAGE} to ${GUEST_PAGES - 1}`);
}

function bytesOf(commands: readonly Words[]): Uint8Array {
  const bytes = new Uint8Array(commands.length * CMD_SYNC.bytes);
  for (const [i, words] of commands.entries())
    bytes.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), i * CMD_SYNC.bytes);
  return bytes;
}

/** The commands that the kernel says it has handled (entry_num) are part of the result, also of a failing one. */
function invalidate(lab: Lab, on: string, commands: readonly GuestCommand[]): OperationResult {
  const { ctx, id } = handleOf(lab, on);
  try {
    const done = ctx.hwptInvalidate({
      hwpt_id: id,
      data_uptr: bytesOf(commands.map(commandWords)),
      data_type: HWPT_INVALIDATE_DATA_TYPE.ARM_SMMUV3,
      entry_len: CMD_SYNC.bytes,
      entry_num: commands.length,
    });
    return { status: 'ok', entries: done.entry_num };
  } catch (error) {
    if (!(error instanceof IommufdError)) throw error;
    const entries = error.outputs?.entry_num;
    const result = errorResult(error);
    return entries === undefined ? result : { ...result, entries: Number(entries) };
  }
}

/** How each is carried out. */
export const performGuests: Performers<GuestOperation> = {
  invalidate: (lab, o) => invalidate(lab, o.on, o.commands),
  guestMap: (lab, o) => {
    checkPages(o.page, o.to);
    within('space', o.space, 0, GUEST_SPACES - 1);
    lab.guest(o.vm).mapPage(o.space, o.page, o.to);
    return undefined;
  },
  guestCd: (lab, { vm, cd, space, asid, stall, outside }) => {
    within('CD', cd, 0, GUEST_CDS - 1);
    within('space', space ?? 0, 0, GUEST_SPACES - 1);
    lab.guest(vm).writeCd(cd, {
      space,
      ...(asid === undefined ? {} : { asid }),
      ...(stall === undefined ? {} : { stall }),
      ...(outside === undefined ? {} : { outside }),
    });
    return undefined;
  },
  guestTable: (lab, o) => {
    within('space', o.space, 0, GUEST_SPACES - 1);
    within('level', o.level, 1, 2);
    if (typeof o.to === 'number') within('space', o.to, 0, GUEST_SPACES - 1);
    lab.guest(o.vm).pointTable(o.space, o.level, o.to);
    return undefined;
  },
};

const targetText = (to: number | null | 'outside' | 'beyond'): string =>
  typeof to === 'number' ? `to ${to}` : to === null ? 'to nothing' : NOWHERE_TEXTS[to];

const NOWHERE_TEXTS = { outside: 'outside its memory', beyond: 'beyond the addresses of its CD' } as const;

/** How each is told. */
export const guestTexts: Texts<GuestOperation> = {
  invalidate: (o) => [o.on, o.commands.map(commandText).join('; ')],
  guestMap: (o) => [o.vm, `space ${o.space}`, `page ${o.page}`, targetText(o.to)],
  guestCd: (o) => [
    o.vm,
    `CD ${o.cd}`,
    o.space === null ? 'not valid' : `space ${o.space}`,
    o.asid === undefined ? undefined : `ASID ${o.asid}`,
    o.stall === true ? 'stalls' : undefined,
    o.outside === true ? 'outside its memory' : undefined,
  ],
  guestTable: (o) => [o.vm, `space ${o.space}`, `level ${o.level}`, targetText(o.to)],
};
