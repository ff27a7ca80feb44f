/** Replays one recorded sequence and says where it differs. */
import { iommu_vevent_arm_smmuv3, iommufd_vevent_header, VFIO_IOCTLS } from '../../../spec/uapi.ts';
import { encodeCall, type Outcome, parseBytes, printWords, resultOf, runIoctl, sameOutput } from './iommufd-calls.ts';
import { type MemStep, replayDma } from './iommufd-dma.ts';
import { IommufdLab, sidOf, type TestDevice } from './iommufd-lab.ts';
import { PhaseChecker } from './iommufd-phases.ts';
import {
  type Fields,
  field,
  integer,
  type Recording,
  RecordingError,
  type Sequence,
  type Step,
  type Vevent,
} from './recording.ts';

/** One difference between recording and replay. */
export interface Difference {
  /** Line of scenario.txt. */
  readonly line: number;
  readonly what: string;
}

/** What a replay found, and how much it compared. */
export interface ReplayResult {
  readonly name: string;
  readonly differences: readonly Difference[];
  readonly ioctls: number;
  readonly dmas: number;
  readonly phases: number;
  readonly commands: number;
}

/** See the module comment. */
class Replay {
  readonly #sequence: Sequence;
  readonly #lab: IommufdLab;
  readonly #recording: Recording;
  readonly #phases: PhaseChecker;
  readonly #differences: Difference[] = [];
  /** Descriptors of event queues by object id. */
  readonly #fds = new Map<number, number>();
  /** The test device of each device id, by the latest bind. */
  readonly #boundAs = new Map<string, string>();
  /** Last line whose stores of the VM are done. */
  #written = 0;
  #ioctls = 0;
  #dmas = 0;

  constructor(recording: Recording, sequence: Sequence) {
    this.#recording = recording;
    this.#sequence = sequence;
    const devices = testDevices(sequence);
    this.#lab = new IommufdLab(recording, sequence, devices);
    this.#phases = new PhaseChecker(this.#lab, sequence.phases);
  }

  run(): ReplayResult {
    for (const [i, step] of this.#sequence.steps.entries()) {
      this.#writeMemory(step.line);
      this.#step(step, i);
      this.#lab.kernel.runInterrupts();
      if (this.#endsOperation(step, this.#sequence.steps[i + 1])) this.#phases.endOfOperation(step.line);
    }
    return {
      name: this.#sequence.name,
      differences: this.#differences,
      ioctls: this.#ioctls,
      dmas: this.#dmas,
      phases: this.#phases.checked,
      commands: this.#phases.commands,
    };
  }

  /** What the recorder did in one go: a DMA and its MEM lines, a close and the bind again, the binds at the start. */
  #endsOperation(step: Step, next: Step | undefined): boolean {
    if (next?.kind === 'mem' || (step.kind === 'close' && next?.kind !== 'phase')) return false;
    const bind = step.kind === 'ioctl' && step.name === 'VFIO_BIND';
    return !(bind && this.#ioctls <= this.#lab.devices.size);
  }

  #differ(line: number, what: string): void {
    this.#differences.push({ line, what });
  }

  #expect(line: number, name: string, got: string, recorded: string): void {
    if (got !== recorded) this.#differ(line, `${name}: ${got}, recorded ${recorded}`);
  }

  /** The VM's own stores that come before this line. */
  #writeMemory(line: number): void {
    const base = BigInt(this.#recording.vm.base);
    for (const { before, gpa, hex } of this.#recording.vm.writes)
      if (before === line || (before < line && before > this.#written))
        this.#lab.area('vm').pages.write(Number(BigInt(gpa) - base), Uint8Array.from(Buffer.from(hex, 'hex')));
    this.#written = line;
  }

  #step(step: Step, index: number): void {
    switch (step.kind) {
      case 'ioctl':
        this.#ioctls++;
        this.#ioctl(step);
        return;
      case 'read':
        this.#read(step);
        return;
      case 'write':
        this.#write(step);
        return;
      case 'dma':
        this.#dmas++;
        for (const what of replayDma(this.#lab, this.#recording.vm, step, this.#memLines(index)))
          this.#differ(step.line, what);
        return;
      case 'mem':
        return;
      case 'vevent':
        this.#vevent(step);
        return;
      case 'close':
        this.#close(step);
        return;
      case 'phase':
        for (const what of this.#phases.check(step.name)) this.#differ(step.line, what);
        return;
      case 'reset':
        return;
    }
  }

  #ioctl(step: Step & { kind: 'ioctl' }): void {
    const outcome = step.name.startsWith('VFIO_') ? this.#vfio(step) : this.#iommu(step);
    this.#expect(step.line, `${step.name} result`, outcome.result, step.result);
    for (const [key, recorded] of step.outputs) {
      const got = outcome.outputs.get(key) ?? '';
      if (!sameOutput(key, got, recorded)) this.#differ(step.line, `${step.name} ${key}: ${got}, recorded ${recorded}`);
    }
    const extra = outcome.outputs.get('out_data');
    if (extra !== undefined && extra !== '' && !step.outputs.has('out_data'))
      this.#differ(step.line, `${step.name} out_data: ${extra}, recorded none`);
  }

  #iommu(step: Step & { kind: 'ioctl' }): Outcome {
    const { ctx } = this.#lab;
    const before = new Set(ctx.objects.list());
    const outcome = runIoctl(this.#lab, step.name, step.inputs, step.outputs, step.line);
    if (outcome.result === 'ok' && /VEVENTQ|FAULT_QUEUE/.test(step.name))
      for (const object of ctx.objects.list())
        if (!before.has(object) && 'fd' in object) this.#fds.set(object.id, object.fd as number);
    return outcome;
  }

  #vfio(step: Step & { kind: 'ioctl' }): Outcome {
    const { inputs, line } = step;
    const outputs = new Map<string, string>();
    if (step.name === 'VFIO_BIND') {
      const bdf = field(inputs, 'bdf', line);
      const device = this.#lab.device(bdf);
      const result = resultOf(() => outputs.set('out_devid', String(device.bind(this.#lab.ctx))));
      if (result === 'ok') this.#boundAs.set(outputs.get('out_devid') ?? '', bdf);
      return { result, outputs };
    }
    const bdf = this.#boundAs.get(field(inputs, 'devid', line));
    if (bdf === undefined) throw new RecordingError(`scenario.txt:${line}: no such device id`);
    const ioctl =
      step.name === 'VFIO_ATTACH'
        ? VFIO_IOCTLS.VFIO_DEVICE_ATTACH_IOMMUFD_PT
        : VFIO_IOCTLS.VFIO_DEVICE_DETACH_IOMMUFD_PT;
    const argsz = inputs.get('argsz') ?? String(ioctl.minBytes);
    const { struct } = ioctl;
    const bytes = encodeCall(this.#lab, step.name, struct, new Map([...inputs, ['argsz', argsz]]), line);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, Number(integer(argsz, line)), true);
    const result = resultOf(() => this.#lab.device(bdf).ioctl(ioctl.request, bytes));
    if (step.name === 'VFIO_ATTACH')
      outputs.set('out_pt_id', String(VFIO_IOCTLS.VFIO_DEVICE_ATTACH_IOMMUFD_PT.struct.get(bytes, 'pt_id')));
    return { result, outputs };
  }

  /** A queue that the replay failed to make has a descriptor that is not open. */
  #fd(inputs: Fields, line: number): number {
    return this.#fds.get(Number(integer(field(inputs, 'id', line), line))) ?? -1;
  }

  #read(step: Step & { kind: 'read' | 'write' }): void {
    const { inputs, line } = step;
    const fd = this.#fd(inputs, line);
    let bytes = new Uint8Array(0);
    const result = resultOf(() => {
      bytes = this.#lab.ctx.read(fd, Number(integer(field(inputs, 'count', line), line))) as typeof bytes;
    });
    this.#expect(line, 'READ result', result, step.result);
    this.#expect(line, 'READ bytes', String(bytes.length), field(step.outputs, 'bytes', line));
    this.#expect(line, 'READ data', bytes.length === 0 ? '' : printWords(bytes), step.outputs.get('data') ?? '');
  }

  #write(step: Step & { kind: 'read' | 'write' }): void {
    const { inputs, line } = step;
    let taken = 0;
    const result = resultOf(() => {
      taken = this.#lab.ctx.write(this.#fd(inputs, line), parseBytes(field(inputs, 'data', line), line));
    });
    this.#expect(line, 'WRITE result', result, step.result);
    this.#expect(line, 'WRITE bytes', String(taken), field(step.outputs, 'bytes', line));
  }

  /** One event at a time, from the only queue that the first recording has open. */
  #vevent(step: Step & { kind: 'vevent' }): void {
    const fd = [...this.#fds.values()].at(-1);
    if (fd === undefined) throw new RecordingError(`scenario.txt:${step.line}: no event queue is open`);
    const { bytes: header } = iommufd_vevent_header;
    const bytes = this.#lab.ctx.read(fd, header + iommu_vevent_arm_smmuv3.bytes);
    this.#expect(step.line, 'VEVENT', bytes.length === 0 ? 'none' : printWords(bytes), printEvent(step.event));
  }

  #close(step: Step & { kind: 'close' }): void {
    if (step.what === 'iommufd') this.#lab.ctx.close();
    else if (step.what === 'device') this.#lab.device(field(step.fields, 'bdf', step.line)).close();
    else {
      const fd = this.#fd(step.fields, step.line);
      this.#expect(
        step.line,
        'CLOSE',
        resultOf(() => this.#lab.ctx.closeFd(fd)),
        'ok',
      );
      this.#fds.delete(Number(integer(field(step.fields, 'id', step.line), step.line)));
    }
  }

  /** The MEM lines right after a DMA line. */
  #memLines(index: number): MemStep[] {
    const out: MemStep[] = [];
    for (let i = index + 1; ; i++) {
      const step = this.#sequence.steps[i];
      if (step?.kind !== 'mem') return out;
      out.push(step);
    }
  }
}

function printEvent(event: Vevent | null): string {
  if (event === null) return 'none';
  const words = [(BigInt(event.sequence) << 32n) | BigInt(event.flags), ...event.words];
  return `q:${words.map((word) => word.toString(16).padStart(16, '0')).join(',')}`;
}

/** Replays a sequence. @throws RecordingError for lines that make no sense */
export function replaySequence(recording: Recording, sequence: Sequence): ReplayResult {
  return new Replay(recording, sequence).run();
}

/** The devices that a sequence binds, by name. */
function testDevices(sequence: Sequence): TestDevice[] {
  const names = new Set<string>();
  for (const step of sequence.steps) {
    if (step.kind === 'dma') names.add(step.bdf);
    if (step.kind === 'ioctl' && step.name === 'VFIO_BIND') names.add(field(step.inputs, 'bdf', step.line));
  }
  return [...names].map((bdf) => ({ bdf, sid: sidOf(bdf) })).sort((a, b) => a.sid - b.sid);
}
