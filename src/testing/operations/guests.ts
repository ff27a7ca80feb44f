/** What a guest does itself: it changes its memory, and sends commands through its VMM. */
import {
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NSNH_ALL,
  type Words,
} from '../../../spec/index.ts';
import { HWPT_INVALIDATE_DATA_TYPE } from '../../../spec/uapi/constants.ts';
import { FIRST_DATA_PAGE, GUEST_PAGES } from '../guest.ts';
import { CaseError } from '../lab.ts';
import { handleOf, type Performers, type Texts } from './family.ts';

/** A command of a guest's, by name; `vsid` and `asid` where it has one. */
export interface GuestCommand {
  readonly command: 'NSNH_ALL' | 'NH_ALL' | 'NH_ASID' | 'CFGI_CD' | 'CFGI_CD_ALL';
  readonly vsid?: number;
  readonly asid?: number;
}

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
    };

function checkPages(page: number, to: number | null): void {
  for (const one of [page, to ?? page])
    if (!Number.isInteger(one) || one < FIRST_DATA_PAGE || one >= GUEST_PAGES)
      throw new CaseError(`guest page ${one}, expected ${FIRST_DATA_PAGE} to ${GUEST_PAGES - 1}`);
}

/** A guest's command as its 16 bytes. */
export function commandWords({ command, vsid = 0, asid = 0 }: GuestCommand): Words {
  switch (command) {
    case 'NSNH_ALL':
      return CMD_TLBI_NSNH_ALL.encode({});
    case 'NH_ALL':
      return CMD_TLBI_NH_ALL.encode({});
    case 'NH_ASID':
      return CMD_TLBI_NH_ASID.encode({ ASID: asid });
    case 'CFGI_CD':
      return CMD_CFGI_CD.encode({ StreamID: vsid, Leaf: 1 });
    case 'CFGI_CD_ALL':
      return CMD_CFGI_CD_ALL.encode({ StreamID: vsid });
  }
}

function bytesOf(commands: readonly Words[]): Uint8Array {
  const bytes = new Uint8Array(commands.length * CMD_TLBI_NSNH_ALL.bytes);
  for (const [i, words] of commands.entries())
    bytes.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), i * CMD_TLBI_NSNH_ALL.bytes);
  return bytes;
}

/** How each is carried out. */
export const performGuests: Performers<GuestOperation> = {
  invalidate: (lab, o) => {
    const { ctx, id } = handleOf(lab, o.on);
    ctx.hwptInvalidate({
      hwpt_id: id,
      data_uptr: bytesOf(o.commands.map(commandWords)),
      data_type: HWPT_INVALIDATE_DATA_TYPE.ARM_SMMUV3,
      entry_len: CMD_TLBI_NSNH_ALL.bytes,
      entry_num: o.commands.length,
    });
    return undefined;
  },
  guestMap: (lab, o) => {
    checkPages(o.page, o.to);
    lab.guest(o.vm).mapPage(o.space, o.page, o.to);
    return undefined;
  },
};

/** How each is told. */
export const guestTexts: Texts<GuestOperation> = {
  invalidate: (o) => [o.on, o.commands.map(({ command }) => command).join(' ')],
  guestMap: (o) => [o.vm, `space ${o.space}`, `page ${o.page}`, o.to === null ? 'to nothing' : `to ${o.to}`],
};
