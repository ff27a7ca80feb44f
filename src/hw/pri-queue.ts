/** The PRI queue and the answers that hardware gives by itself (IHI 0070 chapter 8). */
import type { Caps } from '../../spec/caps.ts';
import type { Words } from '../../spec/layout.ts';
import { isStopMarker, PRG_RESPONSE, PRI_BYTES, PRI_ENTRY } from '../../spec/pri.ts';
import { CR0, GERROR, PRIQ_BASE, PRIQ_CONS, PRIQ_IRQ_CFG2, PRIQ_PROD } from '../../spec/registers.ts';
import type { SmmuOptions } from './config.ts';
import type { ControlRegisters } from './control-registers.ts';
import { storeRecord } from './event-queue.ts';
import type { GlobalErrors } from './gerror.ts';
import type { Memory } from './memory.ts';
import type { RecordAct, Watch } from './observer.ts';
import { attachQueue } from './queue-registers.ts';
import type { Cell, RegisterFile } from './registers.ts';
import type { Ring } from './ring.ts';

const PRIQEN = CR0.bit('PRIQEN');
const PRIQ_ABT_ERR = GERROR.bit('PRIQ_ABT_ERR');
const OVFLG = PRIQ_PROD.bit('OVFLG');
const OVACKFLG = PRIQ_CONS.bit('OVACKFLG');
const LO = PRIQ_IRQ_CFG2.bit('LO');

/** A message from an endpoint: a page request, or a Stop Marker. */
export interface PageRequest {
  readonly StreamID: number;
  /** -1 without a PASID. */
  readonly SubstreamID: number;
  readonly PRGIndex: number;
  /** Of the page, 64 bits. */
  readonly address: bigint;
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
  readonly privileged: boolean;
  readonly last: boolean;
}

/** What the queue needs around it. */
export interface PriPorts {
  readonly memory: Memory;
  readonly watch: Watch;
  /** The PRI queue's interrupt. */
  interrupt(): void;
  /** A PRG Response to an endpoint; SubstreamID -1: without a PASID. */
  respond(StreamID: number, SubstreamID: number, PRGIndex: number, code: number): void;
  /** STE.PPAR of a stream, or null if its STE is not usable (8.1). */
  ppar(StreamID: number): boolean | null;
}

/** The 4 words of a message. X and Priv are 0 without a PASID. */
function encode(request: PageRequest): Words {
  const SSV = request.SubstreamID >= 0;
  return PRI_ENTRY.encode({
    StreamID: request.StreamID,
    SubstreamID: SSV ? request.SubstreamID : 0,
    Priv: Number(SSV && request.privileged),
    X: Number(SSV && request.execute),
    R: Number(request.read),
    W: Number(request.write),
    Last: Number(request.last),
    SSV: Number(SSV),
    PRGIndex: request.PRGIndex,
    PageAddress: request.address >> BigInt(PRI_ENTRY.field('PageAddress').address ?? 0),
  });
}

/** See the module comment. */
export class PriQueue {
  readonly ring: Ring;
  readonly #smmu: string;
  readonly #caps: Caps;
  readonly #control: ControlRegisters;
  readonly #errors: GlobalErrors;
  readonly #ports: PriPorts;
  readonly #abort: SmmuOptions['queueWriteAbort'];
  readonly #cfg2: Cell;

  constructor(smmu: string, file: RegisterFile, control: ControlRegisters, errors: GlobalErrors, ports: PriPorts) {
    this.#smmu = smmu;
    this.#caps = file.caps;
    this.#control = control;
    this.#errors = errors;
    this.#ports = ports;
    this.#abort = file.options.queueWriteAbort;
    this.#cfg2 = file.cell(PRIQ_IRQ_CFG2);
    this.ring = attachQueue(file, control, {
      base: PRIQ_BASE,
      prod: PRIQ_PROD,
      cons: PRIQ_CONS,
      entryBytes: PRI_BYTES,
      max: file.caps.PRIQS,
      enable: PRIQEN,
      owned: 'prod',
    });
  }

  /** Takes a message: into the queue, or it is answered or dropped here. */
  receive(request: PageRequest): void {
    const words = encode(request);
    const marker = isStopMarker(words);
    const result = this.#take(request, words, marker);
    this.#ports.watch.observer?.({ kind: 'pri', smmu: this.#smmu, words, result });
  }

  #take(request: PageRequest, words: Words, marker: boolean): RecordAct['result'] {
    if (!this.#control.enabled(PRIQEN) || !this.#control.SMMUEN) return this.#refuse(request, marker, 'disabled');
    if ((this.#errors.active & PRIQ_ABT_ERR) !== 0) return this.#refuse(request, marker, 'aborted');
    const { ring } = this;
    if (this.#overflowing || ring.full) {
      if (!this.#overflowing) ring.prodCell.lo = (ring.prodCell.lo ^ OVFLG) >>> 0;
      return this.#discard(request, marker);
    }
    const wasEmpty = ring.empty;
    const stored = storeRecord(this.#ports.memory, ring, words);
    if (!stored && this.#abort !== 'unreported') this.#errors.raise(PRIQ_ABT_ERR);
    if (!stored && this.#abort === 'synchronous') return this.#refuse(request, marker, 'aborted');
    ring.prod = ring.next(ring.prod);
    if (!stored) return 'aborted';
    if ((this.#cfg2.lo & LO) === 0 ? wasEmpty : request.last) this.#ports.interrupt();
    return 'written';
  }

  get #overflowing(): boolean {
    const { prodCell, consCell } = this.ring;
    return ((prodCell.lo & OVFLG) === 0) !== ((consCell.lo & OVACKFLG) === 0);
  }

  /** Not written: every request is answered with failure, without a PASID (8.2). */
  #refuse(request: PageRequest, marker: boolean, result: 'disabled' | 'aborted'): RecordAct['result'] {
    if (!marker) this.#ports.respond(request.StreamID, -1, request.PRGIndex, PRG_RESPONSE.ResponseFailure);
    return result;
  }

  /** Overflow: the last request of a group is answered, others vanish (8.1). */
  #discard(request: PageRequest, marker: boolean): RecordAct['result'] {
    if (!request.last) return 'overflow';
    if (!marker) this.#answer(request);
    if ((this.#cfg2.lo & LO) !== 0) this.#ports.interrupt();
    return 'overflow';
  }

  #answer({ StreamID, SubstreamID, PRGIndex }: PageRequest): void {
    const { PPS, SSIDSIZE } = this.#caps;
    const withPasid = SubstreamID >= 0 && SSIDSIZE !== 0;
    const ppar = withPasid && !PPS ? this.#ports.ppar(StreamID) : true;
    if (ppar === null) this.#ports.respond(StreamID, -1, PRGIndex, PRG_RESPONSE.ResponseFailure);
    else this.#ports.respond(StreamID, withPasid && ppar ? SubstreamID : -1, PRGIndex, PRG_RESPONSE.Success);
  }
}
