/** Error lines of the drivers that stand alone, in the words of arm-smmu-v3 and tegra241-cmdqv. */
import { hex } from '../record.ts';
import { CERRORS, fixed, gerrorText, type LineMeaning, type LineRule, rule } from './line-rule.ts';
import { QEMU } from './qemu-lines.ts';

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
  fixed(/CMD_SYNC timeout(?! at)/, 'sync-timeout', 'a CMD_SYNC was not done in time'),
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
  fixed(/retrying command fetch/, 'cmdq-retry', 'the command that could not be fetched is tried again'),
  rule(/ignoring unknown CMDQ opcode (0x[0-9a-fA-F]+)/, ([, opcode]) => ({
    kind: 'unknown-opcode',
    summary: `the driver asked itself for command ${opcode}, which it cannot build`,
  })),
  rule(
    /\bsid (0x[0-9a-fA-F]+)\.(0x[0-9a-fA-F]+): \[(\d+)(L?)\] (un)?privileged (R?W?X?) ?access at iova (0x[0-9a-fA-F]+)/,
    ([, sid = '0', ssid = '0', group, last, unprivileged, access, iova = '0']) => ({
      kind: 'page-request',
      summary: `page request of StreamID ${hex(Number(sid))}${Number(ssid) === 0 ? '' : `, SubstreamID ${hex(Number(ssid))}`}: ${unprivileged === undefined ? 'privileged' : 'unprivileged'} ${access} of ${hex(BigInt(iova))}, group ${group}${last === '' ? '' : ', the last of it'}; refused`,
      sid: Number(sid),
      iova: BigInt(iova),
      ...(Number(ssid) === 0 ? {} : { ssid: Number(ssid) }),
    }),
  ),
  fixed(
    /GBPA not responding to update/,
    'setup',
    'GBPA.Update stays set: the SMMU does not take the bypass attributes',
  ),
  rule(/smmu\S*: failed to (enable|disable|clear|setup|write) (\w[\w ]*\w)/, ([, verb, what]) => ({
    kind: 'setup',
    summary: `the SMMU did not answer while the driver wanted to ${verb} ${what}`,
  })),
  rule(/Aliasing StreamID (0x[0-9a-fA-F]+)/, ([, sid = '0']) => ({
    kind: 'alias',
    summary: `two devices send StreamID ${hex(Number(sid))}: one of them is not translated as it should be`,
    sid: Number(sid),
  })),
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
      summary: `${who.trim().replace(/:$/, '')} could not be ${verb}abled: STATUS ${status}${(Number(status) & 1) === 1 ? ', enabled' : ', not enabled'}, error ${(Number(status) >>> 1) & 7}`,
    }),
  ),
  rule(
    /((?:VINTF\d+: )?L?VCMDQ\d+[\w/]*): GERRORN=(0x[0-9a-fA-F]+), GERROR=(0x[0-9a-fA-F]+), CONS=(0x[0-9a-fA-F]+)/,
    ([, who, gerrorn = '0', gerror = '0', cons = '0']) => ({
      kind: 'vcmdq-state',
      summary: `${who}: ${Number(gerror) === Number(gerrorn) ? 'no active error' : `active error ${gerrorText(Number(gerror) ^ Number(gerrorn))}`}; CONS index ${Number(cons) & 0xfffff}, ${CERRORS[errorOf(Number(cons))] ?? `error ${errorOf(Number(cons))}`}`,
    }),
  ),
  rule(/((?:VINTF\d+: )?L?VCMDQ\d+[\w/]*): uncleared error detected, resetting/, ([, who]) => ({
    kind: 'vcmdq-state',
    summary: `${who}: an error of the queue's last user was still active; the driver cleared it`,
  })),
];

/** What a line says by itself, or undefined. */
export function lineMeaning(line: string): LineMeaning | undefined {
  for (const { test, meaning } of /\bsmmu(?:v3)?_[a-z]/.test(line) ? QEMU : DRIVER) {
    const match = test.exec(line);
    if (match !== null) return meaning(match);
  }
  return undefined;
}
