/** The processes of a lab's host, and the bonds of devices with them (SVA). */
import type { IommuCore } from '../driver/iommu/core.ts';
import type { Device } from '../driver/iommu/ops.ts';
import type { SvaHandle } from '../driver/iommu/sva.ts';
import { CaseError } from './lab-config.ts';
import type { Process } from './process.ts';

/** Makes a process of a number. @throws KernelError ENOMEM */
type MakeProcess = (index: number) => Process;

/** See the module comment. */
export class Processes {
  readonly #core: IommuCore;
  readonly #make: MakeProcess;
  readonly #list: Process[];
  readonly #bonds = new Map<string, SvaHandle>();

  /** @throws KernelError ENOMEM */
  constructor(core: IommuCore, count: number, make: MakeProcess) {
    this.#core = core;
    this.#make = make;
    this.#list = Array.from({ length: count }, (_, i) => make(i));
  }

  /** A process by name. @throws CaseError for an unknown one */
  process(name: string): Process {
    const found = this.#list.find((one) => one.name === name);
    if (found !== undefined) return found;
    const there =
      this.#list.length === 0 ? '"processes" of a machine makes some' : `the last is ${this.#list.at(-1)?.name}`;
    throw new CaseError(`no process ${name}; ${there}`);
  }

  /** A bond by name: the handle that its bind returned; undefined: nothing has the name. */
  bond(name: string): SvaHandle | undefined {
    return this.#bonds.get(name);
  }

  /**
   * Binds a device to a process under a name (`iommu_sva_bind_device`).
   * @throws KernelError as the core's; CaseError for an unknown process
   */
  bind(name: string, dev: Device, process: string): SvaHandle {
    const bond = this.#core.sva.bindDevice(dev, this.process(process));
    this.#bonds.set(name, bond);
    return bond;
  }

  /** Ends a bind. @returns false: nothing has that name */
  unbind(name: string): boolean {
    const bond = this.#bonds.get(name);
    if (bond === undefined) return false;
    this.#bonds.delete(name);
    this.#core.sva.unbindDevice(bond);
    return true;
  }

  /** The drivers of devices are removed from them, and end their bonds. */
  leave(devices: readonly Device[]): void {
    for (const [name, { dev }] of [...this.#bonds]) if (devices.includes(dev)) this.unbind(name);
  }

  /** A process changes where one of its pages leads; null: nowhere. */
  map(name: string, page: number, to: number | null): void {
    const process = this.process(name);
    process.mapPage(page, to, (start, end) => this.#core.sva.mmInvalidate(process, start, end));
  }

  /** The address space of a process ends, and another begins. @throws KernelError ENOMEM, and then nothing has happened */
  exec(name: string): void {
    const old = this.process(name);
    const index = this.#list.indexOf(old);
    this.#list[index] = this.#make(index);
    this.#end(old);
  }

  /** Ends all bonds and all processes. */
  close(): void {
    for (const name of [...this.#bonds.keys()]) this.unbind(name);
    for (const one of this.#list.splice(0)) this.#end(one);
  }

  /** Devices are told before the memory is given back (`exit_mmap`). */
  #end(process: Process): void {
    this.#core.sva.mmRelease(process);
    process.free();
  }
}
