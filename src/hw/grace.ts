/** A machine with several SMMUs, each with a Tegra241 CMDQV. The address map is this project's own. */
import type { SmmuConfig } from './config.ts';
import { createMachine, type EndpointSetup, type Machine, pciFunction } from './machine.ts';
import type { Observer } from './observer.ts';
import { linuxNesting } from './presets.ts';
import type { ScheduleConfig } from './schedule.ts';
import { type CmdqvConfig, HOST_PARAM } from './tegra241/config.ts';

/** RAM; the first SMMU, the first CMDQV, and the distance to the next of each. */
export const GRACE = {
  ram: { base: 0x8000_0000n, size: 0x8000_0000n },
  smmu: 0x1100_0000n,
  cmdqv: 0x1103_0000n,
  stride: 0x100_0000n,
} as const;

/** What {@link grace} lets vary. */
export interface GraceOptions {
  /** Number of SMMUs. Default 2. */
  readonly smmus?: number;
  readonly config?: SmmuConfig;
  readonly cmdqv?: CmdqvConfig;
  readonly endpoints?: readonly EndpointSetup[];
  readonly schedule?: ScheduleConfig;
  readonly observer?: Observer;
}

/** PCI functions behind each SMMU by default. */
const FUNCTIONS = 2;
/** SubstreamID bits of those. */
const SSID_BITS = 16;

/**
 * SMMUs for nesting, each with a CMDQV of the largest size and two PCI functions with ATS, fully coherent, on a bus of
 * their own (StreamIDs 0x8, 0x10; 0x108, 0x110; ...).
 */
export function grace({
  smmus = 2,
  config = linuxNesting,
  cmdqv = { param: HOST_PARAM },
  endpoints,
  schedule,
  observer,
}: GraceOptions = {}): Machine {
  const functions = Array.from({ length: smmus * FUNCTIONS }, (_, n) => ({
    ...pciFunction(Math.floor(n / FUNCTIONS), 1 + (n % FUNCTIONS), 0),
    smmu: Math.floor(n / FUNCTIONS),
    canWbs: true,
    ssidBits: config.IDR1.SSIDSIZE === undefined ? 0 : SSID_BITS,
    ats: config.IDR0.ATS === 1,
  }));
  return createMachine({
    smmus: Array.from({ length: smmus }, (_, n) => ({
      config,
      base: GRACE.smmu + BigInt(n) * GRACE.stride,
      cmdqv: { base: GRACE.cmdqv + BigInt(n) * GRACE.stride, config: cmdqv },
    })),
    endpoints: endpoints ?? functions,
    ram: [GRACE.ram],
    ...(schedule === undefined ? {} : { schedule }),
    ...(observer === undefined ? {} : { observer }),
  });
}
