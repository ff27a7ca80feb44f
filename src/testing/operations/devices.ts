/** Devices: bound, attached, and doing DMA. */
import { guestAddress, readMark } from '../guest.ts';
import type { Lab } from '../lab.ts';
import type { DmaOutcome } from '../operation.ts';
import { idOf, type Performers, type Texts } from './family.ts';

/** See the module comment. */
export type DeviceOperation =
  /** Attaches a device, or moves it if it is attached. */
  | { readonly op: 'attach'; readonly dev: string; readonly to: string }
  | { readonly op: 'detach'; readonly dev: string }
  | { readonly op: 'bind'; readonly dev: string }
  /** Detach and unbind: close() of the device, or its hot-unplug. */
  | { readonly op: 'unbind'; readonly dev: string }
  /** The device accesses 8 bytes of a page: reads what the page says of itself, or writes beside it. */
  | { readonly op: 'dma'; readonly dev: string; readonly page: number; readonly write?: boolean };

/** Where a DMA write of 8 bytes goes inside its page: beside the mark. */
export const WRITE_OFFSET = 8;

const ONES = new Uint8Array(8).fill(0xff);

function dma(lab: Lab, name: string, page: number, write: boolean): DmaOutcome {
  const { endpoint } = lab.device(name);
  const at = guestAddress(page);
  const result = write ? endpoint.write(at + BigInt(WRITE_OFFSET), ONES) : endpoint.read(at, 8);
  lab.kernel.runInterrupts();
  if (result.status !== 'ok' || write) return { status: result.status };
  return { status: 'ok', ...readMark(result.data) };
}

/** How each is carried out. */
export const performDevices: Performers<DeviceOperation> = {
  attach: (lab, o) => {
    const { vfio, ctx } = lab.device(o.dev);
    vfio.attach(idOf(lab, o.to, ctx));
    return undefined;
  },
  detach: (lab, o) => {
    lab.device(o.dev).vfio.detach();
    return undefined;
  },
  bind: (lab, o) => {
    const { vfio, ctx } = lab.device(o.dev);
    vfio.bind(ctx);
    return undefined;
  },
  unbind: (lab, o) => {
    lab.device(o.dev).vfio.close();
    // Its vDEVICE went with it.
    lab.forgetDead();
    return undefined;
  },
  dma: (lab, o) => ({ status: 'ok', dma: dma(lab, o.dev, o.page, o.write === true) }),
};

/** How each is told. */
export const deviceTexts: Texts<DeviceOperation> = {
  attach: (o) => [o.dev, o.to],
  detach: (o) => [o.dev],
  bind: (o) => [o.dev],
  unbind: (o) => [o.dev],
  dma: (o) => [o.dev, `${o.write ? 'write' : 'read'} page ${o.page}`],
};
