/**
 * A free VMID is named by nothing in hardware: no STE in memory, no cached STE, no TLB or walk-cache entry, no enabled
 * VINTF, no command that is still to be consumed. Asked at the very moment at which the driver frees it, and once more of
 * every VMID that is still free when the case is over.
 */
import type { Caps } from '../../../spec/caps.ts';
import { slotValue } from '../../../spec/layout.ts';
import { STE } from '../../../spec/ste.ts';
import { vmidUsed } from '../../../spec/stream-world.ts';
import type { VmidHolder } from '../../hw/vmid.ts';
import { ofTenant } from '../ledger.ts';
import type { Monitor, Property, Violation, Watched } from '../property.ts';
import type { TranslatingSte } from '../streams.ts';

const S2VMID = STE.slot('S2VMID');
const RULE = 'vmid-free';

/** One holder of each kind. */
function holderText(holders: readonly VmidHolder[]): string {
  const kinds = new Map<string, string>();
  for (const { kind, what } of holders) if (!kinds.has(kind)) kinds.set(kind, what);
  return [...kinds].map(([kind, what]) => `${kind} ${what}`).join(', ');
}

/** STEs in memory that tag translations with a VMID. */
const stesNaming = (stes: readonly TranslatingSte[], caps: Caps, vmid: number): readonly VmidHolder[] =>
  stes
    .filter(({ ste }) => slotValue(ste, S2VMID) === vmid && vmidUsed(ste, caps))
    .map(({ sid }) => ({ kind: 'ste', what: `0x${sid.toString(16)}` }));

class VmidFree implements Monitor {
  readonly #watched: Watched;
  readonly #freed = new Map<string, Set<number>>();
  #broken: Violation | null = null;

  constructor(watched: Watched) {
    this.#watched = watched;
    const { ledger } = watched.lab;
    ledger.onFree = (smmu, vmid, owner) => {
      // A tenant has no hardware; where a VM had the number before, it was asked about then.
      if (ofTenant(owner)) return;
      const freed = this.#freed.get(smmu) ?? new Set();
      this.#freed.set(smmu, freed.add(vmid));
      this.#broken ??= this.#ask(smmu, vmid, 'is freed');
    };
  }

  #ask(smmu: string, vmid: number, when: string): Violation | null {
    const { lab } = this.#watched;
    const hw = lab.machine.smmus.find((one) => one.name === smmu);
    if (hw === undefined) return null;
    const found = [...stesNaming(lab.streams.of(hw), hw.caps, vmid), ...hw.vmidHoldersWithin(vmid)];
    if (found.length === 0) return null;
    return { rule: RULE, message: `${smmu}: VMID ${vmid} ${when} and is named by ${holderText(found)}` };
  }

  after(): Violation | null {
    return this.#broken;
  }

  atEnd(): Violation | null {
    const { ledger } = this.#watched.lab;
    for (const [smmu, freed] of this.#freed)
      for (const vmid of freed)
        if (ledger.ownersOf(smmu, vmid).size === 0) this.#broken ??= this.#ask(smmu, vmid, 'is free');
    return this.#broken;
  }
}

/** See the module comment. */
export const vmidFree: Property = {
  name: 'vmid-free',
  title: 'a free VMID is named by no STE, cached STE, TLB entry, VINTF or pending command',
  foreign: true,
  monitor: (watched) => new VmidFree(watched),
};
