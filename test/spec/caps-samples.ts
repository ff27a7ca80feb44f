import { type Caps, capsOf, type IdValues } from '../../spec/caps.ts';
import { AIDR, IDR0, IDR1, IDR3, IDR5 } from '../../spec/id-registers.ts';

type Encodings = {
  readonly IDR0?: Parameters<typeof IDR0.value>[0];
  readonly IDR1?: Parameters<typeof IDR1.value>[0];
  readonly IDR3?: Parameters<typeof IDR3.value>[0];
  readonly IDR5?: Parameters<typeof IDR5.value>[0];
  readonly minor?: number;
  readonly MPAMIDR?: number;
};

/** ID registers of an SMMUv3.2 with both stages, 48-bit output, all granules, 16-bit ids, ATS, substreams; overridable. */
export function sampleIds(over: Encodings = {}): IdValues {
  return {
    IDR0: IDR0.value({
      S1P: 1,
      S2P: 1,
      TTF: 2,
      HTTU: 2,
      Hyp: 1,
      ATS: 1,
      ASID16: 1,
      VMID16: 1,
      CD2L: 1,
      ST_LEVEL: 1,
      COHACC: 1,
      ...over.IDR0,
    }),
    IDR1: IDR1.value({
      SIDSIZE: 16,
      SSIDSIZE: 16,
      CMDQS: 19,
      EVENTQS: 19,
      ATTR_TYPES_OVR: 1,
      ATTR_PERMS_OVR: 1,
      ...over.IDR1,
    }),
    IDR3: IDR3.value({ XNX: 1, HAD: 1, RIL: 1, FWB: 1, BBML: 2, ...over.IDR3 }),
    IDR5: IDR5.value({ OAS: 5, GRAN4K: 1, GRAN16K: 1, GRAN64K: 1, STALL_MAX: 32, ...over.IDR5 }),
    AIDR: AIDR.value({ ArchMinorRev: over.minor ?? 2 }),
    MPAMIDR: over.MPAMIDR,
  };
}

/** Capabilities of {@link sampleIds}. */
export const sampleCaps = (over: Encodings = {}): Caps => capsOf(sampleIds(over));
