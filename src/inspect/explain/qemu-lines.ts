/** QEMU's traces of its SMMUv3 (`-trace 'smmu*'`), old wordings and new. */
import { COMMANDS } from '../../../spec/commands.ts';
import { MIN_FOOTPRINT } from '../../../spec/registers.ts';
import { hex } from '../record.ts';
import { registerAt } from '../registers.ts';
import { CERRORS, gerrorText, type LineMeaning, type LineRule, rule } from './line-rule.ts';

const sidText = (sid: string): string => `StreamID ${hex(Number(sid))}`;

/** A StreamID as QEMU prints it: decimal or hexadecimal. */
const SID = '(0x[0-9a-fA-F]+|\\d+)';

const trace = (kind: string, summary: string): LineMeaning => ({ kind, summary, info: true });

/** QEMU's trace lines. */
export const QEMU: readonly LineRule[] = [
  rule(/smmuv3_cmdq_consume_error Error on (?:SMMU_)?(\w+) command execution: (\d+)/, ([, name = '', error]) => ({
    kind: 'qemu-error',
    summary: `QEMU refused ${name}: ${CERRORS[Number(error)] ?? `error ${error}`}`,
  })),
  rule(/smmuv3_unhandled_cmd Unhandled command type=(\d+)/, ([, type]) => ({
    kind: 'qemu-error',
    summary: `QEMU does not know command ${type}`,
  })),
  rule(
    /smmuv3_translate_abort .*?sid=(0x[0-9a-fA-F]+|\d+) abort on iova:(0x[0-9a-fA-F]+)/,
    ([, sid = '0', iova = '0']) => ({
      kind: 'qemu-abort',
      summary: `${sidText(sid)}: access to ${iova} was aborted by the STE`,
      sid: Number(sid),
      iova: BigInt(iova),
    }),
  ),
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
  rule(new RegExp(`smmuv3_cmdq_cfgi_ste streamid ?= ?${SID}`), ([, sid = '0']) =>
    trace('qemu cfgi_ste', `CMD_CFGI_STE: drop the STE and CDs of ${sidText(sid)}`),
  ),
  rule(/smmuv3_cmdq_cfgi_ste_range start=(0x[0-9a-fA-F]+) - end=(0x[0-9a-fA-F]+)/, ([, from, to]) =>
    trace('qemu cfgi_ste_range', `CMD_CFGI_STE_RANGE: drop the STEs and CDs of StreamID ${from} to ${to}`),
  ),
  rule(new RegExp(`smmuv3_cmdq_cfgi_cd (?:sid|streamid) ?= ?${SID}`), ([, sid = '0']) =>
    trace('qemu cfgi_cd', `CMD_CFGI_CD: drop a CD of ${sidText(sid)}`),
  ),
  rule(
    /smmuv3_(?:cmdq_tlbi_nh_va|range_inval|s1_range_inval) vmid ?= ?(-?\d+) asid ?= ?(-?\d+) addr=(0x[0-9a-fA-F]+)(?:.*num_pages=(0x[0-9a-fA-F]+))?/,
    ([, vmid, asid, addr, pages]) =>
      trace(
        'qemu tlbi_va',
        `drop translations of ${addr}${pages === undefined ? '' : `, ${Number(pages)} pages`} (VMID ${vmid}, ${asid === '-1' ? 'any ASID' : `ASID ${asid}`})`,
      ),
  ),
  rule(/smmuv3_cmdq_tlbi_nh_vaa vmid ?= ?(\d+) addr=(0x[0-9a-fA-F]+)/, ([, vmid, addr]) =>
    trace('qemu tlbi_vaa', `drop translations of ${addr}, any ASID (VMID ${vmid})`),
  ),
  rule(/smmuv3_cmdq_tlbi_nh_asid asid=(\d+)/, ([, asid]) =>
    trace('qemu tlbi_asid', `drop stage 1 translations of ASID ${asid}`),
  ),
  rule(/smmuv3_cmdq_tlbi_s12_vmid vmid ?= ?(\d+)/, ([, vmid]) =>
    trace('qemu tlbi_vmid', `drop stage 1 and stage 2 translations of VMID ${vmid}`),
  ),
  rule(/smmuv3_cmdq_tlbi_(nh|nsnh)\b/, ([, which]) =>
    trace(`qemu tlbi_${which}`, which === 'nh' ? 'drop stage 1 translations of a VMID' : 'drop all translations'),
  ),
  rule(new RegExp(`smmuv3_find_ste (?:sid|SID) ?[=:] ?${SID} features: ?(0x[0-9a-fA-F]+)`), ([, sid = '0']) =>
    trace('qemu find_ste', `the STE of ${sidText(sid)} is looked for`),
  ),
  rule(/smmuv3_(read|write)_mmio addr: (0x[0-9a-fA-F]+) val: ?(0x[0-9a-fA-F]+) size: (0x[0-9a-fA-F]+)/, (match) => {
    const [, how, addr = '0', value] = match;
    const name = registerAt(Number(BigInt(addr) % BigInt(MIN_FOOTPRINT)));
    return name === undefined ? undefined : trace(`qemu ${how} ${name}`, `${how} of ${name}: ${value}`);
  }),
  rule(/smmuv3_cmdq_consume prod=(\d+) cons=(\d+) prod.wrap=(\d) cons.wrap=(\d)/, ([, prod, cons, pw, cw]) =>
    trace(
      'qemu cmdq_consume',
      `command queue: PROD ${prod}, CONS ${cons}${prod !== cons ? '' : pw === cw ? ': empty' : ': full'}`,
    ),
  ),
  rule(
    /smmu_ptw_invalid_pte stage=(\d) level=(-?\d) .*?pte@=(0x[0-9a-fA-F]+).*? pte=(0x[0-9a-fA-F]+)/,
    ([, stage, level, at, pte]) =>
      trace('qemu ptw_invalid', `stage ${stage}: the level ${level} descriptor at ${at} is invalid: ${pte}`),
  ),
  rule(
    /smmu_ptw_(page|block)_pte stage=(\d) level=(-?\d) .*?pte=(0x[0-9a-fA-F]+).*? (?:page|block) address = (0x[0-9a-fA-F]+)/,
    ([, what, stage, level, pte, to]) =>
      trace(`qemu ptw_${what}`, `stage ${stage}: the level ${level} descriptor ${pte} leads to the ${what} at ${to}`),
  ),
  rule(/smmu_iotlb_inv_all\b/, () => trace('qemu iotlb_inv', 'all cached translations are dropped')),
];
