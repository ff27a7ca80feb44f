/** What changed between two dumps: streams added, removed and changed. */
import type { Caps } from '../../spec/caps.ts';
import { diffEntries, type EntryDiff } from './diff.ts';
import type { Dump, DumpCd, DumpStream } from './dump.ts';
import { wordsOfHex } from './words.ts';

/** A dump and what to call it. */
export interface NamedDump {
  readonly name: string;
  readonly dump: Dump;
}

/** A CD of a stream that differs. */
export interface CdChange {
  readonly ssid: number;
  readonly what: 'added' | 'removed' | 'changed';
  readonly diff?: EntryDiff;
}

/** A stream that is in one dump alone. */
export interface StreamNote {
  readonly sid: number;
  readonly summary: string;
}

/** A stream that differs. */
export interface StreamChange {
  readonly sid: number;
  /** Absent if only CDs differ. */
  readonly ste?: EntryDiff;
  readonly cds: readonly CdChange[];
}

/** Two dumps compared. */
export interface DumpDiff {
  readonly from: string;
  readonly to: string;
  readonly added: readonly StreamNote[];
  readonly removed: readonly StreamNote[];
  readonly changed: readonly StreamChange[];
}

const same = (a: readonly string[], b: readonly string[]): boolean => a.join() === b.join();

function cdChanges(from: readonly DumpCd[], to: readonly DumpCd[], caps: Caps | undefined): CdChange[] {
  const before = new Map(from.map((cd) => [cd.ssid, cd]));
  const after = new Map(to.map((cd) => [cd.ssid, cd]));
  const ssids = [...new Set([...before.keys(), ...after.keys()])].sort((a, b) => a - b);
  return ssids.flatMap((ssid): CdChange[] => {
    const [old, now] = [before.get(ssid), after.get(ssid)];
    if (old === undefined) return [{ ssid, what: 'added' }];
    if (now === undefined) return [{ ssid, what: 'removed' }];
    if (same(old.words, now.words)) return [];
    return [{ ssid, what: 'changed', diff: diffEntries('cd', wordsOfHex(old.words), wordsOfHex(now.words), caps) }];
  });
}

function streamChange(old: DumpStream, now: DumpStream, caps: Caps | undefined): StreamChange[] {
  const cds = cdChanges(old.cds ?? [], now.cds ?? [], caps);
  const differs = !same(old.words, now.words);
  if (!differs && cds.length === 0) return [];
  const ste = differs ? { ste: diffEntries('ste', wordsOfHex(old.words), wordsOfHex(now.words), caps) } : {};
  return [{ sid: old.sid, ...ste, cds }];
}

/** Compares two dumps stream by stream. */
export function diffDumps(from: NamedDump, to: NamedDump, caps?: Caps): DumpDiff {
  const before = new Map(from.dump.streams.map((stream) => [stream.sid, stream]));
  const after = new Map(to.dump.streams.map((stream) => [stream.sid, stream]));
  const note = ({ sid, ste }: DumpStream): StreamNote => ({ sid, summary: ste.summary });
  return {
    from: from.name,
    to: to.name,
    added: to.dump.streams.filter(({ sid }) => !before.has(sid)).map(note),
    removed: from.dump.streams.filter(({ sid }) => !after.has(sid)).map(note),
    changed: from.dump.streams.flatMap((old) => {
      const now = after.get(old.sid);
      return now === undefined ? [] : streamChange(old, now, caps);
    }),
  };
}
