/** The ATS and PRI side of an endpoint: Translation Requests, its ATC, page requests and the answers to them. */
import { PRG_RESPONSE } from '../../spec/pri.ts';
import { Atc, type AtcEntry } from './atc.ts';
import type { AtcAnswer, AtcInvalidation } from './commands/context.ts';
import type { AtsAct, Watch } from './observer.ts';
import { type PciIommuCapabilities, PRI_CAPACITY } from './pci.ts';
import type { PageRequest } from './pri-queue.ts';
import type { StallClient } from './stall.ts';
import { Access, Outcome, type Transaction } from './transaction.ts';

/** The SMMU in front of an endpoint. */
export interface AtsPort {
  access(t: Transaction, client: StallClient | null): void;
  pageRequest(request: PageRequest): void;
}

/** What a Translation Request asks. */
export interface TranslationRequest {
  readonly StreamID: number;
  /** -1 without a PASID. */
  readonly SubstreamID: number;
  readonly address: bigint;
  readonly privileged: boolean;
  readonly execute: boolean;
  /** No Write: read permission is enough. */
  readonly noWrite: boolean;
}

/** Its completion. `success` may grant nothing (R = W = 0). */
export type TranslationCompletion =
  | { readonly status: 'success'; readonly entry: AtcEntry }
  | { readonly status: 'UR' }
  | { readonly status: 'CA' };

/** A PRG Response as it arrived. */
export interface PageResponse {
  readonly PRGIndex: number;
  readonly SubstreamID: number;
  readonly code: number;
}

/** Responses kept for inspection. */
const RESPONSES = 256;
const PRG_INDICES = 512;
/** Smallest translation unit. */
const STU_LOG2 = 12;

/** See the module comment. */
export class AtsUnit {
  readonly atc = new Atc();
  /** Does not answer ATS Invalidates: what provokes the time-out. */
  hang = false;
  /** The last PRG Responses, oldest first. */
  readonly responses: PageResponse[] = [];
  readonly #name: string;
  readonly #port: AtsPort;
  readonly #transaction: Transaction;
  readonly #capabilities: PciIommuCapabilities;
  readonly #watch: Watch;
  /** What was announced of {@link enabled} last. */
  #on = false;
  readonly #waiting = new Map<number, (code: number) => void>();

  constructor(name: string, port: AtsPort, transaction: Transaction, capabilities: PciIommuCapabilities, watch: Watch) {
    this.#name = name;
    this.#port = port;
    this.#transaction = transaction;
    this.#capabilities = capabilities;
    this.#watch = watch;
  }

  /** ATS is on in configuration space. */
  get enabled(): boolean {
    return this.#capabilities.atsEnabled;
  }

  /** PRI is on in configuration space. */
  get priEnabled(): boolean {
    return this.#capabilities.priEnabled;
  }

  /** Software wrote a control word. A function with ATS off holds no translations. */
  controlChanged(): void {
    const on = this.enabled;
    if (!on) this.atc.clear();
    if (on !== this.#on) this.#announce(on ? 'enabled' : 'disabled', -1, -1);
    this.#on = on;
  }

  /** Sends a Translation Request; a completion that grants something is kept in the ATC. */
  translate(request: TranslationRequest): TranslationCompletion {
    this.#announce('translation-request', request.StreamID, request.SubstreamID);
    const t = this.#transaction;
    this.#send(t, request);
    this.#port.access(t, null);
    if (t.outcome === Outcome.AtsUr) return { status: 'UR' };
    if (t.outcome !== Outcome.Ok) return { status: 'CA' };
    const granted = t.grantRead || t.grantWrite;
    const sizeLog2 = granted ? Math.max(STU_LOG2, Math.min(t.sizeLog2, 52)) : STU_LOG2;
    const align = (value: bigint): bigint => (value >> BigInt(sizeLog2)) << BigInt(sizeLog2);
    const output = (BigInt(t.paHi >>> 0) << 32n) | BigInt(t.paLo >>> 0);
    const entry: AtcEntry = {
      SubstreamID: request.SubstreamID,
      privileged: request.privileged,
      base: align(request.address),
      sizeLog2,
      output: align(output),
      read: t.grantRead,
      write: t.grantWrite,
      execute: t.grantExec,
    };
    if (granted) this.atc.insert(entry);
    return { status: 'success', entry };
  }

  #send(t: Transaction, request: TranslationRequest): void {
    const page = (request.address >> BigInt(STU_LOG2)) << BigInt(STU_LOG2);
    t.access = Access.TranslationRequest;
    t.StreamID = request.StreamID;
    t.SSV = request.SubstreamID >= 0;
    t.SubstreamID = Math.max(request.SubstreamID, 0);
    t.addrHi = Number(page >> 32n);
    t.addrLo = Number(page & 0xffffffffn);
    t.isWrite = false;
    t.isAtomic = false;
    t.isSpeculative = false;
    // Without a PASID a request carries neither (13.7).
    t.InD = request.SubstreamID >= 0 && request.execute;
    t.PnU = request.SubstreamID >= 0 && request.privileged;
    t.noWrite = request.noWrite;
  }

  /** An ATS Invalidate from the SMMU. */
  invalidate(invalidation: AtcInvalidation): AtcAnswer {
    const { StreamID, SubstreamID } = invalidation;
    this.#announce(this.hang ? 'invalidate-timeout' : 'invalidate', StreamID, SubstreamID);
    if (this.hang) return 'timeout';
    if (!this.enabled) return 'unsupported';
    this.atc.invalidate(invalidation);
    return 'done';
  }

  /** Page request groups without an answer. */
  get outstanding(): number {
    return this.#waiting.size;
  }

  /**
   * Asks for one page in a group of its own. False if PRI is off or too many groups are outstanding.
   * @param answered called with the response code
   */
  requestPage(request: Omit<PageRequest, 'PRGIndex' | 'last'>, answered: (code: number) => void): boolean {
    if (!this.priEnabled || this.#waiting.size >= PRI_CAPACITY) return false;
    let PRGIndex = 0;
    while (this.#waiting.has(PRGIndex)) PRGIndex++;
    this.#waiting.set(PRGIndex, answered);
    this.send({ ...request, PRGIndex, last: true });
    return true;
  }

  /** Sends a page request message as it is. @throws RangeError for a PRGIndex outside 9 bits */
  send(request: PageRequest): void {
    if (!Number.isInteger(request.PRGIndex) || request.PRGIndex < 0 || request.PRGIndex >= PRG_INDICES)
      throw new RangeError(`PRGIndex ${request.PRGIndex} is outside 0..${PRG_INDICES - 1}`);
    this.#announce('page-request', request.StreamID, request.SubstreamID);
    this.#port.pageRequest(request);
  }

  /** A PRG Response arrives. Failure stops the function from asking (PCIe 10.4.2). */
  respond(StreamID: number, SubstreamID: number, PRGIndex: number, code: number): void {
    this.#announce('page-response', StreamID, SubstreamID);
    this.responses.push({ PRGIndex, SubstreamID, code });
    if (this.responses.length > RESPONSES) this.responses.shift();
    if (code === PRG_RESPONSE.ResponseFailure) this.#capabilities.priFailed();
    const answered = this.#waiting.get(PRGIndex);
    this.#waiting.delete(PRGIndex);
    answered?.(code);
  }

  #announce(message: AtsAct['message'], StreamID: number, SubstreamID: number): void {
    this.#watch.observer?.({ kind: 'ats', endpoint: this.#name, message, StreamID, SubstreamID });
  }
}
