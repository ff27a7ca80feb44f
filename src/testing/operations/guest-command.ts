/** Commands of a guest's Command queue, as its VMM hands them to IOMMU_HWPT_INVALIDATE. */
import {
  ATC_INV_SIZE_ALL,
  CFGI_ALL_RANGE,
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  CMD_PREFETCH_CONFIG,
  CMD_RESUME,
  CMD_SYNC,
  CMD_TLBI_EL2_ALL,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMD_TLBI_NH_VAA,
  CMD_TLBI_NSNH_ALL,
  CMD_TLBI_S2_IPA,
  CMD_TLBI_S12_VMALL,
  type Words,
} from '../../../spec/index.ts';
import { guestAddress } from '../guest.ts';

/** Commands that the kernel takes from user space. */
export const ACCEPTED_COMMANDS = [
  'NSNH_ALL',
  'NH_ALL',
  'NH_ASID',
  'NH_VA',
  'NH_VAA',
  'CFGI_CD',
  'CFGI_CD_ALL',
  'ATC_INV',
] as const;

/** Commands that it refuses: EIO. */
export const REFUSED_COMMANDS = [
  'EL2_ALL',
  'S12_VMALL',
  'S2_IPA',
  'CFGI_STE',
  'CFGI_ALL',
  'PREFETCH_CONFIG',
  'RESUME',
  'SYNC',
] as const;

/** A command of a guest's, by name, with the operands that it has. */
export interface GuestCommand {
  readonly command: (typeof ACCEPTED_COMMANDS)[number] | (typeof REFUSED_COMMANDS)[number];
  /** StreamID as the guest knows it. Default 0. */
  readonly vsid?: number;
  readonly asid?: number;
  /** VMID as the guest wrote it. Default 0. */
  readonly vmid?: number;
  /** SubstreamID. Default 0 for CD commands, none for ATC_INV. */
  readonly ssid?: number;
  /** First page of a command by address; ATC_INV without one invalidates all. Default the guest's page 0. */
  readonly page?: number;
  /** How many pages. Default 1. */
  readonly pages?: number;
  /** Leaf. Default: true for CFGI_CD, else false. */
  readonly leaf?: boolean;
}

const PAGE_SHIFT = 12n;

/** TG of a range of 4 KiB pages. */
const TG_4K = 1;

/** Address, range and Leaf of a TLB invalidation by address. A single page needs no range (4.4.1.1). */
const byAddress = ({ page = 0, pages = 1, leaf = false }: GuestCommand) => ({
  Address: guestAddress(page) >> PAGE_SHIFT,
  ...(pages > 1 ? { TG: TG_4K, NUM: pages - 1 } : {}),
  Leaf: leaf ? 1 : 0,
});

/** ATC_INV takes aligned powers of two of pages: the smallest that covers the range. */
function atcInv({ vsid = 0, ssid, page, pages = 1 }: GuestCommand): Words {
  const pasid = ssid === undefined ? {} : { SSV: 1, SubstreamID: ssid };
  if (page === undefined) return CMD_ATC_INV.encode({ StreamID: vsid, Size: ATC_INV_SIZE_ALL, ...pasid });
  const first = guestAddress(page) >> PAGE_SHIFT;
  let Size = 0;
  while (first >> BigInt(Size) !== (first + BigInt(pages - 1)) >> BigInt(Size)) Size++;
  return CMD_ATC_INV.encode({ StreamID: vsid, Size, Address: (first >> BigInt(Size)) << BigInt(Size), ...pasid });
}

/** A guest's command as its 16 bytes. */
export function commandWords(one: GuestCommand): Words {
  const { command, vsid = 0, asid = 0, vmid = 0, ssid = 0, leaf } = one;
  switch (command) {
    case 'NSNH_ALL':
      return CMD_TLBI_NSNH_ALL.encode({});
    case 'NH_ALL':
      return CMD_TLBI_NH_ALL.encode({ VMID: vmid });
    case 'NH_ASID':
      return CMD_TLBI_NH_ASID.encode({ VMID: vmid, ASID: asid });
    case 'NH_VA':
      return CMD_TLBI_NH_VA.encode({ VMID: vmid, ASID: asid, ...byAddress(one) });
    case 'NH_VAA':
      return CMD_TLBI_NH_VAA.encode({ VMID: vmid, ...byAddress(one) });
    case 'CFGI_CD':
      return CMD_CFGI_CD.encode({ StreamID: vsid, SubstreamID: ssid, Leaf: leaf === false ? 0 : 1 });
    case 'CFGI_CD_ALL':
      return CMD_CFGI_CD_ALL.encode({ StreamID: vsid });
    case 'ATC_INV':
      return atcInv(one);
    case 'EL2_ALL':
      return CMD_TLBI_EL2_ALL.encode({});
    case 'S12_VMALL':
      return CMD_TLBI_S12_VMALL.encode({ VMID: vmid });
    case 'S2_IPA':
      return CMD_TLBI_S2_IPA.encode({ VMID: vmid, ...byAddress(one) });
    case 'CFGI_STE':
      return CMD_CFGI_STE.encode({ StreamID: vsid, Leaf: 1 });
    case 'CFGI_ALL':
      return CMD_CFGI_STE_RANGE.encode({ Range: CFGI_ALL_RANGE });
    case 'PREFETCH_CONFIG':
      return CMD_PREFETCH_CONFIG.encode({ StreamID: vsid });
    case 'RESUME':
      return CMD_RESUME.encode({ StreamID: vsid, Ac: 'RETRY' });
    case 'SYNC':
      return CMD_SYNC.encode({});
  }
}

/** A command in a few words: its name, and the operands that were given. */
export function commandText({ command, ...operands }: GuestCommand): string {
  const said = Object.entries(operands).map(([name, value]) => ` ${name} ${value}`);
  return `${command}${said.join('')}`;
}
