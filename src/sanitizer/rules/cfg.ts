import type { RuleInfo } from '../rule.ts';

const CANDIDATES = 'every value of each 64-bit word since the last completed CFGI, for each StreamID (and SubstreamID)';

/** Updates of STEs, CDs and the tables that lead to them. */
export const CFG_RULES: readonly RuleInfo[] = [
  {
    id: 'CFG-1',
    severity: 'H',
    section: '3.21.3, 3.21.3.1, 5.2.1, 5.4.1',
    broken:
      'A reachable STE or CD changed, and software relies on it before a CFGI of that StreamID (and SubstreamID) has completed.',
    observed: `${CANDIDATES}; reliance is an operation announced as done, or, where operations are not announced, a transaction of the stream (retries of stalled ones do not count)`,
  },
  {
    id: 'CFG-2',
    severity: 'H',
    section: '3.21.3',
    broken:
      'Some valid mixture of old and new words is functionally neither the old nor the new STE or CD. CFG-3 to CFG-5 name the common causes.',
    observed: `${CANDIDATES}; looked at when a CFGI is consumed and when software relies on the record. MEV, and EATS[0] while neither side splits or stalls, are not functional`,
  },
  {
    id: 'CFG-3',
    severity: 'H',
    section: '3.21.3.1 steps 3 to 7',
    broken: 'V becomes 1 without a completed CFGI since the other words were filled in while V was 0.',
    observed: 'as CFG-2, for an update from V=0 to V=1',
  },
  {
    id: 'CFG-4',
    severity: 'H',
    section: '3.21.3',
    broken: 'Two or more used 64-bit words change while V stays 1.',
    observed: 'as CFG-2, for an update during which V never was 0',
    undecidable: 'Whether a window with V=0 was promised not to happen is not known.',
  },
  {
    id: 'CFG-5',
    severity: 'F',
    section: '5.2.2, 5.4.2',
    broken: 'An STE or CD, or a mixture on its way, is ILLEGAL with V=1.',
    observed:
      'as CFG-2, with the legality rules of spec/legality. Fields of a nested STE that belong to the VM are not judged',
  },
  {
    id: 'CFG-6',
    severity: 'H',
    section: '4.3.1, 4.3.3, 5.1.1, 5.3.1',
    broken:
      'An L1STD or L1CD changed or became active, and only CFGI with Leaf=1, or none for its span, was completed before the tables are relied on or the old level 2 table is given back.',
    observed: 'stores to level 1 tables, Leaf of the CFGI commands, pages given back',
    undecidable: 'An L1CD that becomes active without CFGI_CD (Leaf=0) is not reported.',
  },
  {
    id: 'CFG-7',
    severity: 'H',
    section: '3.21.3',
    broken: 'Memory of a CD table is given back while an STE that a cache may hold leads to it.',
    observed: 'tables reached by all candidate images of STEs',
    needs: ['page'],
  },
  {
    id: 'CFG-8',
    severity: 'H',
    section: '5.4.1',
    broken: 'A CD that several streams reach changed, and CFGI_CD was not completed for each of them.',
    observed: 'streams that reach each CD table, the time of the last completed CFGI for each',
  },
  {
    id: 'CFG-9',
    severity: 'H',
    section: '3.21.2, 3.21.3.1',
    broken:
      'PROD, or what leads to a structure, is published before the store of the structure is visible: a CFGI or TLBI is consumed, or an L1STD, L1CD or Table descriptor can be followed, too early.',
    observed:
      'stores that a store buffer publishes after a command for them was consumed, or after a later store that leads to them',
    undecidable:
      'On a machine without a store buffer every store is visible at once and the rule cannot be broken. A missing cache clean with COHACC=0 cannot be seen: memory here is coherent.',
  },
  {
    id: 'CFG-10',
    severity: 'H',
    section: '5.2.1, 3.17.6',
    broken:
      'Two STEs, or candidate images of them, translate with stage 2 under one VMID and differ in a field that TLB entries hold.',
    observed: 'fields of 5.2.1 of all candidate images by VMID',
  },
  {
    id: 'CFG-11',
    severity: 'H',
    section: '5.4.1',
    broken:
      'Two CDs with equal StreamWorld, VMID and ASID differ in a field that TLB entries hold, when software relies on one of them.',
    observed: 'fields of 5.4.1 of all CDs by tag; streams with stage 1 alone',
    undecidable: 'CDs of a nested stream belong to the VM and are not judged.',
  },
  {
    id: 'CFG-12',
    severity: 'H',
    section: '3.17',
    broken: 'A stream with stage 1 alone and a nested stream share a VMID.',
    observed: 'Config and S2VMID of all candidate images. ASIDs of the VM are not known, so any may be equal',
  },
  {
    id: 'CFG-13',
    severity: 'F',
    section: '5.4.1',
    broken: 'STEs of different StreamWorlds reach one CD.',
    observed: 'StreamWorlds of the streams that reach each CD table',
  },
  {
    id: 'CFG-14',
    severity: 'H',
    section: '5.2.1, 5.4.1, 4.3.6',
    broken:
      'A field that TLB entries hold changed under a tag that stays in use, and no TLBI of the tag followed the completed CFGI when software relies on the stream.',
    observed: 'fields of 5.2.1 and 5.4.1 by tag, times of CFGI and TLBI',
    ordering: true,
  },
  {
    id: 'CFG-15',
    severity: 'H',
    section: '5.2.1',
    broken:
      'The StreamWorld of a stream changed and changed back without a TLBI of the tag, while what it translates changed.',
    observed:
      'tags left and entered again with entries left over and another configuration, in a stream whose StreamWorld changed between',
  },
  {
    id: 'CFG-16',
    severity: 'H',
    section: '3.17.5, 4.4.2.8',
    broken: 'CR2.E2H changed, and SMMUEN was set without a completed TLBI_EL2_ALL.',
    observed: 'writes of CR2, TLBI_EL2_ALL',
  },
  {
    id: 'CFG-17',
    severity: 'H',
    section: '5.2 CONT',
    broken: 'STEs of a CONT block differ in more than CONT.',
    observed: 'all STEs of the block, when a transaction or operation relies on one',
    undecidable: 'The hardware modelled here caches each STE by itself.',
  },
  {
    id: 'CFG-18',
    severity: 'H',
    section: '3.21.3, 6.3.11, 6.3.24',
    broken:
      'A Stream table register or a table attribute was written while SMMUEN=1, or changed while SMMUEN=0 without CFGI_ALL before the table is used.',
    observed: 'register writes, CFGI_ALL',
  },
  {
    id: 'CFG-19',
    severity: 'H',
    section: '3.11, 4.3.6',
    broken:
      'SMMUEN was set without completed CFGI_ALL, then TLBI_NSNH_ALL (and TLBI_EL2_ALL if there is EL2), since reset or takeover.',
    observed: 'commands completed before the update of CR0.SMMUEN',
    ordering: true,
  },
  {
    id: 'CFG-20',
    severity: 'H',
    section: '5.2.1',
    broken: 'A stream leaves translation, and its old tables or tags are given back without a TLBI of the old tag.',
    observed: '',
    undecidable: 'It is judged as VMID-2, ASID-2 and TLB-3, where what is given back is known.',
  },
  {
    id: 'CFG-21',
    severity: 'H',
    section: '3.4, 13.2',
    broken: 'A stream is left in bypass, or SMMUEN=0 with GBPA.ABORT=0, while its device belongs to a VM or user.',
    observed:
      'STEs whose Config in memory is bypass and GBPA, when the stream is announced as given to a VM ("page" and "vmid" say nothing about that)',
    needs: ['stream'],
  },
];
