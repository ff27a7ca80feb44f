/** The recorded machine rebuilt: one SMMU, two test devices and what else has a default domain, a VMM's memory. */
import { CMD_CFGI_CD, CMD_SYNC, commandOf, fromQwords, STE, type Words } from '../../../spec/index.ts';
import { ArmSmmuDriver } from '../../driver/arm-smmu-v3/index.ts';
import { IommuCore } from '../../driver/iommu/index.ts';
import { LocalKernel } from '../../driver/local-kernel.ts';
import {
  configFromIds,
  createMachine,
  type EndpointSetup,
  type Machine,
  qemuVirt,
  type SmmuConfig,
  VIRT,
} from '../../hw/index.ts';
import { IommufdContext, VfioDevice } from '../../iommufd/index.ts';
import { PAGE_BYTES, PAGE_SIZE } from '../../iommufd/process.ts';
import { AddressSpace, PageList } from '../vmm/address-space.ts';
import { type PhaseRecord, type Recording, RecordingError, type Sequence } from './recording.ts';

/** A test device: its address on the bus and its StreamID, which is its requester id. */
export interface TestDevice {
  readonly bdf: string;
  readonly sid: number;
}

/** Where `buf` lies if the recording does not say: the first format has its VM memory only. */
const DEFAULT_AREAS = [
  { name: 'vm', user_va: '0x4000000000', size: '', access: 'rw' },
  { name: 'buf', user_va: '0x6000000000', size: '0x10000', access: 'rw' },
] as const;

/** Requester id of "0000:BB:DD.F". @throws RecordingError */
export function sidOf(bdf: string): number {
  const match = /^0000:([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$/.exec(bdf);
  if (match === null) throw new RecordingError(`'${bdf}' is no PCI address`);
  const [bus, device, fn] = match.slice(1).map((part) => Number.parseInt(part, 16));
  return ((bus ?? 0) << 8) | ((device ?? 0) << 3) | (fn ?? 0);
}

/** A function of the recorded machine: its StreamIDs, and whether it shares the group of the one before it. */
interface RecordedFunction {
  readonly sids: readonly number[];
  readonly withBefore: boolean;
}

/** The functions by the order of their default domains, so that the ASIDs come out as recorded. */
function functionsOf(first: PhaseRecord | undefined, devices: readonly TestDevice[]): RecordedFunction[] {
  const alone = (sid: number): RecordedFunction => ({ sids: [sid], withBefore: false });
  if (first === undefined) return devices.map(({ sid }) => alone(sid));
  if (first.commands.length > 0) return probedFunctions(first.commands);
  const asids = new Map(first.streams.map(({ sid, asid }) => [asid, Number(sid)]));
  const last = Math.max(0, ...[...asids.keys()].map((asid) => asid ?? 0));
  // Streams of no interest stand for the other functions of that machine.
  return Array.from({ length: last }, (_, i) => alone(asids.get(i + 1) ?? FILLER_SID + i));
}

/** A bus that the recorded machine does not have. */
const FILLER_SID = 0xff00;

/** From the commands of the probe: StreamIDs of one function are invalidated in one list. */
function probedFunctions(commands: readonly string[]): RecordedFunction[] {
  const functions: RecordedFunction[] = [];
  const seen = new Set<number>();
  let sids: number[] = [];
  for (const command of commands) {
    const words = commandWords(command);
    const layout = commandOf(words)?.layout;
    const sid = layout === CMD_CFGI_CD ? CMD_CFGI_CD.num(words, 'StreamID') : undefined;
    if (sid !== undefined && !seen.has(sid)) sids.push(sid);
    if (sid !== undefined) seen.add(sid);
    if (layout !== CMD_SYNC || sids.length === 0) continue;
    // Behind a bridge to conventional PCI a function also has the bridge's alias, and the bridge's group.
    functions.push({ sids, withBefore: sids.length > 1 });
    sids = [];
  }
  return functions;
}

function endpointOf(
  fn: RecordedFunction,
  before: RecordedFunction | undefined,
  names: ReadonlyMap<number, string>,
): EndpointSetup {
  const nameOf = ({ sids: [sid = 0] }: RecordedFunction): string => names.get(sid) ?? `stream-0x${sid.toString(16)}`;
  const bridge = fn.withBefore ? before : undefined;
  return {
    name: nameOf(fn),
    streamIds: fn.sids,
    canWbs: true,
    ...(bridge === undefined ? {} : { groupAlias: nameOf(bridge) }),
  };
}

/** The functions as endpoints; a bridge carries its own group's name if another shares it. */
function endpointsOf(functions: readonly RecordedFunction[], names: ReadonlyMap<number, string>): EndpointSetup[] {
  const setups = functions.map((fn, i) => endpointOf(fn, functions[i - 1], names));
  const shared = new Set(setups.map(({ groupAlias }) => groupAlias));
  return setups.map((setup) => (shared.has(setup.name) ? { ...setup, groupAlias: setup.name } : setup));
}

/** A command from its printed form "word0,word1". */
export function commandWords(text: string): Words {
  return fromQwords(text.split(',').map((word) => BigInt(`0x${word}`)));
}

/** The recorded hardware, QEMU's, with what it does otherwise than the specification says. */
function recordedSmmu({ registers }: Recording): SmmuConfig {
  return configFromIds(Object.fromEntries(registers), {
    ...qemuVirt.options,
    unsupportedCommands: 'ignored',
    choices: {
      ...qemuVirt.options?.choices,
      s1ContextPtrBeyondIas: 'stage2',
      s1CdMaxWithoutSubstreams: 'ill',
      stage2InputBeyondIas: 'stage2',
    },
  });
}

/** What one sequence is replayed on. */
export class IommufdLab {
  readonly machine: Machine;
  readonly kernel: LocalKernel;
  readonly driver: ArmSmmuDriver;
  readonly core: IommuCore;
  readonly space = new AddressSpace();
  readonly devices = new Map<string, VfioDevice>();
  readonly areas = new Map<string, { readonly va: bigint; readonly pages: PageList }>();
  /** Opened when the first line needs it. */
  readonly ctx: IommufdContext;
  /** Commands consumed since the last {@link takeCommands}. */
  #commands: string[] = [];

  constructor(recording: Recording, sequence: Sequence, devices: readonly TestDevice[]) {
    const names = new Map(devices.map(({ bdf, sid }) => [sid, bdf]));
    this.machine = createMachine({
      smmus: [{ config: recordedSmmu(recording), base: VIRT.smmu }],
      endpoints: endpointsOf(functionsOf(sequence.phases[0], devices), names),
      ram: [VIRT.ram],
      observer: (act) => {
        if (act.kind === 'command' || act.kind === 'command-error') this.#commands.push(printCommand(act.words));
      },
    });
    this.kernel = new LocalKernel(this.machine.bus, { pageReuse: 'latest' });
    this.driver = new ArmSmmuDriver(this.kernel, { vmidPolicy: 'at-domain-alloc', quirks: 'linux-7.2' });
    this.core = new IommuCore(this.kernel);
    for (const iommu of this.driver.probeAll()) this.core.registerIommu(iommu, this.machine.bus.firmware.devices);
    this.#mapAreas(recording);
    this.ctx = this.#openContext();
    for (const { bdf } of devices) this.#addDevice(bdf);
  }

  #openContext(): IommufdContext {
    const file = this.areas.get('file')?.pages;
    return new IommufdContext({
      kernel: this.kernel,
      quirks: 'linux-7.2',
      process: { memory: this.space, file: (fd) => (fd === FILE_FD ? file : undefined) },
    });
  }

  #addDevice(bdf: string): void {
    const dev = this.core.device(bdf);
    if (dev === undefined) throw new RecordingError(`${bdf} is not among the streams of the first phase`);
    const endpoint = this.machine.endpoint(bdf);
    this.devices.set(bdf, new VfioDevice(dev, (iova, bytes) => endpoint.write(iova, bytes).status === 'ok'));
  }

  #mapAreas({ vm }: Recording): void {
    for (const { name, user_va, size, access } of vm.areas ?? DEFAULT_AREAS) {
      const count = Number(BigInt(size === '' ? vm.size : size) / PAGE_SIZE);
      if (count === 0) continue;
      const pages = new PageList(this.machine.bus, this.#scatteredPages(name, count));
      const va = BigInt(user_va ?? 0);
      this.areas.set(name, { va, pages });
      if (user_va !== undefined) this.space.map({ va, pages, writable: access.startsWith('rw') });
    }
  }

  /** No page follows the one before it in memory, as in the recorded boots: every leaf is a page. */
  #scatteredPages(what: string, count: number): bigint[] {
    const first = this.kernel.allocPages(`user:${what}`, count * PAGE_BYTES);
    return Array.from({ length: count }, (_, i) => first + BigInt(count - 1 - i) * PAGE_SIZE);
  }

  /** An area of the recording. @throws RecordingError */
  area(name: string): { readonly va: bigint; readonly pages: PageList } {
    const area = this.areas.get(name);
    if (area === undefined) throw new RecordingError(`vm.json has no area ${name}`);
    return area;
  }

  /** A test device. @throws RecordingError */
  device(bdf: string): VfioDevice {
    const device = this.devices.get(bdf);
    if (device === undefined) throw new RecordingError(`there is no device ${bdf}`);
    return device;
  }

  /** Commands consumed since the last call, printed as recordings do. */
  takeCommands(): string[] {
    const commands = this.#commands;
    this.#commands = [];
    return commands;
  }

  /** The STE of a stream as it lies in memory. */
  ste(sid: number): Words {
    const [smmu] = this.driver.smmus;
    if (smmu === undefined) throw new Error('no SMMU');
    const bytes = this.machine.bus.loadBytes(smmu.strtab.steOf(sid), STE.bytes);
    return new Uint32Array(bytes.buffer, bytes.byteOffset, STE.bytes / 4).slice();
  }
}

/** The descriptor of the recorded memfd. */
export const FILE_FD = 100;

function printCommand(words: Words): string {
  const hex = (at: number): string => (words[at] ?? 0).toString(16).padStart(8, '0');
  return `${hex(1)}${hex(0)},${hex(3)}${hex(2)}`;
}
