/** What a property is: rules that are asked after each operation of a case. */

import type fc from 'fast-check';
import type { Finding as SanitizerFinding } from '../sanitizer/index.ts';
import type { CaseOptions } from './arbitraries/case.ts';
import type { LabCase, RunOptions, RunResult } from './case.ts';
import type { Lab } from './lab.ts';
import type { VmidModel } from './model.ts';
import type { Operation, OperationName, OperationResult } from './operations.ts';

/** A rule that is broken. */
export interface Violation {
  /** The rule's name. */
  readonly rule: string;
  /** One sentence: what is so and what it should be, with the SMMU, StreamID and VMID. */
  readonly message: string;
}

/** What a monitor looks at. */
export interface Watched {
  readonly lab: Lab;
  readonly model: VmidModel;
  /** What a sanitizer has found since power-on, oldest first; for a property that asked for one. */
  readonly findings?: readonly SanitizerFinding[] | undefined;
}

/** Asks one run its questions. It may keep state. */
export interface Monitor {
  /** Before each operation. */
  before?(operation: Operation): void;
  /** After each operation. */
  after?(operation: Operation, result: OperationResult): Violation | null;
  /** After everything is closed. */
  atEnd?(): Violation | null;
}

/** How often each operation is drawn, relative to the others; absent: never. */
export type Weights = Readonly<Partial<Record<OperationName, number>>>;

/** See the module comment. */
export interface Property {
  /** As `smmulab check` names it. */
  readonly name: string;
  /** What holds, in one sentence. */
  readonly title: string;
  /** Whether it says anything about a driver that is not the shipped one. */
  readonly foreign: boolean;
  /** What to draw when it is asked alone. Default: the cases on which all properties are asked. */
  readonly weights?: Weights;
  /** Cases of its own, on which no other property is asked. */
  readonly cases?: (options: CaseOptions) => fc.Arbitrary<LabCase>;
  /** A way of its own to run a case; without it the monitor is asked after each operation. */
  readonly run?: (one: LabCase, options: RunOptions) => RunResult;
  /** The monitor needs a sanitizer that has watched the machine since power-on. */
  readonly sanitizer?: true;
  monitor(watched: Watched): Monitor;
}
