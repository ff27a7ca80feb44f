/**
 * A bug of the zoo: a function that wraps parts which the stack is put together from, or acts at a named point of the
 * kernel. The code of the driver knows nothing of it.
 */
import type { Words } from '../../../spec/index.ts';
import type { DriverParts, VmidPolicyName } from '../../driver/arm-smmu-v3/index.ts';
import type { CoreParts } from '../../driver/iommu/parts.ts';
import { coreParts } from '../../driver/iommu/parts.ts';
import type { LocalKernel } from '../../driver/local-kernel.ts';
import type { Machine } from '../../hw/machine.ts';
import { type IommufdParts, iommufdParts } from '../../iommufd/index.ts';
import { CaseError, type LabConfig, type LabExtras, type LabPreset } from '../lab.ts';

/** An object whose members may be replaced. */
export type Replaceable<T> = { -readonly [K in keyof T]: T[K] };

/** What a bug may wrap: assign to a member to replace it. Made anew for each lab. */
export interface BugParts {
  readonly kernel: LocalKernel;
  readonly machine: Machine;
  /** Parts of the driver. */
  readonly driver: Replaceable<DriverParts>;
  /** Steps of the iommu core at which it calls the driver. */
  readonly core: Replaceable<CoreParts>;
  /** Steps of iommufd. */
  readonly iommufd: Replaceable<IommufdParts>;
}

/** See the module comment. A module for `smmulab check --bug` exports one as its default. */
export interface Bug {
  /** Lower-case words with dashes. */
  readonly name: string;
  /** What goes wrong and how it came about, with its source. */
  readonly story: string;
  /** Policies in which it exists. Default: all. */
  readonly policies?: readonly VmidPolicyName[];
  /** Presets on which it exists. Default: all. */
  readonly presets?: readonly LabPreset[];
  /** What a lab must have for the bug to show. Default: nothing. */
  readonly lab?: Partial<LabConfig>;
  apply(parts: BugParts): void;
}

/** Replaceable parts, by the name under which `apply` gets them. */
type Kind = 'driver' | 'core' | 'iommufd';
const KINDS: readonly Kind[] = ['driver', 'core', 'iommufd'];

/** The first thing assigned that nothing would ever call, or that lacks its functions; null: all is as it was shaped. */
function misfit(parts: BugParts, before: Readonly<Record<Kind, object>>): string | null {
  for (const kind of KINDS)
    for (const [name, part] of Object.entries(parts[kind])) {
      const where = `${kind}.${name}`;
      const shipped: unknown = Reflect.get(before[kind], name);
      if (shipped === undefined) return `there is no ${where}; ${kind} has ${Object.keys(before[kind]).join(', ')}`;
      if (typeof part !== typeof shipped || part === null)
        return `${where} is ${part === null ? 'null' : typeof part}, expected ${typeof shipped}`;
      if (part === shipped || typeof part !== 'object') continue;
      // A part may be an instance of a class: its functions are not its own members.
      let changed = Object.getPrototypeOf(part) !== Object.getPrototypeOf(shipped);
      for (const [member, value] of Object.entries(shipped as object)) {
        const now: unknown = Reflect.get(part, member);
        if (typeof value === 'function' && typeof now !== 'function')
          return `${where}.${member} is not a function any more`;
        changed ||= now !== value;
      }
      // It may keep things of its own beside them; with those alone it is as shipped.
      const extra = Object.keys(part).find((member) => !(member in (shipped as object)));
      if (!changed && extra !== undefined) return `there is no ${where}.${extra}, and nothing else of it differs`;
    }
  return null;
}

/** @throws CaseError what a bug itself throws is no finding, nor what it assigns in vain */
function applied(bug: Bug, parts: BugParts): void {
  const before = { driver: { ...parts.driver }, core: { ...parts.core }, iommufd: { ...parts.iommufd } };
  let answer: unknown;
  try {
    answer = bug.apply(parts);
  } catch (error) {
    throw new CaseError(`${bug.name} cannot be applied: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (answer instanceof Promise) answer.catch(() => {});
  const why =
    answer instanceof Promise ? 'apply gave a promise; it must be done when it returns' : misfit(parts, before);
  if (why !== null) throw new CaseError(`${bug.name} cannot be applied: ${why}`);
}

/** Extras that put a bug into a lab. @throws CaseError (when a lab is made) if the bug's `apply` throws */
export function infected(bug: Bug, extras: LabExtras = {}): LabExtras {
  let place: { readonly kernel: LocalKernel; readonly machine: Machine } | undefined;
  const core: Replaceable<CoreParts> = { ...(extras.coreParts ?? coreParts()) };
  const iommufd: Replaceable<IommufdParts> = { ...(extras.iommufdParts ?? iommufdParts()) };
  return {
    ...extras,
    coreParts: core,
    iommufdParts: iommufd,
    withKernel: (kernel, machine) => {
      place = { kernel, machine };
      extras.withKernel?.(kernel, machine);
    },
    parts: (shipped) => {
      const driver = { ...(extras.parts?.(shipped) ?? shipped) };
      if (place === undefined) throw new Error('a lab makes its kernel before its driver');
      Object.assign(core, extras.coreParts ?? coreParts());
      Object.assign(iommufd, extras.iommufdParts ?? iommufdParts());
      applied(bug, { ...place, driver, core, iommufd });
      return driver;
    },
  };
}

/** Commands that the driver issues reach the queue changed, or left alone. */
export function changingCommands(driver: BugParts['driver'], change: (command: Words) => Words): void {
  const { commandQueue } = driver;
  driver.commandQueue = {
    issue: (queue, commands, sync) => commandQueue.issue(queue, commands.map(change), sync),
  };
}
