/** What operations can name: small pools, so that operations meet. */
import fc from 'fast-check';

/** Names of a lab. vIOMMUs and nested HWPTs have a range for each SMMU, so that most of them fit a device. */
export interface Pools {
  readonly devices: readonly string[];
  /** Devices behind each SMMU. */
  readonly perSmmu: number;
  readonly vms: readonly string[];
  readonly ioas: readonly string[];
  /** Paging HWPTs. */
  readonly s2s: readonly string[];
  readonly viommus: readonly string[];
  readonly nested: readonly string[];
  readonly vdevices: readonly string[];
  /** Fault queues. */
  readonly faults: readonly string[];
  /** vEVENTQs, one for each vIOMMU. */
  readonly veventqs: readonly string[];
  /** Windows on VINTFs, one for each vIOMMU. */
  readonly windows: readonly string[];
  /** Hardware queues: LVCMDQ 0 of each vIOMMU, then LVCMDQ 1 of each. */
  readonly queues: readonly string[];
  /** Processes of the host. */
  readonly processes: readonly string[];
  /** Bonds of devices with processes. */
  readonly bonds: readonly string[];
}

/** An arbitrary for each operation of a family. */
export type Makers<O extends { readonly op: string }> = {
  readonly [N in O['op']]: fc.Arbitrary<Extract<O, { readonly op: N }>>;
};

const named = (prefix: string, count: number): string[] => Array.from({ length: count }, (_, i) => `${prefix}${i}`);

/** vIOMMUs, and nested HWPTs, with a name for each SMMU. */
export const EACH = 2;

/** Queues of a VINTF. */
export const LVCMDQS = 2;

/** Processes that cases of SVA have. */
export const PROCESSES = 2;
/** Bonds for each device. */
const BONDS = 2;

/** The pools of a lab with so many SMMUs, devices behind each, and VMs. */
export function pools(smmus: number, perSmmu: number, vms: number): Pools {
  const devices = smmus * perSmmu;
  return {
    devices: named('d', devices),
    perSmmu,
    vms: named('vm', vms),
    ioas: named('a', vms + 1),
    s2s: named('s', 2),
    viommus: named('v', smmus * EACH),
    nested: named('n', smmus * EACH),
    vdevices: named('x', devices),
    faults: named('f', 2),
    veventqs: named('e', smmus * EACH),
    windows: named('w', smmus * EACH),
    queues: named('q', LVCMDQS * smmus * EACH),
    processes: named('mm', PROCESSES),
    bonds: named('b', BONDS * devices),
  };
}

/** One of some names. */
export const oneOf = (names: readonly string[]): fc.Arbitrary<string> => fc.constantFrom(...names);

/** The name of an operation. */
export const op = <N extends string>(name: N): fc.Arbitrary<N> => fc.constant(name);

/** Number of a device. */
export const deviceIndex = (p: Pools): fc.Arbitrary<number> => fc.nat({ max: p.devices.length - 1 });

/** Names of a range that fit a device: those of its SMMU. */
export const fitting = (names: readonly string[], p: Pools, dev: number): string[] => {
  const first = Math.floor(dev / p.perSmmu) * EACH;
  return names.slice(first, first + EACH);
};

/**
 * What is made for a device; now and then something of another SMMU, which the kernel has to refuse.
 * make: given the device's name and the number of the device whose SMMU the other names fit
 */
export const placed = <T>(
  p: Pools,
  make: (dev: fc.Arbitrary<string>, at: number) => fc.Arbitrary<T>,
): fc.Arbitrary<T> =>
  fc
    .tuple(deviceIndex(p), fc.nat({ max: 19 }))
    .chain(([i, stray]) => make(stray === 19 ? oneOf(p.devices) : fc.constant(`d${i}`), i));
