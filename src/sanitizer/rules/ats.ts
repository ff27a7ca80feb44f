import type { RuleInfo } from '../rule.ts';

const ATC =
  'atc(sid, ssid): set while the endpoint has ATS on and EATS lets it, cleared by CMD_ATC_INV of everything with its CMD_SYNC';

/** ATS and PRI. */
export const ATS_RULES: readonly RuleInfo[] = [
  {
    id: 'ATS-1',
    severity: 'H',
    section: '3.9.1, 4.5.1',
    broken:
      'A translation of an ATS stream was taken away, and the page given back or the unmap reported done without a completed CMD_ATC_INV for every stream that may cache it.',
    observed: `stale translations as for TLB-1; ${ATC}`,
    needs: ['page', 'operation'],
  },
  {
    id: 'ATS-2',
    severity: 'H',
    section: '3.9.1, 4.5.1',
    broken:
      'CMD_ATC_INV was consumed before the TLBI (or CFGI) that makes the endpoint see the new state had completed.',
    observed: 'times of TLBI, CFGI and ATC_INV for stale translations of ATS streams',
    needs: ['page', 'operation'],
    ordering: true,
  },
  {
    id: 'ATS-3',
    severity: 'F',
    section: '3.9.2',
    broken: 'The endpoint turned ATS on before an STE with EATS set had been made visible by CFGI and CMD_SYNC.',
    observed: "the endpoint's ATS enable, EATS of candidate images. An aborting STE with ATS on is not reported",
  },
  {
    id: 'ATS-4',
    severity: 'H',
    section: '3.9.2',
    broken: 'EATS went to 0, or the STE to bypass, while the endpoint has ATS on.',
    observed: "the endpoint's ATS enable, EATS of STEs once their CFGI has completed",
    undecidable: 'Linux sends CMD_ATC_INV after the STE, the specification before; both are accepted.',
  },
  {
    id: 'ATS-5',
    severity: 'H',
    section: '3.9.2',
    broken: 'EATS changed between full and split-stage without passing through 0.',
    observed: 'EATS of candidate images of one stream',
  },
  {
    id: 'ATS-6',
    severity: 'H',
    section: '3.9.2',
    broken: 'CR0.ATSCHK was cleared while an STE has split-stage ATS, or set while STEs with EATS set are in use.',
    observed: 'updates of CR0, EATS of candidate images',
  },
  {
    id: 'ATS-7',
    severity: 'H',
    section: '3.9.1, 4.5.1',
    broken: 'SMMUEN was cleared while an endpoint has ATS on, or CMD_ATC_INV was sent while SMMUEN=0.',
    observed: 'updates of CR0, CMD_ATC_INV, EATS of STEs in use',
  },
  {
    id: 'ATS-8',
    severity: 'H',
    section: '3.9.1.4',
    broken: 'CMD_ATC_INV timed out, the error was skipped, and what the endpoint may still use was given back.',
    observed: `CERROR_ATC_INV_SYNC; ${ATC}`,
    needs: ['page', 'operation'],
  },
  {
    id: 'ATS-9',
    severity: 'H',
    section: '4.5.1, 3.9.1',
    broken: 'CMD_ATC_INV carries a SubstreamID, and the translations were cached without one.',
    observed: 'CMD_ATC_INV against the streams that may cache a stale translation',
    needs: ['page', 'operation'],
  },
  {
    id: 'ATS-10',
    severity: 'H',
    section: '3.9.1',
    broken: 'A stage 2 unmap under nesting sent CMD_ATC_INV with a range of intermediate addresses.',
    observed: 'size of CMD_ATC_INV for stale stage 2 translations of nested streams',
    needs: ['page', 'operation'],
  },
  {
    id: 'ATS-11',
    severity: 'H',
    section: 'Linux arm_smmu_attach_dev_nested',
    broken: 'ATS is on under a translating vSTE whose VM believes it is off.',
    observed: '',
    undecidable: 'What the VM wrote into its vSTE is not visible on the hardware.',
  },
  {
    id: 'ATS-12',
    severity: 'H',
    section: '3.9.1.4',
    broken: 'A device was reset, removed or given to somebody else while its cache may hold translations.',
    observed: `${ATC}, when the stream is announced as given to another owner`,
    needs: ['stream'],
  },
  {
    id: 'ATS-13',
    severity: 'F',
    section: '8.1, 4.5.2',
    broken: 'A page request group was unanswered when the stream got another owner.',
    observed:
      'PRI records, CMD_PRI_RESP, also those that are in the queue when the stream is announced as given to another owner',
    needs: ['stream'],
  },
  {
    id: 'ATS-14',
    severity: 'H',
    section: '4.5.1',
    broken: 'A device with several StreamIDs got CMD_ATC_INV for some of them only.',
    observed: 'as ATS-1; streams of one endpoint',
    needs: ['page', 'operation'],
  },
];

/** Detach, faults, queues. */
export const DET_RULES: readonly RuleInfo[] = [
  {
    id: 'DET-1',
    severity: 'H',
    section: '3.12.2.2, 3.12.3, 4.3.8',
    broken: 'A stream was detached or got a new domain or owner with stalled transactions outstanding.',
    observed:
      'stalled transactions by stream, until CMD_RESUME or CMD_STALL_TERM is consumed; a detach or attach of the stream announced as done (stalls from before it began count), or the stream announced as given to another owner',
    needs: ['operation'],
  },
  {
    id: 'DET-2',
    severity: 'H',
    section: '3.12.3',
    broken:
      'CMD_RESUME (terminate) was followed by making the address valid before the transaction is known to be gone.',
    observed: '',
    undecidable: 'The hardware modelled here never retries a terminated transaction.',
  },
  {
    id: 'DET-3',
    severity: 'F',
    section: '4.7.1',
    broken: 'CMD_RESUME names a STAG that no visible event gave to the stream, or that was answered before.',
    observed: 'stalled transactions by stream and STAG',
  },
  {
    id: 'DET-4',
    severity: 'F',
    section: '5.2, 3.12.2.3',
    broken: 'S2S=1 for a stream of a device that must not be stalled.',
    observed: 'S2S of STEs in use, canStall of the firmware description, STALL_MODEL 0',
    undecidable: 'S1STALLD of a nested stream comes from the VM and is not judged.',
  },
  {
    id: 'DET-5',
    severity: 'O',
    section: '3.5, 7.2, 4.7.3',
    broken: 'Events of the old owner are delivered to the new one.',
    observed: '',
    undecidable: 'To whom an event is delivered is not visible on the hardware.',
  },
  {
    id: 'DET-6',
    severity: 'H',
    section: '3.21.3',
    broken: 'A detach was reported done while the CFGI of its STE has not completed, or the STE is what it was.',
    observed: 'as CFG-1, for operations whose name begins with "detach"; stores to the STE since it was attached',
    needs: ['operation'],
  },
  {
    id: 'DET-7',
    severity: 'H',
    section: '3.19',
    broken: 'The SMMU was switched off, or a stream to bypass, while its device does DMA.',
    observed: '',
    undecidable: 'Whether a device is quiet is known to its driver only.',
  },
  {
    id: 'DET-8',
    severity: 'H',
    section: '3.21.2, 3.5.1',
    broken: 'Memory of an enabled queue was given back, or PROD moved so that it does not fit CONS.',
    observed: 'queue registers, pages given back',
    needs: ['page'],
  },
  {
    id: 'DET-9',
    severity: 'H',
    section: 'Linux arm_smmu_attach_commit_vmaster',
    broken: 'A vSID map or the ownership of a StreamID changed before the old STE was gone.',
    observed:
      'images of the STE when the stream is announced as given to another owner; StreamIDs of CMD_CFGI_CD and CMD_ATC_INV on the own queue while commands of a VM are announced to be handed over',
    needs: ['stream'],
    undecidable:
      'Where no operation is announced to begin, an STE that translates is taken for the new one: then only images that a cache may keep are judged. The map of a VINTF is judged as CMDQV-4 to CMDQV-6.',
  },
  {
    id: 'DET-10',
    severity: 'H',
    section: 'Linux arm_smmu_validate_vste',
    broken: "Bits of a VM's STE that it must not choose reach the hardware.",
    observed: 'STRW and MTCFG of nested STEs',
    undecidable:
      'EATS=SPLIT may be the choice of the host. Stage 2 fields of a nested STE that differ from those of others with the VMID are CFG-10.',
  },
];
