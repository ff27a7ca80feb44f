/** What changes between two STEs or CDs, what it means, and how a driver gets from one to the other. */
import type { Caps } from '../../spec/caps.ts';
import { CD } from '../../spec/cd.ts';
import type { Layout, Words } from '../../spec/layout.ts';
import { linuxCdUsed, linuxSteSafe, linuxSteUsed } from '../../spec/linux-used.ts';
import { STE } from '../../spec/ste.ts';
import { s1Enabled, s2Enabled } from '../../spec/stream-world.ts';
import { cdLayout, cdUsed, steUsed } from '../../spec/used.ts';
import { planEntryUpdate } from '../driver/arm-smmu-v3/entry-writer.ts';
import { decode } from './decode.ts';
import { type DecodedProblem, hex } from './record.ts';
import { cdFieldInTlb, steFieldInTlb } from './tlb-fields.ts';

/** A field that differs. */
export interface FieldChange {
  readonly name: string;
  /** As {@link DecodedField.bits}. */
  readonly bits: string;
  /** "0x..": right-aligned values before and after. */
  readonly from: string;
  readonly to: string;
  /** The values in words. */
  readonly fromMeaning?: string;
  readonly toMeaning?: string;
  /** Hardware looks at the field neither before nor after. */
  readonly ignored?: true;
}

/** Stores that may become visible in any order, and the invalidation that ends them. */
export interface DiffStep {
  readonly writes: readonly { readonly qword: number; readonly value: string }[];
  readonly sync: true;
}

/** From one entry to another. */
export interface EntryDiff {
  readonly kind: 'ste' | 'cd';
  readonly changes: readonly FieldChange[];
  /** V stays 1 from the first store to the last, both ends included; an unchanged entry is hitless. */
  readonly hitless: boolean;
  /** Number of steps; each ends with one invalidation and CMD_SYNC. */
  readonly syncs: number;
  readonly steps: readonly DiffStep[];
  /** What the change does, in sentences. */
  readonly effects: readonly string[];
  /** Commands that are needed, in order. */
  readonly commands: readonly string[];
  /** What is illegal about the new entry. */
  readonly problems: readonly DecodedProblem[];
}

/** Bits that hardware uses by the specification, and those that Linux takes as used: neither may tear. */
const either = (a: Words, b: Words): Words => a.map((word, i) => word | (b[i] ?? 0));

const NOTHING_SAFE = CD.zero();

function changesOf(layout: Layout, kind: 'ste' | 'cd', from: Words, to: Words, caps: Caps | undefined): FieldChange[] {
  const [before, after] = [from, to].map((words) => decode(kind, words, { caps }).fields);
  return layout.names.flatMap((name) => {
    const [a, b] = [layout.get(from, name), layout.get(to, name)];
    if (a === b) return [];
    const old = before?.find((field) => field.name === name);
    const now = after?.find((field) => field.name === name);
    const ignored = old?.ignored === true && now?.ignored === true;
    return [
      {
        name,
        bits: layout.bits(name),
        from: hex(a),
        to: hex(b),
        ...(old?.meaning === undefined ? {} : { fromMeaning: old.meaning }),
        ...(now?.meaning === undefined ? {} : { toMeaning: now.meaning }),
        ...(ignored ? { ignored: true as const } : {}),
      },
    ];
  });
}

function steEffects(from: Words, to: Words, changed: ReadonlySet<string>): string[] {
  const effects: string[] = [];
  const [was, is] = [from, to].map((words) =>
    STE.num(words, 'V') === 0 ? 'invalid (C_BAD_STE)' : (STE.valueName('Config', STE.get(words, 'Config')) ?? ''),
  );
  if (was !== is) effects.push(`the stream goes from ${was} to ${is}`);
  const both = STE.num(from, 'V') === 1 && STE.num(to, 'V') === 1;
  if (!both) return effects;
  if (changed.has('S2VMID'))
    effects.push(
      `translations are tagged with VMID ${STE.num(to, 'S2VMID')}; those of VMID ${STE.num(from, 'S2VMID')} stay in the TLB until they are invalidated`,
    );
  if (changed.has('S2TTB') && s2Enabled(from) && s2Enabled(to))
    effects.push('stage 2 walks start at another table; the same VMID must not name both');
  if (changed.has('S1ContextPtr') && s1Enabled(from) && s1Enabled(to)) effects.push('stage 1 uses other CDs');
  if (changed.has('EATS'))
    effects.push(
      `ATS goes from ${STE.valueName('EATS', STE.get(from, 'EATS'))} to ${STE.valueName('EATS', STE.get(to, 'EATS'))}`,
    );
  if (changed.has('S1DSS') && s1Enabled(to)) effects.push('transactions without a SubstreamID are treated otherwise');
  return effects;
}

function steCommands(from: Words, changed: ReadonlySet<string>, syncs: number): string[] {
  if (syncs === 0) return [];
  const commands = [`CMD_CFGI_STE StreamID=SID Leaf=1, CMD_SYNC: after each of the ${syncs} steps`];
  const live = STE.num(from, 'V') === 1;
  const vmid = STE.num(from, 'S2VMID');
  const tagged = live && s2Enabled(from) && [...changed].some((name) => name === 'Config' || steFieldInTlb(name));
  if (tagged)
    commands.push(`CMD_TLBI_S12_VMALL VMID=${vmid}, CMD_SYNC: before VMID ${vmid} or its tables are used again`);
  else if (live && s1Enabled(from) && (changed.has('Config') || changed.has('S1ContextPtr') || changed.has('V')))
    commands.push(
      'CMD_TLBI_NH_ASID for the ASIDs of CDs that no stream reaches any more, CMD_SYNC: before they are reused',
    );
  const ats = live && STE.num(from, 'EATS') !== 0 && (s1Enabled(from) || s2Enabled(from));
  if (ats) commands.push('CMD_ATC_INV StreamID=SID Size=52, CMD_SYNC: the device may hold old translations');
  return commands;
}

function cdEffects(from: Words, to: Words, changed: ReadonlySet<string>): string[] {
  const [was, is] = [CD.num(from, 'V'), CD.num(to, 'V')];
  if (was !== is) return [is === 1 ? 'the CD comes into use' : 'the CD goes out of use: C_BAD_CD'];
  if (was === 0) return [];
  const effects: string[] = [];
  const [old, now] = [CD.num(from, 'ASID'), CD.num(to, 'ASID')];
  if (old !== now)
    effects.push(`translations are tagged with ASID ${now}; those of ASID ${old} stay until they are invalidated`);
  if (changed.has('TTB0') || changed.has('TTB1')) effects.push('walks start at another table');
  if (['A', 'R', 'S'].some((name) => changed.has(name))) effects.push('faults are answered or recorded otherwise');
  return effects;
}

function cdCommands(from: Words, changed: ReadonlySet<string>, syncs: number): string[] {
  if (syncs === 0) return [];
  const commands = [
    `CMD_CFGI_CD StreamID=SID SubstreamID=SSID Leaf=1, CMD_SYNC: after each of the ${syncs} steps, for each StreamID`,
  ];
  const stale = CD.num(from, 'V') === 1 && (changed.has('V') || [...changed].some((name) => cdFieldInTlb(name)));
  const asid = CD.num(from, 'ASID');
  if (stale)
    commands.push(
      `CMD_TLBI_NH_ASID VMID=VMID ASID=${asid}, CMD_SYNC: before ASID ${asid} or its tables are used again`,
    );
  return commands;
}

/**
 * What changes between two STEs or two CDs, and the stores by which a driver gets from one to the other without
 * hardware ever seeing a mixture. Bits count as used if hardware uses them or Linux takes them as used.
 * @param caps the SMMU; without it, all features count as present
 */
export function diffEntries(kind: 'ste' | 'cd', from: Words, to: Words, caps?: Caps): EntryDiff {
  const ste = kind === 'ste';
  const layout: Layout = ste ? STE : cdLayout(caps);
  const used = ste
    ? (words: Words) => either(steUsed(words, caps), linuxSteUsed(words))
    : (words: Words) => either(cdUsed(words, caps), linuxCdUsed(words));
  const plan = planEntryUpdate(from, to, used, ste ? linuxSteSafe : () => NOTHING_SAFE);
  const changes = changesOf(layout, kind, from, to, caps);
  const changed = new Set(changes.map(({ name }) => name));
  const syncs = plan.steps.length;
  return {
    kind,
    changes,
    hitless: plan.hitless,
    syncs,
    steps: plan.steps.map(({ writes, sync }) => ({
      writes: writes.map(({ qword, value }) => ({ qword, value: hex(value) })),
      sync,
    })),
    effects: ste ? steEffects(from, to, changed) : cdEffects(from, to, changed),
    commands: ste ? steCommands(from, changed, syncs) : cdCommands(from, changed, syncs),
    problems: decode(kind, to, { caps }).problems,
  };
}
