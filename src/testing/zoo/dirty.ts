/** Bugs in how the dirty state is read and cleared. */
import type { IoPageTable } from '../../driver/arm-smmu-v3/io-pgtable.ts';
import type { Bug, BugParts } from './bug.ts';

/** SMMUs that keep the dirty state. */
const presets = ['mmu700'] as const;

type Read = IoPageTable['readAndClearDirty'];

/** Page tables whose dirty state is read by another function. */
function readingDirty(driver: BugParts['driver'], read: (shipped: Read) => Read): void {
  const { pageTable } = driver;
  driver.pageTable = (kernel, config, tlb) => {
    const table = pageTable(kernel, config, tlb);
    table.readAndClearDirty = read(table.readAndClearDirty.bind(table));
    return table;
  };
}

/** Bugs of this family. */
export const DIRTY_BUGS: readonly Bug[] = [
  {
    name: 'dirty-cleared-without-flush',
    story:
      'A page that was read as dirty is made clean in its descriptor, and no TLBI follows: the TLB has it as writable, and the next write leaves no trace (IHI 0070 3.13). So in Linux 7.2: the gather of read_and_clear_dirty carries no page size (docs/deviations.md).',
    presets,
    apply: ({ driver }) => {
      const { invalidation } = driver;
      let cleaned = false;
      readingDirty(
        driver,
        (shipped) => (iova, length, noClear, dirty) =>
          shipped(iova, length, noClear, (at, size) => {
            cleaned ||= !noClear;
            dirty(at, size);
          }),
      );
      driver.invalidation = {
        ...invalidation,
        invRange: (kernel, invs, range) => {
          const forgotten = cleaned;
          cleaned = false;
          return forgotten || invalidation.invRange(kernel, invs, range);
        },
      };
    },
  },
  {
    name: 'dirty-not-cleared',
    story:
      'The dirty bitmap is read and the descriptors stay dirty: each round of a migration copies everything that was ever written, and it never ends.',
    presets,
    apply: ({ driver }) =>
      readingDirty(driver, (shipped) => (iova, length, _noClear, dirty) => shipped(iova, length, true, dirty)),
  },
];
