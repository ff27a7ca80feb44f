/** Every layout by name, for printers, exports and reference pages. */
import { CD, CD_D128 } from './cd.ts';
import { COMMANDS } from './commands.ts';
import { descriptorVariants } from './descriptors.ts';
import { EVENTS } from './events.ts';
import { L1CD } from './l1cd.ts';
import { L1STD } from './l1std.ts';
import type { Layout } from './layout.ts';
import { PRI_ENTRY } from './pri.ts';
import { ATOS_PAR_FAULT, REGISTERS } from './registers.ts';
import { STE } from './ste.ts';
import { TEGRA241_REGISTERS } from './tegra241.ts';
import {
  type AnyStruct,
  IOMMUFD_DATA_STRUCTS,
  IOMMUFD_IOCTL_STRUCTS,
  IOMMUFD_IOCTLS,
  type Ioctl,
  VFIO_IOCTLS,
  VFIO_STRUCTS,
} from './uapi.ts';
import { VMS } from './vms.ts';

/** Kinds of layouts, in the catalog's order. */
export const CATALOG_KINDS = ['register', 'structure', 'command', 'event', 'descriptor', 'tegra241', 'uapi'] as const;

/** A kind of layout. */
export type CatalogKind = (typeof CATALOG_KINDS)[number];

/** A record or register made of bit fields. */
export interface LayoutEntry {
  readonly name: string;
  readonly kind: Exclude<CatalogKind, 'uapi'>;
  readonly layout: Layout;
}

/** A C struct. */
export interface StructEntry {
  readonly name: string;
  readonly kind: 'uapi';
  readonly struct: AnyStruct;
  /** The ioctl whose argument it is. */
  readonly ioctl?: Ioctl;
}

/** One layout of the catalog. */
export type CatalogEntry = LayoutEntry | StructEntry;

const entries = (kind: LayoutEntry['kind'], layouts: Iterable<Layout>): LayoutEntry[] =>
  Array.from(layouts, (layout) => ({ name: layout.name, kind, layout }));

/** A descriptor's name for a command line: S1_4k_L0_table. */
const oneWord = (name: string): string => name.replaceAll(' ', '_');

const ioctlByStruct: ReadonlyMap<AnyStruct, Ioctl> = new Map(
  [...Object.values(IOMMUFD_IOCTLS), ...Object.values(VFIO_IOCTLS)].map((ioctl) => [ioctl.struct, ioctl]),
);

function structEntry(struct: AnyStruct): StructEntry {
  const ioctl = ioctlByStruct.get(struct);
  return { name: struct.name, kind: 'uapi', struct, ...(ioctl === undefined ? {} : { ioctl }) };
}

let made: readonly CatalogEntry[] | undefined;

/**
 * Every layout, by kind in the order of {@link CATALOG_KINDS}. CMD_CFGI_ALL is an entry with the layout of
 * CMD_CFGI_STE_RANGE. The same list at every call.
 */
export function catalog(): readonly CatalogEntry[] {
  made ??= [
    ...entries('register', REGISTERS),
    ...entries('structure', [STE, CD, CD_D128, L1STD, L1CD, VMS, PRI_ENTRY, ATOS_PAR_FAULT]),
    ...entries('command', Object.values(COMMANDS)),
    { name: 'CMD_CFGI_ALL', kind: 'command', layout: COMMANDS.CMD_CFGI_STE_RANGE },
    ...entries('event', Object.values(EVENTS)),
    ...descriptorVariants().map((layout) => ({ name: oneWord(layout.name), kind: 'descriptor' as const, layout })),
    ...entries('tegra241', TEGRA241_REGISTERS),
    ...[IOMMUFD_IOCTL_STRUCTS, IOMMUFD_DATA_STRUCTS, VFIO_STRUCTS].flatMap((structs) =>
      Object.values(structs).map(structEntry),
    ),
  ];
  return made;
}

const foundByName = new Map<string, CatalogEntry>();

/** The entry of a name, whatever its case; an ioctl's name gives its struct. Undefined for an unknown name. */
export function catalogEntry(name: string): CatalogEntry | undefined {
  if (foundByName.size === 0)
    for (const entry of catalog()) {
      foundByName.set(entry.name.toLowerCase(), entry);
      if (entry.kind === 'uapi' && entry.ioctl !== undefined) foundByName.set(entry.ioctl.name.toLowerCase(), entry);
    }
  return foundByName.get(name.toLowerCase());
}
