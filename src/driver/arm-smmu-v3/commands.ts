/** The commands that the driver builds (kernel: `arm_smmu_make_cmd_*`). One function each; words as in linux-driver 13. */
import {
  ATC_INV_SIZE_ALL,
  CFGI_ALL_RANGE,
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  CMD_PREFETCH_CONFIG,
  CMD_PRI_RESP,
  CMD_RESUME,
  CMD_STALL_TERM,
  CMD_TLBI_EL2_ALL,
  CMD_TLBI_EL2_ASID,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NSNH_ALL,
  CMD_TLBI_S12_VMALL,
  type Words,
} from '../../../spec/index.ts';

/** Every stream's configuration. */
export const cfgiAll = (): Words => CMD_CFGI_STE_RANGE.encode({ Range: CFGI_ALL_RANGE });
/** One stream's; `leaf` keeps a cached L1STD. */
export const cfgiSte = (sid: number, leaf: boolean): Words =>
  CMD_CFGI_STE.encode({ StreamID: sid, Leaf: leaf ? 1 : 0 });
/** One CD; `leaf` keeps a cached L1CD. */
export const cfgiCd = (sid: number, ssid: number, leaf: boolean): Words =>
  CMD_CFGI_CD.encode({ StreamID: sid, SubstreamID: ssid, Leaf: leaf ? 1 : 0 });
export const prefetchConfig = (sid: number): Words => CMD_PREFETCH_CONFIG.encode({ StreamID: sid });
export const tlbiEl2All = (): Words => CMD_TLBI_EL2_ALL.encode();
export const tlbiNsnhAll = (): Words => CMD_TLBI_NSNH_ALL.encode();
export const tlbiNhAsid = (asid: number): Words => CMD_TLBI_NH_ASID.encode({ ASID: asid });
export const tlbiEl2Asid = (asid: number): Words => CMD_TLBI_EL2_ASID.encode({ ASID: asid });
export const tlbiNhAll = (vmid: number): Words => CMD_TLBI_NH_ALL.encode({ VMID: vmid });
export const tlbiS12Vmall = (vmid: number): Words => CMD_TLBI_S12_VMALL.encode({ VMID: vmid });
/** All translations a device caches: of a PASID, or of requests without one. */
export const atcInvAll = (sid: number, ssid: number): Words =>
  CMD_ATC_INV.encode({
    StreamID: sid,
    Size: ATC_INV_SIZE_ALL,
    ...(ssid === 0 ? {} : { SSV: 1, SubstreamID: ssid }),
  });
export const stallTerm = (sid: number): Words => CMD_STALL_TERM.encode({ StreamID: sid });
/** Ends one stall: retried, aborted, or ended in silence. */
export const resume = (sid: number, stag: number, how: 'retry' | 'abort' | 'terminate'): Words =>
  CMD_RESUME.encode({
    StreamID: sid,
    STAG: stag,
    Ac: how === 'retry' ? 'RETRY' : 'TERMINATE',
    Ab: how === 'abort' ? 'ABORT' : 'RAZWI',
  });
/** Refuses a page request group (`arm_smmu_handle_ppr`: PRI_RESP_DENY). */
export const priDeny = (sid: number, ssid: number | undefined, group: number): Words =>
  CMD_PRI_RESP.encode({
    StreamID: sid,
    PRGIndex: group,
    Resp: 'ResponseFailure',
    ...(ssid === undefined ? {} : { SSV: 1, SubstreamID: ssid }),
  });

/**
 * Translations of 4 KiB pages `first` to `last`, as one naturally aligned power of two (`arm_smmu_atc_inv_to_cmd`).
 * Both as bigints: a device address has 64 bits.
 */
export function atcInvRange(sid: number, ssid: number, first: bigint, last: bigint): Words {
  const differing = first ^ last;
  const span = differing === 0n ? 0 : differing.toString(2).length;
  if (span >= ATC_INV_SIZE_ALL) return atcInvAll(sid, ssid);
  const page = (first >> BigInt(span)) << BigInt(span);
  return CMD_ATC_INV.encode({
    StreamID: sid,
    Size: span,
    Address: page,
    ...(ssid === 0 ? {} : { SSV: 1, SubstreamID: ssid }),
  });
}
