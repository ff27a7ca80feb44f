/** Virtual event queues of a vIOMMU (iommufd's eventq.c, driver.c). */
import {
  iommufd_vevent_header,
  VEVENT_LAST_SEQUENCE,
  VEVENTQ_FLAGS,
  VEVENTQ_MAX_DEPTH,
  VEVENTQ_TYPE,
} from '../../spec/uapi.ts';
import type { Command } from './command.ts';
import type { IommufdCtx } from './ctx.ts';
import { fail } from './errors.ts';
import { EventQueue } from './event-queue.ts';
import type { Ucmd } from './ucmd.ts';
import { getViommu, type ViommuObject } from './viommu.ts';

/** One queued event, or the one LOST node (no data). */
interface Vevent {
  sequence: number;
  readonly data: Uint8Array | null;
}

const HEADER = iommufd_vevent_header.bytes;

/** A vEVENTQ (struct iommufd_veventq). One per vIOMMU and type. */
export class VeventqObject extends EventQueue {
  readonly kind = 'VEVENTQ';
  readonly viommu: ViommuObject;
  readonly type: number;
  readonly depth: number;
  readonly #deliver: Vevent[] = [];
  /** Embedded, so that losing an event needs no memory. Only ever at the tail. */
  readonly #lost: Vevent = { sequence: 0, data: null };
  #numEvents = 0;
  #sequence = 0;

  constructor(ctx: IommufdCtx, viommu: ViommuObject, type: number, depth: number) {
    super(ctx);
    this.viommu = viommu;
    this.type = type;
    this.depth = depth;
  }

  /** Events waiting, the LOST node not counted. */
  get numEvents(): number {
    return this.#numEvents;
  }

  /**
   * Queues an event, or notes that it is lost. Kernel: iommufd_viommu_report_event().
   * @throws KernelError ENOMEM (and the event is lost)
   */
  report(data: Uint8Array): void {
    this.use('report');
    if (this.#numEvents === this.depth) {
      this.#add(this.#lost);
      return;
    }
    try {
      this.ctx.kernel.alloc('iommufd:vevent');
    } catch (error) {
      this.#add(this.#lost);
      throw error;
    }
    this.#numEvents++;
    this.#add({ sequence: 0, data: data.slice() });
  }

  #add(event: Vevent): void {
    if (this.#deliver.at(-1) === this.#lost) this.#deliver.pop();
    event.sequence = this.#sequence;
    this.#sequence = this.#sequence === VEVENT_LAST_SEQUENCE ? 0 : this.#sequence + 1;
    this.#deliver.push(event);
  }

  /** Kernel: iommufd_veventq_fops_read(). @throws KernelError EINVAL, EFAULT */
  read(count: number, copy: (bytes: Uint8Array, at: number) => void): number {
    if (count < HEADER) fail('EINVAL', `room for ${count} bytes; a header has ${HEADER}`);
    let done = 0;
    for (let next = this.#deliver[0]; next !== undefined && count - done >= HEADER; next = this.#deliver[0]) {
      const record = encode(next);
      if (record.length > count - done) {
        if (done === 0) fail('EINVAL', `room for ${count} bytes; the event has ${record.length}`);
        return done;
      }
      try {
        copy(record, done);
      } catch (error) {
        if (done === 0) throw error;
        return done;
      }
      this.#deliver.shift();
      if (next.data !== null) this.#numEvents--;
      done += record.length;
    }
    return done;
  }

  write(): number {
    return fail('EINVAL', 'a vEVENTQ is not written');
  }

  poll(): { readonly readable: boolean; readonly writable: boolean } {
    return { readable: this.#deliver.length > 0, writable: false };
  }

  /** Under the vIOMMU's queue lock. */
  override abort(): void {
    const at = this.viommu.veventqs.indexOf(this);
    if (at >= 0) this.viommu.veventqs.splice(at, 1);
    this.viommu.users--;
    this.#deliver.length = 0;
  }

  release(): void {
    this.ctx.kernel.withLock(this.viommu.veventqsLock, () => this.abort());
  }
}

function encode({ sequence, data }: Vevent): Uint8Array {
  const flags = data === null ? VEVENTQ_FLAGS.LOST_EVENTS : 0;
  const header = iommufd_vevent_header.encode({ flags, sequence });
  if (data === null) return header;
  const record = new Uint8Array(HEADER + data.length);
  record.set(header);
  record.set(data, HEADER);
  return record;
}

/** IOMMU_VEVENTQ_ALLOC. */
export function veventqAlloc(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_VEVENTQ_ALLOC'>>): void {
  const { cmd } = ucmd;
  if (cmd.flags !== 0 || cmd.__reserved !== 0 || cmd.type === VEVENTQ_TYPE.DEFAULT)
    fail('EOPNOTSUPP', 'flags or __reserved is not 0, or type DEFAULT');
  if (cmd.veventq_depth === 0 || cmd.veventq_depth > VEVENTQ_MAX_DEPTH)
    fail('EINVAL', `depth ${cmd.veventq_depth}, expected 1 to ${VEVENTQ_MAX_DEPTH}`);
  const viommu = getViommu(ctx, cmd.viommu_id);
  try {
    ctx.kernel.withLock(viommu.veventqsLock, () => build(ctx, ucmd, viommu));
  } finally {
    ctx.objects.put(viommu);
  }
}

function build(ctx: IommufdCtx, ucmd: Ucmd<Command<'IOMMU_VEVENTQ_ALLOC'>>, viommu: ViommuObject): void {
  const { cmd } = ucmd;
  if (viommu.veventqs.some((queue) => queue.type === cmd.type))
    fail('EEXIST', `${viommu.label} has a vEVENTQ of type ${cmd.type} already`);
  const queue = ctx.objects.alloc(new VeventqObject(ctx, viommu, cmd.type, cmd.veventq_depth));
  viommu.users++;
  try {
    cmd.out_veventq_fd = queue.openFile();
    cmd.out_veventq_id = queue.id;
    viommu.veventqs.push(queue);
    ucmd.respond();
  } catch (error) {
    ctx.objects.abortAndDestroy(queue);
    throw error;
  }
  ctx.objects.finalize(queue);
  queue.installFile();
}
