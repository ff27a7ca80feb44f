/** Who uses which VMID and ASID, and where two users of one tag do not agree (IHI 0070 3.17, 5.2.1, 5.4.1). */
import type { Caps } from '../../spec/caps.ts';
import { CD } from '../../spec/cd.ts';
import type { Layout, Words } from '../../spec/layout.ts';
import { STE } from '../../spec/ste.ts';
import { s1Enabled, s2Enabled, streamWorld, vmidUsed } from '../../spec/stream-world.ts';
import { cdFieldIgnored, cdLayout, steFieldIgnored } from '../../spec/used.ts';
import type { DumpCd, DumpProblem, DumpStream } from './dump.ts';
import { hex } from './record.ts';
import { cdFieldInTlb, steFieldInTlb } from './tlb-fields.ts';
import { wordsOfHex } from './words.ts';

/** Users of a VMID. */
export interface VmidUse {
  readonly vmid: number;
  readonly sids: readonly number[];
  /** Addresses of the stage 2 tables that go by it: "0x..", none if stage 1 alone translates. */
  readonly tables: readonly string[];
}

/** Users of an ASID in one translation regime. */
export interface AsidUse {
  readonly asid: number;
  readonly vmid?: number;
  readonly world: string;
  readonly users: readonly { readonly sid: number; readonly ssid: number }[];
}

/** Tags, and conflicts between their users. */
export interface TagUse {
  readonly vmids: readonly VmidUse[];
  readonly asids: readonly AsidUse[];
  readonly problems: readonly DumpProblem[];
}

const sidList = (sids: readonly number[]): string =>
  sids.slice(0, 8).map(hex).join(', ') + (sids.length > 8 ? ', ...' : '');

/** The first field in which two records differ although hardware looks at it in one of them. */
function differing(
  layout: Layout,
  a: Words,
  b: Words,
  cached: (name: string) => boolean,
  ignored: (name: string, words: Words) => boolean,
): string | undefined {
  return layout.names.find(
    (name) => cached(name) && layout.get(a, name) !== layout.get(b, name) && !(ignored(name, a) && ignored(name, b)),
  );
}

/** Groups by key, in order of first appearance. */
function groups<T>(all: readonly T[], keyOf: (one: T) => string | undefined): T[][] {
  const out = new Map<string, T[]>();
  for (const one of all) {
    const key = keyOf(one);
    if (key === undefined) continue;
    const group = out.get(key);
    if (group === undefined) out.set(key, [one]);
    else group.push(one);
  }
  return [...out.values()];
}

interface Stream {
  readonly sid: number;
  readonly words: Words;
  readonly cds: readonly DumpCd[];
}

function vmidProblems(vmid: number, streams: readonly Stream[], caps: Caps | undefined): DumpProblem[] {
  const nested = streams.filter(({ words }) => s2Enabled(words));
  const alone = streams.filter(({ words }) => !s2Enabled(words));
  const problems: DumpProblem[] = [];
  const [first, ...more] = nested;
  for (const { sid, words } of more) {
    const name =
      first === undefined
        ? undefined
        : differing(STE, first.words, words, steFieldInTlb, (field, ste) => steFieldIgnored(field, ste, caps));
    if (first !== undefined && name !== undefined)
      problems.push({
        rule: 'CFG-10',
        section: '5.2.1',
        message: `VMID ${vmid} is used by StreamID ${hex(first.sid)} and StreamID ${hex(sid)}, whose STEs differ in ${name}: one hits translations of the other`,
        sid,
      });
  }
  const [s1] = alone;
  if (s1 !== undefined && first !== undefined)
    problems.push({
      rule: 'CFG-12',
      section: '3.17',
      message: `VMID ${vmid} is used by StreamID ${sidList(alone.map(({ sid }) => sid))} without stage 2 and by StreamID ${sidList(nested.map(({ sid }) => sid))} with it: translations may bypass stage 2`,
      sid: s1.sid,
    });
  return problems;
}

interface CdUser {
  readonly sid: number;
  readonly ssid: number;
  readonly words: Words;
  readonly world: string;
  readonly vmid: number | undefined;
}

function cdProblems(users: readonly CdUser[], caps: Caps | undefined): DumpProblem[] {
  const [first, ...more] = users;
  if (first === undefined) return [];
  return more.flatMap((user) => {
    const name = differing(cdLayout(caps), first.words, user.words, cdFieldInTlb, (field, cd) =>
      cdFieldIgnored(field, cd, caps),
    );
    if (name === undefined) return [];
    const tag = `ASID ${CD.num(user.words, 'ASID')}${user.vmid === undefined ? '' : `, VMID ${user.vmid}`}`;
    const message = `${tag} is used by StreamID ${hex(first.sid)} and StreamID ${hex(user.sid)}, whose CDs differ in ${name}: one hits translations of the other`;
    return [{ rule: 'CFG-11', section: '5.4.1', message, sid: user.sid, ssid: user.ssid }];
  });
}

/** Tags of the valid streams of a dump. */
export function tagsOf(dumped: readonly DumpStream[], caps: Caps | undefined, e2h: boolean): TagUse {
  const known = caps ?? { S1P: true, S2P: true, Hyp: true };
  const streams: Stream[] = dumped
    .filter(({ ste }) => ste.valid)
    .map(({ sid, words, cds }) => ({ sid, words: wordsOfHex(words), cds: cds ?? [] }));
  const tagged = streams.filter(({ words }) => vmidUsed(words, known));
  const byVmid = groups(tagged, ({ words }) => `${STE.num(words, 'S2VMID')}`);
  const users: CdUser[] = streams.flatMap(({ sid, words, cds }) =>
    cds
      .filter(({ cd }) => cd.valid && s1Enabled(words))
      .map(({ ssid, words: cd }) => ({
        sid,
        ssid,
        words: wordsOfHex(cd),
        world: streamWorld(words, known, e2h) ?? 'none',
        vmid: vmidUsed(words, known) ? STE.num(words, 'S2VMID') : undefined,
      })),
  );
  const byAsid = groups(
    users,
    ({ world, vmid, words }) => `${world} ${vmid} ${world === 'NS-EL2' ? 0 : CD.num(words, 'ASID')}`,
  );
  const vmidOf = (group: readonly Stream[]): number => STE.num(group[0]?.words ?? STE.zero(), 'S2VMID');
  return {
    vmids: byVmid
      .map((group) => ({
        vmid: vmidOf(group),
        sids: group.map(({ sid }) => sid),
        tables: [
          ...new Set(
            group.filter(({ words }) => s2Enabled(words)).map(({ words }) => hex(STE.address(words, 'S2TTB'))),
          ),
        ],
      }))
      .sort((a, b) => a.vmid - b.vmid),
    asids: byAsid.map((group) => ({
      asid: CD.num(group[0]?.words ?? CD.zero(), 'ASID'),
      ...(group[0]?.vmid === undefined ? {} : { vmid: group[0].vmid }),
      world: group[0]?.world ?? 'none',
      users: group.map(({ sid, ssid }) => ({ sid, ssid })),
    })),
    problems: [
      ...byVmid.flatMap((group) => vmidProblems(vmidOf(group), group, caps)),
      ...byAsid.flatMap((group) => cdProblems(group, caps)),
    ],
  };
}
