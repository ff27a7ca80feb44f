/** What all ioctls of one open /dev/iommu share (struct iommufd_ctx). */
import type { IommuGroup } from '../driver/iommu/group.ts';
import type { AttachHandle } from '../driver/iommu/ops.ts';
import type { Kernel } from '../driver/kernel.ts';
import { FileTable } from './files.ts';
import type { HoldPolicyName, HoldReport } from './hold.ts';
import type { Igroup } from './igroup.ts';
import type { IoasObject } from './ioas.ts';
import { MmapSpace } from './mmap.ts';
import { ObjectTable } from './object-table.ts';
import { PinAccount } from './pages.ts';
import { type IommufdParts, iommufdParts } from './parts.ts';
import type { Process } from './process.ts';
import { NO_MEMORY, PAGE_SIZE } from './process.ts';

/** Where Linux 7.2 leaves something to be desired: 'linux-7.2' keeps it, 'none' mends it (docs/deviations.md). */
export type Quirks = 'none' | 'linux-7.2';

/** How a context behaves. */
export interface ContextOptions {
  readonly kernel: Kernel;
  /** Default: a process without memory, with all capabilities. */
  readonly process?: Process;
  /** How a vIOMMU holds its physical IOMMU. Default 'raw', as Linux 7.2. */
  readonly iommuHold?: HoldPolicyName;
  /** Steps that are replaced. Default: as shipped. */
  readonly parts?: IommufdParts;
  /** Default 'none'. */
  readonly quirks?: Quirks;
  /** Huge page size of a kernel built with transparent huge pages; default: built without, as the recorded one. */
  readonly hugePageSize?: bigint;
  /** iommufd's module parameter allow_unsafe_interrupts. Default false. */
  readonly allowUnsafeInterrupts?: boolean;
  /** Whether the MSIs of a group are isolated (iommu_group_has_isolated_msi). Default: yes. */
  readonly isolatedMsi?: (group: IommuGroup) => boolean;
}

/** See the module comment. Handlers read and write it; callers use `IommufdContext`. */
export class IommufdCtx {
  readonly kernel: Kernel;
  readonly process: Process;
  readonly objects: ObjectTable;
  readonly files: FileTable;
  readonly mmaps: MmapSpace;
  readonly parts: IommufdParts;
  /** Handles of attachments: as many as there are attachments. */
  readonly handles = new Set<AttachHandle>();
  readonly pins: PinAccount;
  readonly iommuHold: HoldPolicyName;
  readonly quirks: Quirks;
  readonly maxAutoAlignment: bigint;
  readonly allowUnsafeInterrupts: boolean;
  readonly isolatedMsi: (group: IommuGroup) => boolean;
  /** Groups with a bound device. */
  readonly igroups = new Map<IommuGroup, Igroup>();
  /** The IOAS of the VFIO container interface. */
  vfioIoas: IoasObject | null = null;
  /** Pinned memory is charged to the process (1) instead of the user (0). */
  rlimitMode: 0 | 1 = 0;
  /** Uses of a physical IOMMU that the kernel could not know to be gone. */
  readonly holdReports: HoldReport[] = [];
  /** References to the open file: the descriptor, bound devices, event queue files, mmaps, accesses. */
  fileRefs = 1;
  /** The descriptor is closed. */
  closed = false;
  /** Released: nothing may be called any more. */
  released = false;

  constructor(options: ContextOptions) {
    this.kernel = options.kernel;
    this.process = options.process ?? { memory: NO_MEMORY };
    this.objects = new ObjectTable(this.kernel);
    this.files = new FileTable(this.kernel, this.process.maxFd ?? 1023);
    this.parts = options.parts ?? iommufdParts();
    this.mmaps = new MmapSpace(this.kernel, this.parts);
    this.pins = new PinAccount(this.process);
    this.iommuHold = options.iommuHold ?? 'raw';
    this.quirks = options.quirks ?? 'none';
    this.maxAutoAlignment = options.hugePageSize ?? PAGE_SIZE;
    this.allowUnsafeInterrupts = options.allowUnsafeInterrupts ?? false;
    this.isolatedMsi = options.isolatedMsi ?? (() => true);
  }

  /** One more holder of the open file. */
  getFile(): void {
    this.fileRefs++;
  }

  /** One holder less; the last one releases everything. */
  putFile(): void {
    this.fileRefs--;
    if (this.fileRefs > 0 || this.released) return;
    this.released = true;
    this.objects.closeAll();
    this.vfioIoas = null;
    if (this.igroups.size > 0) this.kernel.log('warn', 'iommufd: a group is left after release');
  }
}
