/** What both kinds of event queue have in common: an object with a file that is read and written in whole records. */
import type { IommufdCtx } from './ctx.ts';
import type { EventFile } from './files.ts';
import { IommufdObject } from './object.ts';

/** A queue with a descriptor (struct iommufd_eventq). The open file counts on the object and on the context. */
export abstract class EventQueue extends IommufdObject implements EventFile {
  readonly ctx: IommufdCtx;
  /** The descriptor while it is open; else -1. */
  fd = -1;
  #open = false;

  constructor(ctx: IommufdCtx) {
    super();
    this.ctx = ctx;
  }

  /** Reserves the descriptor and opens the file. Kernel: iommufd_eventq_init(). @throws KernelError EMFILE, ENOMEM */
  openFile(): number {
    this.fd = this.ctx.files.reserve();
    this.#open = true;
    this.users++;
    this.ctx.getFile();
    return this.fd;
  }

  /** The descriptor begins to work. */
  installFile(): void {
    this.ctx.files.install(this.fd, this);
  }

  /** The last put of the file: close(), or a failed allocation. */
  close(): void {
    this.use('close');
    this.fd = -1;
    this.#open = false;
    this.users--;
    this.ctx.putFile();
  }

  override abortFile(): void {
    if (!this.#open) return;
    this.ctx.files.unreserve(this.fd);
    this.close();
  }

  abstract read(count: number, copy: (bytes: Uint8Array, at: number) => void): number;
  abstract write(bytes: Uint8Array): number;
  abstract poll(): { readonly readable: boolean; readonly writable: boolean };
}
