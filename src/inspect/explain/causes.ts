/** What usually lies behind an event or an error, most likely first, and what to look at next. */

/** Advice about one kind of finding. `{sid}`, `{ssid}`, `{iova}` and `{access}` stand for what the record says. */
export interface Advice {
  readonly likely: readonly string[];
  readonly next: readonly string[];
}

const TRANSLATE = 'smmulab translate IMAGE --sid {sid}{ssid} --iova {iova}{access}';
const DUMP = 'smmulab dump IMAGE --sid {sid}';

/** Advice by name of event (IHI 0070 7.3). */
export const EVENT_ADVICE: Readonly<Record<string, Advice>> = {
  F_UUT: {
    likely: [
      'the device or a bridge sent a kind of access that the SMMU does not take',
      'a broken interconnect set-up',
    ],
    next: ['the manual of the SoC: which accesses of this StreamID reach the SMMU'],
  },
  C_BAD_STREAMID: {
    likely: [
      'firmware (IORT, device tree iommu-map) gives another StreamID than the device uses',
      'an alias behind a PCIe-to-PCI bridge',
      'a device that no driver has attached, with a two-level table',
    ],
    next: ['compare the StreamID with the PCI requester ID (bus << 8 | device << 3 | function) and with IORT', DUMP],
  },
  F_STE_FETCH: {
    likely: ['STRTAB_BASE or an L1STD points to memory that is not there', 'the table was freed or overwritten'],
    next: ['is the address in the record in RAM?', DUMP],
  },
  C_BAD_STE: {
    likely: [
      'the device was never attached: its STE is invalid',
      'the device does DMA after it was detached',
      'a field is not legal on this SMMU',
    ],
    next: [`${DUMP} --all: V, Config, and which rule is broken`],
  },
  F_BAD_ATS_TREQ: {
    likely: [
      'ATS is on in the device but off in its STE (EATS)',
      'the device was reset or reassigned with ATS left on',
    ],
    next: ['lspci -vvv: ATSCtl of the device', DUMP],
  },
  F_STREAM_DISABLED: {
    likely: [
      'an access without PASID on a stream whose STE (S1DSS) allows none',
      'an access with PASID 0 where PASID 0 is reserved',
    ],
    next: [`${DUMP}: S1DSS and S1CDMax`],
  },
  F_TRANSL_FORBIDDEN: {
    likely: [
      'the device uses an address it translated earlier by ATS, after ATS was turned off',
      'a device that pretends its addresses are translated',
    ],
    next: ['lspci -vvv: ATSCtl of the device', `${DUMP}: EATS`],
  },
  C_BAD_SUBSTREAMID: {
    likely: [
      'the device uses a PASID that was never bound, or was released',
      'the PASID is larger than the CD table',
      'the stream has no stage 1',
    ],
    next: [`${DUMP}: S1CDMax and the CDs`],
  },
  F_CD_FETCH: {
    likely: [
      'the CD table was freed while its STE was still in use',
      'in a VM: the guest gave an address that is no RAM',
    ],
    next: ['is the address in the record in RAM?', DUMP],
  },
  C_BAD_CD: {
    likely: [
      'the PASID was released while the device still used it',
      'the CD is not legal on this SMMU (sizes, granule, ASID width)',
      'in a VM: the guest wrote a CD that its SMMU would refuse, too',
    ],
    next: [`${DUMP}: the CD and which rule is broken`],
  },
  F_WALK_EABT: {
    likely: [
      'a translation table was freed while the SMMU could still walk it',
      'a table entry was overwritten: its address is no RAM',
    ],
    next: [TRANSLATE],
  },
  F_TRANSLATION: {
    likely: [
      'the driver unmapped the buffer too early, or the device went on too long',
      'the device was given a physical address, or an address of another device',
      'the driver never mapped the buffer, or mapped less than the device uses',
      'the address is out of the range of the tables',
    ],
    next: [TRANSLATE, 'dma-debug (CONFIG_DMA_API_DEBUG) for use after unmap'],
  },
  F_ADDR_SIZE: {
    likely: [
      'a table entry was overwritten',
      'tables made for larger addresses than CD.IPS or STE.S2PS allows',
      'without stage 1: the device uses an address beyond what the SMMU passes on',
    ],
    next: [TRANSLATE],
  },
  F_ACCESS: {
    likely: [
      'tables shared with a CPU (SVA): the page was not touched lately and hardware does not set the flag',
      'tables made without the Access flag',
    ],
    next: [TRANSLATE],
  },
  F_PERMISSION: {
    likely: [
      'the buffer was mapped with the wrong direction: DMA_TO_DEVICE, and the device writes',
      'a read-only guest page at stage 2',
      'a privileged or instruction access where none is allowed',
    ],
    next: [TRANSLATE],
  },
  F_TLB_CONFLICT: {
    likely: ['a block was split or joined without break-before-make', 'two tables go by the same VMID or ASID'],
    next: ['smmulab dump IMAGE: problems CFG-10 to CFG-12'],
  },
  F_CFG_CONFLICT: {
    likely: ['STE.CONT promises equal neighbours that differ'],
    next: [DUMP],
  },
  E_PAGE_REQUEST: {
    likely: ['a hint of the device that it will need a page'],
    next: ['nothing: no answer is expected'],
  },
  F_VMS_FETCH: { likely: ['STE.VMSPtr points to memory that is not there'], next: [DUMP] },
};

/** Advice by kind of line that is no event. */
export const LINE_ADVICE: Readonly<Record<string, Advice>> = {
  'evtq-overflow': {
    likely: [
      'a device faults in a loop, faster than events are read',
      'the interrupt of the event queue does not arrive',
    ],
    next: [
      'the first events before this line: what comes later is a consequence',
      '/proc/interrupts: arm-smmu-v3-evtq',
    ],
  },
  'priq-overflow': {
    likely: ['more page requests than the queue holds: the device was given more credits (PRI) than it has entries'],
    next: ['lspci -vvv: outstanding page request allocation of the devices'],
  },
  gerror: {
    likely: ['see the lines that follow: each active bit of GERROR has one'],
    next: ['the first error; the others may follow from it'],
  },
  'service-failure': {
    likely: ['an internal error of the SMMU: it stopped for good (SFM)'],
    next: ['RAS records of the platform; only a reset helps'],
  },
  'msi-abort': {
    likely: [
      'the MSI address is not writable for the SMMU',
      'the SMMU is behind another translation that does not map the doorbell',
    ],
    next: ['wired interrupts of the SMMU, if there are any', 'the address in the *_IRQ_CFG0 register'],
  },
  'queue-abort': {
    likely: [
      'the memory of the queue is not writable for the SMMU',
      'the queue was freed, or its base register overwritten',
    ],
    next: ['smmulab dump IMAGE: where the queue lies'],
  },
  'cmdq-error': {
    likely: [
      'ILL: a command that this SMMU does not have, or a reserved value in it; from a VM, a command passed on unchecked',
      'ABT: the queue memory is not readable',
      'ATC invalidate timeout: a device does not answer (link down, hung, unplugged)',
    ],
    next: ['the command that is printed next', 'for an ATC timeout: lspci of the device, AER messages'],
  },
  'sync-timeout': {
    likely: [
      'a device does not answer an ATC invalidation: hwcons stands at the CMD_SYNC',
      'the SMMU lost its clock or power',
      'a command error nobody acknowledged: hwcons has an error code',
      'prod and cons inconsistent: the queue register was overwritten',
    ],
    next: ['smmulab dump IMAGE: which commands wait', 'AER and link state of ATS devices'],
  },
  'cmdq-timeout': {
    likely: ['as a CMD_SYNC timeout: the SMMU does not take commands any more, and the queue is full'],
    next: ['smmulab dump IMAGE: which command stands at CONS'],
  },
  'cmdq-retry': {
    likely: ['see the command queue error before it'],
    next: ['smmulab dump IMAGE: whether the queue lies in RAM'],
  },
  'unknown-opcode': { likely: ['a bug of the driver'], next: ['which kernel, and which patches it carries'] },
  'page-request': {
    likely: [
      'the device has PRI enabled, and no driver of this kernel answers page requests of it',
      'a PASID that was released while the device still used it',
    ],
    next: ['lspci -vvv: PRICtl of the device', DUMP],
  },
  setup: {
    likely: ['the SMMU has no clock or power', 'firmware left it in a state that it cannot leave (RAS error, SFM)'],
    next: ['the register that does not answer: CR0ACK, IRQ_CTRLACK or GBPA', 'power domain and clocks of the SMMU'],
  },
  alias: {
    likely: ['firmware (IORT, device tree) gives two devices one StreamID', 'devices behind a PCIe-to-PCI bridge'],
    next: ['compare IORT with the PCI requester IDs'],
  },
  'vcmdq-state': {
    likely: ['a command the queue does not take', 'an ATC invalidation without an answer'],
    next: ['the lines before it: which VINTF and VCMDQ reported the error'],
  },
  'cmdqv-error': {
    likely: [
      'vintf bit 0: a command that VINTF0 does not take, or an ATC invalidation that timed out',
      'another bit: a VM sent such a command in its own queue',
    ],
    next: ['the lines that follow for VINTF0; the vEVENTQ of the VM for the others'],
  },
  'cmdqv-config': {
    likely: [
      'the queue or interface did not change its state in time',
      'commands in flight that cannot complete: an ATC invalidation without an answer',
    ],
    next: ['STATUS bits: 0 enabled, 3:1 error'],
  },
  'qemu-error': {
    likely: ['the guest sent a command that QEMU does not implement, or one with a bad operand'],
    next: ['the smmuv3_cmdq_opcode line before it'],
  },
  'qemu-abort': { likely: ['the STE of the device says abort, or is invalid'], next: [DUMP] },
};
