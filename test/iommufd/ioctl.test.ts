import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { IOMMUFD_IOCTLS, type IommufdIoctlName, type Struct } from '../../spec/uapi.ts';
import { errno, failure, Lab, NOTHING, RO, RW, VSTE } from './lab.ts';

const { IOMMU_IOAS_ALLOC, IOMMU_HWPT_ALLOC, IOMMU_VIOMMU_ALLOC, IOMMU_OPTION, IOMMU_DESTROY } = IOMMUFD_IOCTLS;

describe('entry rules (iommufd_fops_ioctl)', () => {
  test('an unknown number, and one of VFIO, is ENOTTY', () => {
    const { ctx } = new Lab();
    for (const request of [0x3b7f, 0x3b95, 0x3b00, 0, 0x3bff])
      expect(errno(() => ctx.ioctl(request, new Uint8Array(64)))).toBe('ENOTTY');
  });

  test('a known number with other type, size or direction bits is ENOTTY, but after size is read', () => {
    const { ctx } = new Lab();
    expect(errno(() => ctx.ioctl(0x3c80, IOMMU_DESTROY.struct.encode({ size: 8 })))).toBe('ENOTTY');
    expect(errno(() => ctx.ioctl(0x4008_3b80, IOMMU_DESTROY.struct.encode({ size: 8 })))).toBe('ENOTTY');
    expect(errno(() => ctx.ioctl(0x3c80, NOTHING))).toBe('EFAULT');
  });

  test.each(Object.values(IOMMUFD_IOCTLS).map((ioctl) => [ioctl.name, ioctl] as const))(
    '%s: sizes below the minimum are EINVAL; a larger struct must have a zero tail (E2BIG); unreadable is EFAULT',
    (_name, { request, struct, minBytes }) => {
      const { ctx } = new Lab();
      const call = (size: number, bytes: number, fill = 0): string => {
        const arg = new Uint8Array(bytes);
        new DataView(arg.buffer).setUint32(0, size, true);
        arg.fill(fill, struct.bytes);
        return errno(() => ctx.ioctl(request, arg));
      };
      for (const size of [0, 4, minBytes - 1]) expect(call(size, struct.bytes)).toBe('EINVAL');
      expect(call(struct.bytes + 1, struct.bytes + 1, 1)).toBe('E2BIG');
      expect(call(8192, 8192, 1)).toBe('E2BIG');
      expect(call(struct.bytes + 8, struct.bytes)).toBe('EFAULT');
      expect(call(0xffff_ffff, struct.bytes)).toBe('EFAULT');
      // What the handler then says about an all-zero command is the same at every size.
      expect(call(8192, 8192)).toBe(call(struct.bytes, struct.bytes));
      expect(errno(() => ctx.ioctl(request, NOTHING))).toBe('EFAULT');
    },
  );

  test('a shorter struct: missing fields read as zero, and the answer is cut to the caller size', () => {
    const lab = new Lab();
    const { dev, ioas, parent } = lab.nested();
    const hwpt = IOMMU_HWPT_ALLOC.struct.encode({
      size: 24,
      dev_id: dev,
      pt_id: ioas,
      data_type: 9,
      data_len: 9,
      fault_id: 9,
    });
    lab.ctx.ioctl(IOMMU_HWPT_ALLOC.request, hwpt);
    expect(IOMMU_HWPT_ALLOC.struct.decode(hwpt)).toMatchObject({ out_hwpt_id: 5, data_type: 9, data_len: 9 });
    const viommu = IOMMU_VIOMMU_ALLOC.struct.encode({ size: 24, type: 1, dev_id: dev, hwpt_id: parent, data_len: 7 });
    lab.ctx.ioctl(IOMMU_VIOMMU_ALLOC.request, viommu);
    expect(IOMMU_VIOMMU_ALLOC.struct.get(viommu, 'out_viommu_id')).toBe(6);
  });

  test('bytes beyond the kernel struct are left alone', () => {
    const { ctx } = new Lab();
    const arg = new Uint8Array(20);
    arg.set(IOMMU_IOAS_ALLOC.struct.encode({ size: 20 }));
    ctx.ioctl(IOMMU_IOAS_ALLOC.request, arg);
    expect([...arg.subarray(8)]).toEqual([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  });

  test('the struct may lie in user memory; an answer to read-only memory is EFAULT and makes nothing', () => {
    const lab = new Lab();
    lab.space.write(RW, IOMMU_IOAS_ALLOC.struct.encode({ size: 12 }));
    lab.ctx.ioctl(IOMMU_IOAS_ALLOC.request, RW);
    expect(IOMMU_IOAS_ALLOC.struct.decode(lab.space.read(RW, 12)).out_ioas_id).toBe(1);
    const readOnly = new Lab();
    expect(errno(() => readOnly.ctx.ioctl(IOMMU_IOAS_ALLOC.request, RO))).toBe('EINVAL'); // size 0
    expect(readOnly.ctx.objects.size).toBe(0);
  });

  test('OPTION writes val64 and nothing else', () => {
    const lab = new Lab();
    const arg = IOMMU_OPTION.struct.encode({ size: 24, option_id: 1, op: 1, object_id: lab.mapped() });
    const before = arg.slice();
    lab.ctx.ioctl(IOMMU_OPTION.request, arg);
    expect(arg.subarray(0, 16)).toEqual(before.subarray(0, 16));
    expect(IOMMU_OPTION.struct.get(arg, 'val64')).toBe(1n);
  });

  test('after close every ioctl is EBADF', () => {
    const { ctx } = new Lab();
    ctx.close();
    expect(errno(() => ctx.ioasAlloc())).toBe('EBADF');
    expect(errno(() => ctx.close())).toBe('EBADF');
  });
});

describe('errors carry what the kernel had copied back', () => {
  test('HWPT_INVALIDATE: entry_num on every path; IOVA_RANGES: the whole struct before EMSGSIZE; others: nothing', () => {
    const lab = new Lab();
    const { viommu, ioas } = lab.nested();
    const data = new Uint8Array(new Uint32Array([0x10, 0, 0, 0, 0xbad, 0, 0, 0]).buffer);
    const invalidate = { hwpt_id: viommu, data_type: 1, entry_len: 16, entry_num: 2, data_uptr: data };
    expect(failure(() => lab.ctx.hwptInvalidate(invalidate)).outputs).toMatchObject({ entry_num: 1 });
    expect(failure(() => lab.ctx.hwptInvalidate({ ...invalidate, __reserved: 1 })).outputs).toMatchObject({
      entry_num: 0,
    });
    expect(failure(() => lab.ctx.ioasIovaRanges({ ioas_id: ioas })).outputs).toMatchObject({
      num_iovas: 1,
      out_iova_alignment: 4096n,
    });
    expect(failure(() => lab.ctx.ioasUnmap({ ioas_id: ioas, iova: 1n, length: 1n })).outputs).toBeUndefined();
  });

  test('the message names ioctl, errno and the check', () => {
    const { ctx } = new Lab();
    expect(failure(() => ctx.ioasAlloc({ flags: 1 })).message).toBe('EOPNOTSUPP: IOMMU_IOAS_ALLOC: flags is not 0');
  });
});

/** Typed and raw on two equal labs: same errno, same struct afterwards. */
describe('typed and raw are one implementation', () => {
  const names = Object.keys(IOMMUFD_IOCTLS) as IommufdIoctlName[];
  const small = fc.oneof(fc.nat(9), fc.constantFrom(0xffff_ffff, 0x8000_0000));
  const wide = fc.oneof(
    fc.constantFrom(0n, 0x1000n, 0x2000n, 0x8000_0000n, 0x8008_0000n, RW, RO, NOTHING, (1n << 64n) - 1n),
    fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  );

  test('any sequence of any commands', () => {
    const command = fc.record({
      name: fc.constantFrom(...names),
      numbers: fc.array(small, { minLength: 12, maxLength: 12 }),
      wides: fc.array(wide, { minLength: 6, maxLength: 6 }),
    });
    fc.assert(
      fc.property(fc.array(command, { maxLength: 25 }), (commands) => {
        const [typed, raw] = [new Lab(), new Lab()];
        for (const lab of [typed, raw]) {
          const ids = lab.nested();
          lab.ctx.hwptAlloc({ dev_id: ids.dev, pt_id: ids.viommu, data_type: 2, data_uptr: VSTE });
        }
        for (const { name, numbers, wides } of commands) {
          const struct = IOMMUFD_IOCTLS[name].struct as unknown as Struct;
          const bytes = new Uint8Array(struct.bytes);
          struct.set(bytes, 'size', struct.bytes);
          for (const [i, field] of struct.names.entries()) {
            const { width, count, signed, reserved } = struct.field(field);
            if (field === 'size' || count !== undefined || (reserved && i % 3 !== 0)) continue;
            const value =
              width === 8 ? (wides[i % 6] ?? 0n) : (numbers[i % 12] ?? 0) % 2 ** (8 * width - (signed ? 1 : 0));
            struct.set(bytes, field, value as number);
          }
          const args = { ...struct.decode(bytes) };
          const viaTyped = errno(() => Reflect.get(typed.ctx, METHOD[name] ?? '').call(typed.ctx, args));
          const viaRaw = errno(() => raw.ctx.ioctl(IOMMUFD_IOCTLS[name].request, bytes));
          expect(viaTyped, name).toBe(viaRaw);
        }
        const objects = (lab: Lab): string[] => lab.ctx.objects.list().map(({ label, users }) => `${label} ${users}`);
        expect(objects(typed)).toEqual(objects(raw));
      }),
      { numRuns: 60 },
    );
  });
});

/** Method of the typed call. */
const METHOD: Readonly<Record<IommufdIoctlName, string>> = {
  IOMMU_DESTROY: 'destroy',
  IOMMU_IOAS_ALLOC: 'ioasAlloc',
  IOMMU_IOAS_ALLOW_IOVAS: 'ioasAllowIovas',
  IOMMU_IOAS_COPY: 'ioasCopy',
  IOMMU_IOAS_IOVA_RANGES: 'ioasIovaRanges',
  IOMMU_IOAS_MAP: 'ioasMap',
  IOMMU_IOAS_UNMAP: 'ioasUnmap',
  IOMMU_OPTION: 'option',
  IOMMU_VFIO_IOAS: 'vfioIoasOp',
  IOMMU_HWPT_ALLOC: 'hwptAlloc',
  IOMMU_GET_HW_INFO: 'getHwInfo',
  IOMMU_HWPT_SET_DIRTY_TRACKING: 'hwptSetDirtyTracking',
  IOMMU_HWPT_GET_DIRTY_BITMAP: 'hwptGetDirtyBitmap',
  IOMMU_HWPT_INVALIDATE: 'hwptInvalidate',
  IOMMU_FAULT_QUEUE_ALLOC: 'faultQueueAlloc',
  IOMMU_IOAS_MAP_FILE: 'ioasMapFile',
  IOMMU_VIOMMU_ALLOC: 'viommuAlloc',
  IOMMU_VDEVICE_ALLOC: 'vdeviceAlloc',
  IOMMU_IOAS_CHANGE_PROCESS: 'ioasChangeProcess',
  IOMMU_VEVENTQ_ALLOC: 'veventqAlloc',
  IOMMU_HW_QUEUE_ALLOC: 'hwQueueAlloc',
};
