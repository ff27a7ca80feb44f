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

/** @throws CaseError what a bug itself throws is no finding */
function applied(bug: Bug, parts: BugParts): void {
  try {
    bug.apply(parts);
  } catch (error) {
    throw new CaseError(`${bug.name} cannot be applied: ${error instanceof Error ? error.message : String(error)}`);
  }
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
