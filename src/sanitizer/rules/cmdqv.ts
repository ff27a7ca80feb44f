import type { RuleInfo } from '../rule.ts';

const SOURCE = 'Linux tegra241-cmdqv.c';

/** Tegra241 CMDQV. */
export const CMDQV_RULES: readonly RuleInfo[] = [
  {
    id: 'CMDQV-1',
    severity: 'H',
    section: SOURCE,
    broken: 'An enabled VINTF carries a VMID that is free.',
    observed: 'VINTF_CONFIG, owners as announced',
    needs: ['vmid'],
  },
  {
    id: 'CMDQV-2',
    severity: 'H',
    section: SOURCE,
    broken: 'A stream that an enabled VINTF maps is tagged with another VMID than the VINTF has.',
    observed: 'SID_MATCH, SID_REPLACE, VINTF_CONFIG.VMID, S2VMID of the STE',
  },
  {
    id: 'CMDQV-3',
    severity: 'O',
    section: SOURCE,
    broken: 'Two enabled guest VINTFs carry one VMID.',
    observed: '',
    undecidable:
      'VINTFs of one stage 2 may share its VMID. Where they belong to two owners, that is found as VMID-5 or CFG-10.',
  },
  {
    id: 'CMDQV-4',
    severity: 'F',
    section: SOURCE,
    broken: 'A StreamID is given to another owner and stays mapped in a VINTF.',
    observed:
      'SID_MATCH, SID_REPLACE of enabled VINTFs, when the stream is announced as given to another owner, or its vDEVICE as destroyed',
    needs: ['stream'],
  },
  {
    id: 'CMDQV-5',
    severity: 'F',
    section: SOURCE,
    broken: 'SID_REPLACE was written while its SID_MATCH is enabled.',
    observed: 'writes of SID_MATCH and SID_REPLACE',
  },
  {
    id: 'CMDQV-6',
    severity: 'F',
    section: SOURCE,
    broken: 'Two enabled SID_MATCH of a VINTF have one virtual StreamID, or one physical StreamID is mapped twice.',
    observed: 'SID_MATCH and SID_REPLACE of enabled VINTFs',
  },
  {
    id: 'CMDQV-7',
    severity: 'H',
    section: SOURCE,
    broken: 'A device with ATS is attached through a vIOMMU with a VINTF and has no SID_MATCH.',
    observed: 'vDEVICEs of VINTFs as announced, SID_MATCH, EATS of the nested STE when its attach is announced as done',
    needs: ['operation'],
  },
  {
    id: 'CMDQV-8',
    severity: 'H',
    section: SOURCE,
    broken: 'A VINTF was disabled, or its VMID rewritten, while one of its VCMDQs is enabled.',
    observed: 'VINTF_CONFIG, VCMDQ_CONFIG, CMDQ_ALLOC',
  },
  {
    id: 'CMDQV-9',
    severity: 'F',
    section: SOURCE,
    broken: 'An LVCMDQ was unmapped while its VCMDQ is enabled, or mapped or unmapped out of order.',
    observed: 'CMDQ_ALLOC, VCMDQ_CONFIG',
  },
  {
    id: 'CMDQV-10',
    severity: 'F',
    section: SOURCE,
    broken: "A VCMDQ of a VM was disabled and handed on without a CMD_SYNC on the SMMU's own queue.",
    observed: 'VCMDQ_CONFIG, CMDQ_ALLOC, CMD_SYNC',
  },
  {
    id: 'CMDQV-11',
    severity: 'H',
    section: SOURCE,
    broken: 'Memory of an enabled VCMDQ was given back.',
    observed: 'VCMDQ_BASE, VCMDQ_CONFIG, pages given back',
    needs: ['page'],
  },
  {
    id: 'CMDQV-12',
    severity: 'H',
    section: SOURCE,
    broken: "A VINTF other than the host's is enabled with HYP_OWN.",
    observed: 'VINTF_CONFIG.HYP_OWN of VINTFs above 0',
  },
  {
    id: 'CMDQV-13',
    severity: 'H',
    section: SOURCE,
    broken: 'VMID of a VINTF was changed while it is enabled.',
    observed: 'VINTF_CONFIG',
  },
  {
    id: 'CMDQV-14',
    severity: 'H',
    section: SOURCE,
    broken: 'A CMD_SYNC on one queue was taken to complete invalidations of another.',
    observed: 'as TLB-11: a CMD_SYNC completed on another queue only',
    needs: ['page', 'operation'],
  },
  {
    id: 'CMDQV-CONS',
    severity: 'F',
    section: SOURCE,
    broken: 'VCMDQ_CONS was written while the VCMDQ is enabled.',
    observed: 'writes of VCMDQ_CONS',
    undecidable:
      "A write through page 0 of a VM's VINTF may be the VM's own, which it has the right to, and is not judged.",
  },
  {
    id: 'CMDQV-BASE',
    severity: 'F',
    section: SOURCE,
    broken: 'VCMDQ_BASE was written while the VCMDQ is enabled.',
    observed: 'writes of VCMDQ_BASE and VCMDQ_CONS_INDX_BASE',
  },
  {
    id: 'CMDQV-ALLOC',
    severity: 'F',
    section: SOURCE,
    broken: 'CMDQ_ALLOC of a VCMDQ was rewritten while it is allocated.',
    observed: 'writes of CMDQ_ALLOC',
  },
  {
    id: 'CMDQV-15',
    severity: 'H',
    section: SOURCE,
    broken: 'The parts of a VM were taken down in the wrong order.',
    observed: '',
    undecidable:
      'Each wrong order is judged by the rule about its effect: VMID-1 to VMID-4, CMDQV-1, CMDQV-4, CMDQV-8.',
  },
];
