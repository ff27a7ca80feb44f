/** Fields of STEs and CDs that a TLB may hold, so that entries with one tag must agree in them (IHI 0070 5.2.1, 5.4.1). */

/**
 * Whether a TLB may hold an STE's field. S2DS, S2SL0_2 and S2HWUx are missing from the list of 5.2.1, but change what
 * a walk finds: they count here.
 */
export const steFieldInTlb = (name: string): boolean =>
  /^(S2(VMID|T0SZ|SL0|SL0_2|IR0|OR0|SH0|TG|PS|AA64|ENDI|AFFD|PTW|HA|HD|HAFT|FWB|TTB|SKL|PIE|POE|POI\d+|DS|HWU\d+)|AssuredOnly|TL0|TL1)$/.test(
    name,
  );

/** Whether a TLB may hold a CD's field: all but how faults are answered, and MPAM. */
export const cdFieldInTlb = (name: string): boolean => !/^(V|A|R|S|PARTID|PMG|(RES0|IMPDEF)_.*)$/.test(name);
