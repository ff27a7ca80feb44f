import { describe, expect, test } from 'vitest';
import {
  IOMMUFD_DATA_STRUCTS,
  IOMMUFD_IOCTL_STRUCTS,
  IOMMUFD_IOCTLS,
  ioctlOf,
  iommu_hw_info,
  iommu_hw_info_arm_smmuv3,
  iommu_hwpt_alloc,
  iommu_hwpt_arm_smmuv3,
  iommu_ioas_map_file,
  iommu_viommu_alloc,
  LayoutError,
  VFIO_IOCTLS,
  VFIO_STRUCTS,
} from '../../spec/index.ts';

const structs = Object.values({ ...IOMMUFD_IOCTL_STRUCTS, ...IOMMUFD_DATA_STRUCTS, ...VFIO_STRUCTS });

test.each(structs.map((struct) => [struct.name, struct] as const))('%s owns each byte once', (_, struct) => {
  expect(struct.coverage()).toEqual([]);
});

test.each(structs.map((struct) => [struct.name, struct] as const))('%s keeps C alignment', (_, struct) => {
  const misaligned = Object.entries(struct.fields).filter(([, { offset, width }]) => offset % width !== 0);
  expect(misaligned).toEqual([]);
});

/** nr, ioctl, struct, size, minimum, as the kernel's iommufd_ioctl_ops has them. */
const TABLE: readonly [number, string, string, number, number][] = [
  [0x80, 'IOMMU_DESTROY', 'iommu_destroy', 8, 8],
  [0x81, 'IOMMU_IOAS_ALLOC', 'iommu_ioas_alloc', 12, 12],
  [0x82, 'IOMMU_IOAS_ALLOW_IOVAS', 'iommu_ioas_allow_iovas', 24, 24],
  [0x83, 'IOMMU_IOAS_COPY', 'iommu_ioas_copy', 40, 40],
  [0x84, 'IOMMU_IOAS_IOVA_RANGES', 'iommu_ioas_iova_ranges', 32, 32],
  [0x85, 'IOMMU_IOAS_MAP', 'iommu_ioas_map', 40, 40],
  [0x86, 'IOMMU_IOAS_UNMAP', 'iommu_ioas_unmap', 24, 24],
  [0x87, 'IOMMU_OPTION', 'iommu_option', 24, 24],
  [0x88, 'IOMMU_VFIO_IOAS', 'iommu_vfio_ioas', 12, 12],
  [0x89, 'IOMMU_HWPT_ALLOC', 'iommu_hwpt_alloc', 48, 24],
  [0x8a, 'IOMMU_GET_HW_INFO', 'iommu_hw_info', 40, 32],
  [0x8b, 'IOMMU_HWPT_SET_DIRTY_TRACKING', 'iommu_hwpt_set_dirty_tracking', 16, 16],
  [0x8c, 'IOMMU_HWPT_GET_DIRTY_BITMAP', 'iommu_hwpt_get_dirty_bitmap', 48, 48],
  [0x8d, 'IOMMU_HWPT_INVALIDATE', 'iommu_hwpt_invalidate', 32, 32],
  [0x8e, 'IOMMU_FAULT_QUEUE_ALLOC', 'iommu_fault_alloc', 16, 16],
  [0x8f, 'IOMMU_IOAS_MAP_FILE', 'iommu_ioas_map_file', 40, 40],
  [0x90, 'IOMMU_VIOMMU_ALLOC', 'iommu_viommu_alloc', 40, 24],
  [0x91, 'IOMMU_VDEVICE_ALLOC', 'iommu_vdevice_alloc', 24, 24],
  [0x92, 'IOMMU_IOAS_CHANGE_PROCESS', 'iommu_ioas_change_process', 8, 8],
  [0x93, 'IOMMU_VEVENTQ_ALLOC', 'iommu_veventq_alloc', 32, 28],
  [0x94, 'IOMMU_HW_QUEUE_ALLOC', 'iommu_hw_queue_alloc', 40, 40],
];

test('the ioctl table has the numbers and sizes of iommufd_ioctl_ops', () => {
  const table = Object.entries(IOMMUFD_IOCTLS).map(([name, { nr, struct, minBytes }]) => [
    nr,
    name,
    struct.name,
    struct.bytes,
    minBytes,
  ]);
  expect(table).toEqual(TABLE);
});

test('request numbers are _IO(";", nr), and VFIO counts from 100', () => {
  expect(Object.values(IOMMUFD_IOCTLS).map(({ request }) => request)).toEqual(TABLE.map(([nr]) => 0x3b00 + nr));
  expect(Object.values(VFIO_IOCTLS).map(({ request, minBytes }) => [request, minBytes])).toEqual([
    [0x3b76, 16],
    [0x3b77, 12],
    [0x3b78, 8],
  ]);
  expect(ioctlOf(0x3b90)?.name).toBe('IOMMU_VIOMMU_ALLOC');
  expect(ioctlOf(0x3b95)).toBeUndefined();
});

test.each<[string, number]>([
  ['iommu_iova_range', 16],
  ['iommu_hwpt_arm_smmuv3', 16],
  ['iommu_hwpt_vtd_s1', 24],
  ['iommu_hwpt_amd_guest', 32],
  ['iommu_hw_info_arm_smmuv3', 40],
  ['iommu_hw_info_tegra241_cmdqv', 8],
  ['iommu_hw_info_vtd', 24],
  ['iommu_hw_info_amd', 16],
  ['iommu_viommu_tegra241_cmdqv', 16],
  ['iommu_viommu_arm_smmuv3_invalidate', 16],
  ['iommu_hwpt_vtd_s1_invalidate', 24],
  ['iommufd_vevent_header', 8],
  ['iommu_vevent_arm_smmuv3', 32],
  ['iommu_vevent_tegra241_cmdqv', 16],
  ['iommu_hwpt_pgfault', 40],
  ['iommu_hwpt_page_response', 8],
])('%s has %i bytes', (name, bytes) => {
  expect(structs.find((struct) => struct.name === name)?.bytes).toBe(bytes);
});

describe('reading and writing', () => {
  test('HWPT_ALLOC lays its fields little-endian at the offsets of the C struct', () => {
    const bytes = iommu_hwpt_alloc.encode({
      size: 48,
      flags: 0x1,
      dev_id: 0x0203,
      pt_id: 4,
      data_type: 2,
      data_len: 16,
      data_uptr: 0x1122_3344_5566_7788n,
      fault_id: 9,
    });
    expect(Buffer.from(bytes).toString('hex')).toBe(
      [
        '30000000 01000000 03020000 04000000',
        '00000000 00000000 02000000 10000000',
        '8877665544332211 09000000 00000000',
      ]
        .join('')
        .replaceAll(' ', ''),
    );
    expect(iommu_hwpt_alloc.get(bytes, 'data_uptr')).toBe(0x1122_3344_5566_7788n);
  });

  test('a nested STE is two 64-bit words', () => {
    const bytes = Uint8Array.of(0x0b, 0x10, 0, 0x80, 0, 0, 0, 0, 0xd6, 0, 0, 0, 0, 0, 0, 0);
    expect(iommu_hwpt_arm_smmuv3.get(bytes, 'ste')).toEqual([0x8000_100bn, 0xd6n]);
  });

  test('ID registers of GET_HW_INFO are six words at byte 8', () => {
    const bytes = iommu_hw_info_arm_smmuv3.encode({ idr: [0xd44101b, 0x2730010, 0, 0x1414, 0, 0x74], aidr: 1 });
    const view = new DataView(bytes.buffer);
    expect([view.getUint32(8, true), view.getUint32(20, true), view.getUint32(36, true)]).toEqual([
      0xd44101b, 0x1414, 1,
    ]);
  });

  test('a union is one place under two names', () => {
    const bytes = iommu_hw_info.encode({ in_data_type: 3 });
    expect(iommu_hw_info.get(bytes, 'out_data_type')).toBe(3);
  });

  test('fd is signed', () => {
    const bytes = iommu_ioas_map_file.encode({ fd: -1 });
    expect(Array.from(bytes.subarray(12, 16))).toEqual([255, 255, 255, 255]);
    expect(iommu_ioas_map_file.get(bytes, 'fd')).toBe(-1);
  });

  test('a view into a larger buffer reads its own bytes', () => {
    const buffer = new Uint8Array(64).fill(0xaa);
    const bytes = buffer.subarray(8, 48);
    iommu_viommu_alloc.set(bytes, 'out_viommu_id', 7);
    expect(buffer[28]).toBe(7);
    expect(iommu_viommu_alloc.get(bytes, 'out_viommu_id')).toBe(7);
  });

  test('what does not fit is refused and nothing is written', () => {
    const bytes = new Uint8Array(48);
    expect(() => iommu_hwpt_alloc.set(bytes, 'dev_id', 0x1_0000_0000)).toThrow(LayoutError);
    expect(() => iommu_hwpt_alloc.set(bytes, 'dev_id', -1)).toThrow(LayoutError);
    expect(() => iommu_hwpt_alloc.set(bytes, 'dev_id', 1.5)).toThrow(LayoutError);
    expect(() => iommu_hwpt_alloc.set(bytes, 'data_uptr', 1n << 64n)).toThrow(LayoutError);
    expect(() => iommu_hwpt_arm_smmuv3.set(bytes, 'ste', [1n])).toThrow(LayoutError);
    expect(() => iommu_hwpt_arm_smmuv3.set(bytes, 'ste', [1n, 1n << 64n])).toThrow(LayoutError);
    expect(bytes.every((byte) => byte === 0)).toBe(true);
    expect(() => iommu_hwpt_alloc.get(new Uint8Array(24), 'data_type')).toThrow(LayoutError);
  });
});
