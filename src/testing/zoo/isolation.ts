/** Bugs by which one VM's doing shows in another's: nothing is corrupted, and no rule of the hardware is broken. */
import type { Master } from '../../driver/arm-smmu-v3/smmu.ts';
import { type IdAllocator, KernelError } from '../../driver/kernel.ts';
import type { Bug } from './bug.ts';

/** Events that the driver reports of one SMMU before it thinks of a storm. */
const BUDGET = 3;

const isMaster = (value: unknown): value is Master =>
  typeof value === 'object' && value !== null && 'vmaster' in value && 'stalls' in value;

/** Bugs of this family. */
export const ISOLATION_BUGS: readonly Bug[] = [
  {
    name: 'refusal-told-to-next',
    story:
      "A command that the kernel refuses leaves its error with the SMMU: whoever comes next with commands gets it, another VM's VMM too.",
    apply: ({ driver }) => {
      const { nested } = driver;
      let left: KernelError | null = null;
      driver.nested = {
        ...nested,
        convertCommand: (command, vmid, sidOf) => {
          const stale = left;
          left = null;
          if (stale !== null) throw stale;
          try {
            return nested.convertCommand(command, vmid, sidOf);
          } catch (error) {
            if (error instanceof KernelError) left = error;
            throw error;
          }
        },
      };
    },
  },
  {
    name: 'events-of-one-budget',
    story:
      'The rate limit of event records is one for all devices of an SMMU: a VM whose device makes many of them silences the events of every other VM.',
    apply: ({ kernel }) => {
      const withLock = kernel.withLock.bind(kernel);
      const seen = new Map<string, number>();
      kernel.withLock = (lock, body) => {
        const found = withLock(lock, body);
        // The handler looks up whose an event is; what follows the attachment of a device finds nothing here.
        if (!lock.name.endsWith(':streams') || !isMaster(found)) return found;
        const count = (seen.get(lock.name) ?? 0) + 1;
        seen.set(lock.name, count);
        return count > BUDGET ? (undefined as unknown as typeof found) : found;
      };
    },
  },
  {
    name: 'ids-of-one-pot',
    story:
      "All open /dev/iommu share one allocator of object ids: which numbers a VMM gets tells what another VM's vSTE made its VMM fail with.",
    lab: { contexts: 'per-vm' },
    apply: ({ kernel }) => {
      const ids = kernel.ids.bind(kernel);
      let shared: IdAllocator | undefined;
      kernel.ids = (name, ...rest) => {
        if (name !== 'iommufd:object') return ids(name, ...rest);
        shared ??= ids(name, ...rest);
        return shared;
      };
    },
  },
  {
    name: 'stall-holds-invalidations',
    story:
      'While a transaction stalls, its SMMU takes no invalidations for VMs, lest one of them reach what the fault handler is about: a device that lets its accesses stall keeps every other VM from invalidating.',
    lab: { stalls: true },
    apply: ({ driver }) => {
      const { attach, nested } = driver;
      const masters = new Set<Master>();
      driver.attach = {
        ...attach,
        prepare: (request) => {
          masters.add(request.master);
          return attach.prepare(request);
        },
      };
      driver.nested = {
        ...nested,
        convertCommand: (command, vmid, sidOf) => {
          for (const { stalls } of masters)
            if (stalls.size > 0) throw new KernelError('EBUSY', 'a transaction stalls: try again');
          return nested.convertCommand(command, vmid, sidOf);
        },
      };
    },
  },
  {
    name: 'abort-vste-for-the-next',
    story:
      "The STE of a nested domain is built in a buffer that all share, and the guest's half of it is written only where the vSTE says something: one VM's abort is the next VM's abort.",
    apply: ({ driver }) => {
      const { makers } = driver;
      let aborted = false;
      driver.makers = {
        ...makers,
        abortSte: () => {
          aborted = true;
          return makers.abortSte();
        },
        nestedCdTableSte: (...args) => {
          const ste = aborted ? makers.abortSte() : makers.nestedCdTableSte(...args);
          aborted = false;
          return ste;
        },
      };
    },
  },
];
