/** Bugs in what becomes of a VM's commands (kernel: `arm_vsmmu_cache_invalidate`, `arm_vsmmu_convert_user_cmd`). */
import {
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NSNH_ALL,
  opcodeOf,
  type Words,
} from '../../../spec/index.ts';
import type { NestedPart } from '../../driver/arm-smmu-v3/nested.ts';
import type { Bug, BugParts } from './bug.ts';

type Convert = NestedPart['convertCommand'];

/** Replaces the conversion of a VM's command. */
const converting =
  (wrap: (base: Convert) => Convert) =>
  ({ driver }: BugParts): void => {
    const { nested } = driver;
    driver.nested = { ...nested, convertCommand: wrap(nested.convertCommand) };
  };

/** Replaces how lists with a VM's commands are issued. */
const issuing =
  (issue: (list: readonly Words[], sync: boolean) => { readonly list: readonly Words[]; readonly sync: boolean }) =>
  ({ driver }: BugParts): void => {
    const { nested, commandQueue } = driver;
    const converted = new WeakSet<Words>();
    driver.nested = {
      ...nested,
      convertCommand: (command, vmid, sidOf) => {
        const words = nested.convertCommand(command, vmid, sidOf);
        converted.add(words);
        return words;
      },
    };
    driver.commandQueue = {
      issue: (queue, commands, sync) => {
        const [first] = commands;
        if (first === undefined || !converted.has(first)) return commandQueue.issue(queue, commands, sync);
        const changed = issue(commands, sync);
        return commandQueue.issue(queue, changed.list, changed.sync);
      },
    };
  };

const OF_CD: ReadonlySet<number> = new Set([CMD_CFGI_CD.opcode, CMD_CFGI_CD_ALL.opcode]);

/** Bugs of this family. */
export const GUEST_BUGS: readonly Bug[] = [
  {
    name: 'guest-vmid-kept',
    story:
      "A VM's TLBI goes to the queue with the VMID that the VM wrote in it: it hits another VM, or nobody (arm_vsmmu_convert_user_cmd must replace it).",
    apply: converting((base) => (command, _vmid, sidOf) => base(command, CMD_TLBI_NH_ALL.num(command, 'VMID'), sidOf)),
  },
  {
    name: 'guest-nsnh-passed',
    story:
      'CMD_TLBI_NSNH_ALL of a VM is issued as it is: one VM empties the TLB of all others and of the host. It must become CMD_TLBI_NH_ALL of its own VMID.',
    apply: converting(
      (base) => (command, vmid, sidOf) =>
        opcodeOf(command) === CMD_TLBI_NSNH_ALL.opcode ? command.slice() : base(command, vmid, sidOf),
    ),
  },
  {
    name: 'guest-vsid-passed',
    story:
      "The StreamID of a VM's CMD_CFGI_CD is checked and issued as the VM wrote it: a vSID is taken for a StreamID, and the cached CD of the VM's own stream stays.",
    apply: converting((base) => (command, vmid, sidOf) => {
      const words = base(command, vmid, sidOf);
      if (OF_CD.has(opcodeOf(words))) CMD_CFGI_CD.set(words, 'StreamID', CMD_CFGI_CD.num(command, 'StreamID'));
      return words;
    }),
  },
  {
    name: 'guest-cfgi-of-one-cd',
    story:
      "CMD_CFGI_CD_ALL of a VM is issued as CMD_CFGI_CD of SubstreamID 0: CDs of the VM's PASIDs stay cached (IHI 0070 4.3.4).",
    apply: converting((base) => (command, vmid, sidOf) => {
      const words = base(command, vmid, sidOf);
      if (opcodeOf(words) !== CMD_CFGI_CD_ALL.opcode) return words;
      return CMD_CFGI_CD.encode({ StreamID: CMD_CFGI_CD_ALL.num(words, 'StreamID'), Leaf: 1 });
    }),
  },
  {
    name: 'guest-vsid-unchecked',
    story:
      'A vSID that no vDEVICE has is taken for StreamID 0 instead of an error: a command of one VM reaches a stream of the host.',
    apply: converting((base) => (command, vmid, sidOf) => base(command, vmid, (vsid) => sidOf(vsid) ?? 0)),
  },
  {
    name: 'guest-commands-not-waited-for',
    story:
      "A VM's commands are published without CMD_SYNC and the ioctl returns: the VM reuses pages whose translations are still cached (4.7.3).",
    apply: issuing((list) => ({ list, sync: false })),
  },
  {
    name: 'entry-num-counts-unissued',
    story:
      'An invalidation fails to convert, and entry_num counts the commands before it, which were converted and never issued: the VMM tells its guest that they are done. Linux 7.2 does so (arm_vsmmu_cache_invalidate).',
    lab: { entryNum: 'uapi' },
    apply: ({ driver }) => {
      const { vmidPolicy: base } = driver;
      driver.vmidPolicy = {
        ...base,
        vsmmuInit: (vsmmu) => {
          Object.assign(vsmmu.smmu.options, { entryNum: 'kernel' });
          base.vsmmuInit(vsmmu);
        },
      };
    },
  },
  {
    name: 'guest-last-command-lost',
    story:
      "The last command of a VM's list stays behind: the index of the last one to issue is taken as exclusive where it is inclusive.",
    apply: issuing((list, sync) => ({ list: list.length > 1 ? list.slice(0, -1) : list, sync })),
  },
];
