/** What the driver is put together from. A test, or a bug of the zoo, hands in a wrapped part. */
import type { Words } from '../../../spec/index.ts';
import type { IdAllocator, Kernel } from '../kernel.ts';
import { type VintfUserPart, vintfUserPart } from '../tegra241/user.ts';
import { type VintfPart, vintfPart } from '../tegra241/vintf.ts';
import { type AttachPart, attachPart } from './attach.ts';
import { makeS1Cd, makeSvaCd } from './cd.ts';
import type { CommandSink } from './command-queue.ts';
import { type EntryWriter, entryWriter } from './entry-writer.ts';
import { type AdoptionPart, adoptionPart } from './inherited.ts';
import { type Invalidation, invalidation } from './invalidation.ts';
import { IoPageTable, type TableConfig, type TlbOps } from './io-pgtable.ts';
import { type NestedPart, nestedPart } from './nested.ts';
import type { DriverOptions } from './options.ts';
import { type ResetPart, resetPart } from './reset.ts';
import { makeAbortSte, makeBypassSte, makeCdTableSte, makeNestedCdTableSte, makeS2DomainSte } from './ste.ts';
import { makeVmidPolicy, type VmidPolicy } from './vmid-policy.ts';

/** Makers of entries. */
export interface Makers {
  readonly abortSte: typeof makeAbortSte;
  readonly bypassSte: typeof makeBypassSte;
  readonly cdTableSte: typeof makeCdTableSte;
  readonly s2DomainSte: typeof makeS2DomainSte;
  readonly nestedCdTableSte: typeof makeNestedCdTableSte;
  readonly s1Cd: typeof makeS1Cd;
  readonly svaCd: typeof makeSvaCd;
}

/** See the module comment. */
export interface DriverParts {
  readonly kernel: Kernel;
  /** Every list of commands goes through here. */
  readonly commandQueue: { issue(queue: CommandSink, commands: readonly Words[], sync: boolean): boolean };
  readonly entryWriter: EntryWriter;
  readonly invalidation: Invalidation;
  readonly attach: AttachPart;
  readonly nested: NestedPart;
  readonly vmidPolicy: VmidPolicy;
  readonly reset: ResetPart;
  readonly adoption: AdoptionPart;
  /** Register sequences of a Tegra241 CMDQV. */
  readonly vintf: VintfPart;
  /** What a VM gets of one. */
  readonly vintfUser: VintfUserPart;
  /** ASIDs of all SMMUs (`arm_smmu_asid_xa`). */
  readonly asids: IdAllocator;
  readonly makers: Makers;
  pageTable(kernel: Kernel, config: TableConfig, tlb: TlbOps): IoPageTable;
}

/** Highest ASID of any SMMU; one with fewer bits is checked when it is used. */
const ASID_MAX = 0xffff;

/** The parts as shipped. */
export function driverParts(kernel: Kernel, options: DriverOptions): DriverParts {
  return {
    kernel,
    commandQueue: { issue: (queue, commands, sync) => queue.issue(commands, sync) },
    entryWriter,
    invalidation,
    attach: attachPart,
    nested: nestedPart,
    vmidPolicy: makeVmidPolicy(options.vmidPolicy, options),
    reset: resetPart,
    adoption: adoptionPart,
    vintf: vintfPart,
    vintfUser: vintfUserPart,
    asids: kernel.ids('asid', 1, ASID_MAX, 'EBUSY'),
    makers: {
      abortSte: makeAbortSte,
      bypassSte: makeBypassSte,
      cdTableSte: makeCdTableSte,
      s2DomainSte: makeS2DomainSte,
      nestedCdTableSte: makeNestedCdTableSte,
      s1Cd: makeS1Cd,
      svaCd: makeSvaCd,
    },
    pageTable: (k, config, tlb) => new IoPageTable(k, config, tlb),
  };
}
