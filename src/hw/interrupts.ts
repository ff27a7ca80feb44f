/** Interrupts: wired edges and MSIs (IHI 0070 3.18, 6.3.16 to 6.3.23, 6.3.30 to 6.3.36). */
import type { Register } from '../../spec/layout.ts';
import {
  EVENTQ_IRQ_CFG0,
  EVENTQ_IRQ_CFG1,
  EVENTQ_IRQ_CFG2,
  GERROR,
  GERROR_IRQ_CFG0,
  GERROR_IRQ_CFG1,
  GERROR_IRQ_CFG2,
  IRQ_CTRL,
  IRQ_CTRLACK,
  PRIQ_IRQ_CFG0,
  PRIQ_IRQ_CFG1,
  PRIQ_IRQ_CFG2,
} from '../../spec/registers.ts';
import { guardsMayLeak } from './control-registers.ts';
import { Handshake } from './handshake.ts';
import type { InterruptSource, Watch } from './observer.ts';
import type { Cell, RegisterFile } from './registers.ts';

/** Where an SMMU's interrupts go. */
export interface InterruptPort {
  /** An edge on the wire of a source. */
  edge(source: InterruptSource): void;
  /** A 32-bit MSI write; false is an external abort. */
  msi(addrHi: number, addrLo: number, data: number): boolean;
  /** A WFE wake-up event for the CPUs. */
  wakeUp(): void;
}

/** A source with registers of its own. */
type QueueSource = 'eventq' | 'priq' | 'gerror';

interface Source {
  readonly enable: number;
  readonly abort: number;
  readonly address: Cell;
  readonly data: Cell;
}

const SOURCES: Record<
  QueueSource,
  { enable: number; abort: number; registers: readonly [Register, Register, Register] }
> = {
  eventq: {
    enable: IRQ_CTRL.bit('EVENTQ_IRQEN'),
    abort: GERROR.bit('MSI_EVENTQ_ABT_ERR'),
    registers: [EVENTQ_IRQ_CFG0, EVENTQ_IRQ_CFG1, EVENTQ_IRQ_CFG2],
  },
  priq: {
    enable: IRQ_CTRL.bit('PRIQ_IRQEN'),
    abort: GERROR.bit('MSI_PRIQ_ABT_ERR'),
    registers: [PRIQ_IRQ_CFG0, PRIQ_IRQ_CFG1, PRIQ_IRQ_CFG2],
  },
  gerror: {
    enable: IRQ_CTRL.bit('GERROR_IRQEN'),
    abort: GERROR.bit('MSI_GERROR_ABT_ERR'),
    registers: [GERROR_IRQ_CFG0, GERROR_IRQ_CFG1, GERROR_IRQ_CFG2],
  },
};
const SYNC_ABORT = GERROR.bit('MSI_CMDQ_ABT_ERR');
const ALL = 0xffffffff;

/** See the module comment. There is no pending state: every interrupt is an edge or one write. */
export class Interrupts {
  readonly irqCtrl: Handshake;
  /** Raises bits of GERROR: where an aborted MSI is reported. Set by the SMMU that owns both. */
  raise: (bits: number) => void = () => {};
  readonly #smmu: string;
  readonly #port: InterruptPort;
  readonly #watch: Watch;
  readonly #msi: boolean;
  readonly #wired: boolean;
  readonly #sev: boolean;
  readonly #topHi: number;
  readonly #sources: Readonly<Record<QueueSource, Source>>;

  constructor(smmu: string, file: RegisterFile, watch: Watch, port: InterruptPort) {
    this.#smmu = smmu;
    this.#port = port;
    this.#watch = watch;
    this.#msi = file.caps.MSI;
    this.#sev = file.caps.SEV;
    this.#wired = file.options.wiredInterrupts;
    this.#topHi = 2 ** (file.caps.OAS - 32) - 1;
    this.irqCtrl = new Handshake(smmu, file, IRQ_CTRL, IRQ_CTRLACK, watch, () => {});
    const leaky = guardsMayLeak(file);
    const attach = ({ enable, abort, registers }: (typeof SOURCES)[QueueSource]): Source => {
      const open = () => (leaky || this.irqCtrl.off(enable) ? ALL : 0);
      const [address, data, attributes] = registers;
      file.attach(attributes, { open });
      return { enable, abort, address: file.attach(address, { open }), data: file.attach(data, { open }) };
    };
    this.#sources = { eventq: attach(SOURCES.eventq), priq: attach(SOURCES.priq), gerror: attach(SOURCES.gerror) };
  }

  /** An interrupt of a source, if it is enabled: an edge on its wire, and an MSI if its address is not 0. */
  trigger(name: QueueSource): void {
    const { enable, abort, address, data } = this.#sources[name];
    if ((this.irqCtrl.ack & enable) === 0) return;
    if (this.#wired) this.#edge(name);
    if (this.#msi && (address.hi | address.lo) !== 0) this.#write(name, address.hi, address.lo, data.lo, abort);
  }

  /** Completion signal SIG_IRQ of a CMD_SYNC (4.7.3). The zero test takes the whole address; then it is cut to OAS. */
  sync(addrHi: number, addrLo: number, data: number): void {
    if (this.#wired) this.#edge('cmdsync');
    if (this.#msi && (addrHi | addrLo) !== 0) this.#write('cmdsync', addrHi & this.#topHi, addrLo, data, SYNC_ABORT);
  }

  /** Completion signal SIG_SEV, and a full Command queue that became non-full (4.7.3, 4.1.2). */
  wakeUp(): void {
    if (!this.#sev) return;
    this.#announce('cmdsync', 'event', 0, 0, 0, false);
    this.#port.wakeUp();
  }

  #edge(source: InterruptSource): void {
    this.#announce(source, 'wired', 0, 0, 0, false);
    this.#port.edge(source);
  }

  #write(source: InterruptSource, hi: number, lo: number, data: number, abort: number): void {
    const done = this.#port.msi(hi, lo, data);
    this.#announce(source, 'msi', hi, lo, data, !done);
    if (!done) this.raise(abort);
  }

  #announce(
    source: InterruptSource,
    how: 'wired' | 'msi' | 'event',
    addrHi: number,
    addrLo: number,
    data: number,
    aborted: boolean,
  ): void {
    this.#watch.observer?.({ kind: 'interrupt', smmu: this.#smmu, source, how, addrHi, addrLo, data, aborted });
  }
}
