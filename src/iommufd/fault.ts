/** Page-fault queues: faults of stalled transactions go out by read(), answers come back by write() (eventq.c). */
import {
  iommu_hwpt_page_response,
  iommu_hwpt_pgfault,
  PAGE_RESPONSE_CODE,
  PGFAULT_FLAGS,
  PGFAULT_PERM,
} from '../../spec/uapi.ts';
import type { AttachHandle, PageFault, PageFaultGroup } from '../driver/iommu/ops.ts';
import type { IdAllocator } from '../driver/kernel.ts';
import type { Command } from './command.ts';
import type { IommufdCtx } from './ctx.ts';
import { fail } from './errors.ts';
import { EventQueue } from './event-queue.ts';
import { IommufdObject } from './object.ts';
import type { Ucmd } from './ucmd.ts';

const RECORD = iommu_hwpt_pgfault.bytes;
const RESPONSE = iommu_hwpt_page_response.bytes;

/** A fault queue (struct iommufd_fault). */
export class FaultObject extends EventQueue {
  readonly kind = 'FAULT';
  /** Groups that nobody has read, oldest first. */
  readonly #deliver: PageFaultGroup[] = [];
  /** Groups that wait for an answer, by cookie. */
  readonly #response = new Map<number, PageFaultGroup>();
  readonly #cookies: IdAllocator;

  constructor(ctx: IommufdCtx) {
    super(ctx);
    this.#cookies = ctx.kernel.ids('iommufd:fault-cookie', 1, 2 ** 32 - 1, 'EBUSY');
  }

  /** Groups in either list. */
  get pending(): number {
    return this.#deliver.length + this.#response.size;
  }

  /** A complete group arrives (iommufd_fault_iopf_handler). */
  report(group: PageFaultGroup): void {
    this.use('page fault');
    this.#deliver.push(group);
  }

  /** The attachment has ended: its groups are answered INVALID. Kernel: iommufd_auto_response_faults(). */
  autoRespond(handle: AttachHandle): void {
    const mine = this.#deliver.filter((group) => group.handle === handle);
    for (const group of mine) {
      this.#deliver.splice(this.#deliver.indexOf(group), 1);
      group.respond('invalid');
    }
    for (const [cookie, group] of [...this.#response])
      if (group.handle === handle) {
        this.#forget(cookie);
        group.respond('invalid');
      }
  }

  #forget(cookie: number): void {
    this.#response.delete(cookie);
    this.#cookies.free(cookie);
  }

  /** Kernel: iommufd_fault_fops_read(). @throws KernelError ESPIPE, EINVAL, EFAULT, ENOMEM */
  read(count: number, copy: (bytes: Uint8Array, at: number) => void): number {
    if (count % RECORD !== 0) fail('ESPIPE', `${count} bytes are not a multiple of ${RECORD}`);
    let done = 0;
    for (let group = this.#deliver[0]; group !== undefined && done < count; group = this.#deliver[0]) {
      if (group.faults.length * RECORD > count - done) {
        if (done === 0) fail('EINVAL', `a group of ${group.faults.length} faults does not fit into ${count} bytes`);
        break;
      }
      const cookie = this.#cookies.alloc();
      try {
        const owner = group.handle.owner;
        const devId = owner instanceof IommufdObject ? owner.id : 0;
        for (const [i, fault] of group.faults.entries()) copy(encode(fault, devId, cookie), done + i * RECORD);
      } catch (error) {
        this.#cookies.free(cookie);
        if (done === 0) throw error;
        break;
      }
      done += group.faults.length * RECORD;
      this.#deliver.shift();
      this.#response.set(cookie, group);
    }
    return done;
  }

  /** Kernel: iommufd_fault_fops_write(). @throws KernelError ESPIPE, EINVAL */
  write(bytes: Uint8Array): number {
    if (bytes.length % RESPONSE !== 0) fail('ESPIPE', `${bytes.length} bytes are not a multiple of ${RESPONSE}`);
    let done = 0;
    while (done < bytes.length) {
      const { cookie, code } = iommu_hwpt_page_response.decode(bytes.subarray(done, done + RESPONSE));
      const group = this.#response.get(cookie);
      const known = code === PAGE_RESPONSE_CODE.SUCCESS || code === PAGE_RESPONSE_CODE.INVALID;
      if (!known || group === undefined) {
        if (done === 0) fail('EINVAL', known ? `unknown cookie ${cookie}` : `unknown response code ${code}`);
        break;
      }
      this.#forget(cookie);
      group.respond(code === PAGE_RESPONSE_CODE.SUCCESS ? 'success' : 'invalid');
      done += RESPONSE;
    }
    return done;
  }

  poll(): { readonly readable: boolean; readonly writable: boolean } {
    return { readable: this.#deliver.length > 0, writable: true };
  }

  release(): void {
    for (const group of this.#deliver.splice(0)) group.respond('invalid');
    for (const [cookie, group] of [...this.#response]) {
      this.#forget(cookie);
      group.respond('invalid');
    }
  }
}

function encode(fault: PageFault, devId: number, cookie: number): Uint8Array {
  const perm =
    (fault.read ? PGFAULT_PERM.READ : 0) |
    (fault.write ? PGFAULT_PERM.WRITE : 0) |
    (fault.exec ? PGFAULT_PERM.EXEC : 0) |
    (fault.priv ? PGFAULT_PERM.PRIV : 0);
  const flags =
    (fault.pasid !== undefined ? PGFAULT_FLAGS.PASID_VALID : 0) | (fault.lastPage ? PGFAULT_FLAGS.LAST_PAGE : 0);
  return iommu_hwpt_pgfault.encode({
    flags,
    dev_id: devId,
    pasid: fault.pasid ?? 0,
    grpid: fault.grpid,
    perm,
    addr: fault.addr,
    cookie,
  });
}

/** IOMMU_FAULT_QUEUE_ALLOC. */
export function faultQueueAlloc(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_FAULT_QUEUE_ALLOC'>>): void {
  const { cmd } = ucmd;
  if (cmd.flags !== 0) fail('EOPNOTSUPP', 'flags is not 0');
  const fault = ctx.objects.alloc(new FaultObject(ctx));
  ucmd.newObject = fault;
  cmd.out_fault_id = fault.id;
  cmd.out_fault_fd = fault.openFile();
  ucmd.respond();
  fault.installFile();
}
