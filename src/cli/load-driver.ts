/** Drivers of one's own: modules whose default export makes an `IommuOps` (docs/drivers.md). */
import type { IommuOps } from '../driver/iommu/ops.ts';
import { CaseError, type DriverFactory } from '../testing/lab.ts';
import { CliError } from './error.ts';
import { loadDefault } from './load-module.ts';

/** What no driver can be without. */
const NEEDED = [
  'name',
  'identityDomain',
  'blockedDomain',
  'probeDevice',
  'releaseDevice',
  'capable',
  'getResvRegions',
] as const;

/** @throws CaseError naming what is missing */
function checkOps(file: string, ops: unknown): IommuOps {
  if (typeof ops !== 'object' || ops === null)
    throw new CaseError(`${file}: the default export gave ${String(ops)}, expected an IommuOps object`);
  if (ops instanceof Promise) {
    // What it is rejected with is told by nobody else.
    ops.catch(() => {});
    throw new CaseError(`${file}: the default export gave a promise, expected an IommuOps object`);
  }
  const missing = NEEDED.filter((name) => !(name in ops));
  if (missing.length > 0) throw new CaseError(`${file}: the IommuOps has no ${missing.join(', ')}`);
  return ops as IommuOps;
}

/**
 * The driver of a module: its default export is a function `(kernel, firmware) => IommuOps`, called for each machine, or
 * an `IommuOps` itself, which then serves one machine after the other.
 * @throws CliError if the module cannot be loaded; CaseError if it exports something else
 */
export async function loadDriver(file: string): Promise<DriverFactory> {
  const made = await loadDefault('driver', file);
  if (typeof made === 'function') return (kernel, firmware) => checkOps(file, made(kernel, firmware));
  if (made === undefined) throw new CliError(`--driver: ${file} has no default export`);
  const ops = checkOps(file, made);
  return () => ops;
}
