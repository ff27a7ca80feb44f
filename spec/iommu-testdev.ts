/** The registers of QEMU's `iommu-testdev` PCI function (docs/specs/iommu-testdev.rst), BAR0, 32 bits each. */
import { layout, register } from './layout.ts';

const SECTION = 'QEMU iommu-testdev';
const at = (offset: number, text: string, access: 'RO' | 'RW' = 'RW') =>
  ({ offset, width: 32, access, section: SECTION, page: 'iommu-testdev', text }) as const;

export const ITD_RUN = register('ITD_RUN', at(0x00, 'reading it runs the DMA', 'RO'), {
  RES0_31_0: { bits: [31, 0], reserved: 'RES0' },
});
export const ITD_IOVA_LO = register('ITD_IOVA_LO', at(0x04, 'IOVA, low half'), { Value: { bits: [31, 0] } });
export const ITD_IOVA_HI = register('ITD_IOVA_HI', at(0x08, 'IOVA, high half'), { Value: { bits: [31, 0] } });
export const ITD_LENGTH = register('ITD_LENGTH', at(0x0c, 'bytes to write'), { Value: { bits: [31, 0] } });
export const ITD_RESULT = register('ITD_RESULT', at(0x10, 'result of the last run', 'RO'), {
  Value: {
    bits: [31, 0],
    values: {
      SUCCESS: 0,
      IDLE: 0xffffffff,
      ARMED: 0xfffffffe,
      ZERO_LENGTH: 0xdead0001,
      WRITE_FAILED: 0xdead0002,
      READ_BACK_FAILED: 0xdead0003,
      READ_BACK_DIFFERS: 0xdead0004,
      NOT_ARMED: 0xdead0005,
      BAD_ATTRIBUTES: 0xdead0006,
    },
  },
});
export const ITD_DOORBELL = register('ITD_DOORBELL', at(0x14, 'arms the next run'), {
  Arm: { bits: [0, 0] },
  RES0_31_1: { bits: [31, 1], reserved: 'RES0' },
});
export const ITD_ATTRIBUTES = register('ITD_ATTRIBUTES', at(0x18, 'attributes of the DMA'), {
  Secure: { bits: [0, 0] },
  Space: { bits: [2, 1], values: { SECURE: 0, NON_SECURE: 1 } },
  SpaceValid: { bits: [3, 3] },
  RES0_31_4: { bits: [31, 4], reserved: 'RES0' },
});
export const ITD_GPA_LO = register('ITD_GPA_LO', at(0x1c, 'physical address of the read-back, low half'), {
  Value: { bits: [31, 0] },
});
export const ITD_GPA_HI = register('ITD_GPA_HI', at(0x20, 'physical address of the read-back, high half'), {
  Value: { bits: [31, 0] },
});

/** All registers by offset. */
export const ITD_REGISTERS = [
  ITD_RUN,
  ITD_IOVA_LO,
  ITD_IOVA_HI,
  ITD_LENGTH,
  ITD_RESULT,
  ITD_DOORBELL,
  ITD_ATTRIBUTES,
  ITD_GPA_LO,
  ITD_GPA_HI,
] as const;

/** What a run writes, byte after byte, from the first: a little-endian 0x12345678. */
export const ITD_PATTERN = layout('ITD_PATTERN', { bytes: 4, section: SECTION }, { Value: { bits: [31, 0] } }).encode({
  Value: 0x12345678,
});
/** Vendor and device number: configuration word 0. */
export const ITD_PCI_ID = 0x00051b36;
/** Bytes of BAR0. */
export const ITD_BAR_BYTES = 0x1000;
/** Reset value of {@link ITD_ATTRIBUTES}. */
export const ITD_ATTRIBUTES_RESET = ITD_ATTRIBUTES.value({ Space: 'NON_SECURE' });
