/** Lines of logs that stand alone: drivers' error lines, QEMU's traces. */
import { COMMANDS } from '../../../spec/commands.ts';
import type { Register } from '../../../spec/layout.ts';
import { GERROR } from '../../../spec/registers/interrupts.ts';

/** What a line was recognised as. */
export interface LineMeaning {
  /** Key of the advice, or of repeated traces. */
  readonly kind: string;
  readonly summary: string;
  /** A mere trace: no error. */
  readonly info?: true;
}

interface LineRule {
  readonly test: RegExp;
  readonly meaning: (match: RegExpExecArray) => LineMeaning | undefined;
}

const rule = (test: RegExp, meaning: (match: RegExpExecArray) => LineMeaning | undefined): LineRule => ({
  test,
  meaning,
});

const fixed = (test: RegExp, kind: string, summary: string): LineRule => rule(test, () => ({ kind, summary }));

/** Active errors of a GERROR value in words. */
function gerrorText(value: number): string {
  const table: Register = GERROR;
  const active = table.names.filter((name) => table.field(name).reserved === undefined && table.of(value, name) !== 0);
  const place = (name: string): number => table.slot(name).shift;
  return active.length === 0 ? 'no known bit' : active.sort((a, b) => place(a) - place(b)).join(', ');
}

/** Why the command queue stopped, by CMDQ_CONS.ERR. */
const CERRORS: Readonly<Record<number, string>> = {
  0: 'no error',
  1: 'CERROR_ILL: an illegal command',
  2: 'CERROR_ABT: the command could not be fetched',
  3: 'CERROR_ATC_INV_SYNC: a device did not answer an ATC invalidation',
};

/** Index bits, and bits of an error, of a queue register as Linux prints it. */
const errorOf = (cons: number): number => (cons >>> 24) & 0x7f;

function bitsOf(hex: string): number[] {
  const value = BigInt(`0x${hex.replace(/:/g, '')}`);
  return Array.from({ length: value.toString(2).length }, (_, bit) => bit).filter(
    (bit) => ((value >> BigInt(bit)) & 1n) === 1n,
  );
}

const listBits = (name: string, hex: string): string => {
  const bits = bitsOf(hex);
  return bits.length === 0 ? `no ${name}` : `${name} ${bits.join(', ')}`;
};

const DRIVER: readonly LineRule[] = [
  fixed(/EVTQ overflow detected/, 'evtq-overflow', 'the event queue was full: events were lost'),
  fixed(/PRIQ overflow detected/, 'priq-overflow', 'the PRI queue was full: page requests were lost'),
  rule(/unexpected global error reported \((0x[0-9a-fA-F]+)\)/, ([, value = '0']) => ({
    kind: 'gerror',
    summary: `GERROR ${value}: ${gerrorText(Number(value))}`,
  })),
  fixed(
    /device has entered Service Failure Mode/,
    'service-failure',
    'SFM_ERR: the SMMU has stopped (service failure mode)',
  ),
  rule(/(GERROR|PRIQ|EVTQ|CMDQ) MSI write aborted/, ([, queue]) => ({
    kind: 'msi-abort',
    summary: `the write of the ${queue} interrupt message was aborted`,
  })),
  rule(/(PRIQ|EVTQ) write aborted/, ([, queue]) => ({
    kind: 'queue-abort',
    summary: `writing the ${queue} was aborted: records may be lost`,
  })),
  rule(/CMDQ error \(cons (0x[0-9a-fA-F]+)\)/, ([, cons = '0']) => ({
    kind: 'cmdq-error',
    summary: `command queue stopped at index ${Number(cons) & 0xfffff}: ${CERRORS[errorOf(Number(cons))] ?? `error ${errorOf(Number(cons))}`}`,
  })),
  rule(
    /CMD_SYNC timeout at (0x[0-9a-fA-F]+)(?: \[hwprod (0x[0-9a-fA-F]+), hwcons (0x[0-9a-fA-F]+)\])?/,
    ([, at = '0', prod, cons]) => {
      if (prod === undefined || cons === undefined)
        return { kind: 'sync-timeout', summary: `a CMD_SYNC was not done in time (queue index ${at})` };
      const error = errorOf(Number(cons));
      const where =
        Number(prod) === Number(cons)
          ? 'the queue is empty now: it was slow, not stuck'
          : `CONS ${cons} has not reached PROD ${prod}`;
      return {
        kind: 'sync-timeout',
        summary: `the CMD_SYNC before ${at} was not done in time: ${where}${error === 0 ? '' : `; ${CERRORS[error] ?? `error ${error}`}`}`,
      };
    },
  ),
  fixed(/\bCMDQ timeout\b/, 'cmdq-timeout', 'no room in the command queue in time'),
  rule(
    /unexpected error reported\. vintf_map: ([0-9a-fA-F]{16}), vcmdq_map:? ([0-9a-fA-F:]{16,})/,
    ([, vintf = '0', vcmdq = '0']) => ({
      kind: 'cmdqv-error',
      summary: `CMDQV error: ${listBits('VINTF', vintf)}; ${listBits('VCMDQ', vcmdq)}`,
    }),
  ),
  rule(
    /\b((?:CMDQV|VINTF\d+|L?VCMDQ\d+)[\w/: ]*: )failed to (en|dis)able, STATUS=(0x[0-9a-fA-F]+)/,
    ([, who = '', verb, status = '0']) => ({
      kind: 'cmdqv-config',
      summary: `${who.trim().replace(/:$/, '')} could not be ${verb}abled: STATUS ${status}${(Number(status) & 1) === 1 ? ', still enabled' : ', not enabled'}, error ${(Number(status) >>> 1) & 7}`,
    }),
  ),
];

const sidText = (sid: string): string => `StreamID 0x${Number(sid).toString(16)}`;

const trace = (kind: string, summary: string): LineMeaning => ({ kind, summary, info: true });

const QEMU: readonly LineRule[] = [
  rule(/smmuv3_cmdq_consume_error Error on (?:SMMU_)?(\w+) command execution: (\d+)/, ([, name = '', error]) => ({
    kind: 'qemu-error',
    summary: `QEMU refused ${name}: ${CERRORS[Number(error)] ?? `error ${error}`}`,
  })),
  rule(/smmuv3_unhandled_cmd Unhandled command type=(\d+)/, ([, type]) => ({
    kind: 'qemu-error',
    summary: `QEMU does not know command ${type}`,
  })),
  rule(/smmuv3_translate_abort .*?sid=(0x[0-9a-fA-F]+|\d+) abort on iova:(0x[0-9a-fA-F]+)/, ([, sid = '0', iova]) => ({
    kind: 'qemu-abort',
    summary: `${sidText(sid)}: access to ${iova} was aborted by the STE`,
  })),
  rule(/smmuv3_write_gerror toggled=(0x[0-9a-fA-F]+)/, ([, toggled = '0']) => ({
    kind: 'gerror',
    summary: `QEMU set GERROR: ${gerrorText(Number(toggled))}`,
  })),
  rule(/smmuv3_cmdq_opcode <--- (?:SMMU_)?(\w+)/, ([, name = '']) => {
    const known = Object.entries(COMMANDS).find(([one]) => one === name);
    return trace(`qemu ${name}`, `the guest sent ${name}${known === undefined ? '' : `: ${known[1].text}`}`);
  }),
  rule(
    /smmuv3_translate_success .*?sid=(0x[0-9a-fA-F]+|\d+) iova=(0x[0-9a-fA-F]+) translated=(0x[0-9a-fA-F]+)/,
    ([, sid = '0', iova, pa]) => trace('qemu translate_success', `${sidText(sid)}: ${iova} leads to ${pa}`),
  ),
  rule(/smmuv3_translate_(bypass|disable) .*?sid=(0x[0-9a-fA-F]+|\d+)/, ([, how, sid = '0']) =>
    trace(
      `qemu translate_${how}`,
      `${sidText(sid)} is not translated: ${how === 'bypass' ? 'its STE says bypass' : 'the SMMU is off'}`,
    ),
  ),
  rule(/smmuv3_config_cache_(hit|miss|inv)\b/, ([, what]) =>
    trace(
      `qemu cache_${what}`,
      { hit: 'STE and CD were cached', miss: 'STE and CD are read from memory', inv: 'cached STE and CD are dropped' }[
        what ?? ''
      ] ?? '',
    ),
  ),
  rule(/smmuv3_get_(ste|cd) \w+ addr: (0x[0-9a-fA-F]+)/, ([, what = '', addr]) =>
    trace(`qemu get_${what}`, `the ${what.toUpperCase()} is read at ${addr}`),
  ),
  rule(/smmuv3_decode_cd_tt TT\[(\d)\]:tsz:(\d+) ttb:(0x[0-9a-fA-F]+)/, ([, n, tsz = '0', ttb]) =>
    trace('qemu decode_cd_tt', `TTB${n} at ${ttb}, ${64 - Number(tsz)}-bit input`),
  ),
];

/** What a line says by itself, or undefined. */
export function lineMeaning(line: string): LineMeaning | undefined {
  for (const { test, meaning } of line.includes('smmuv3_') ? QEMU : DRIVER) {
    const match = test.exec(line);
    if (match !== null) return meaning(match);
  }
  return undefined;
}
