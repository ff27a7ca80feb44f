/** The VFIO device ioctls that tie a device to an iommufd (Linux 7.2 include/uapi/linux/vfio.h). */
import { ioctl } from './ioctls.ts';
import { struct } from './struct.ts';

const HEADER = 'linux/vfio.h';
const ARGSZ = { offset: 0, width: 4, text: 'bytes of this struct as the caller knows it' } as const;

/** Number that VFIO ioctls count from. */
const VFIO_BASE = 100;

/** Flags of VFIO_DEVICE_BIND_IOMMUFD. */
export const VFIO_DEVICE_BIND_FLAGS = { TOKEN: 1 } as const;

/** Flags of VFIO_DEVICE_ATTACH_IOMMUFD_PT. */
export const VFIO_DEVICE_ATTACH_FLAGS = { PASID: 1 } as const;

/** Flags of VFIO_DEVICE_DETACH_IOMMUFD_PT. */
export const VFIO_DEVICE_DETACH_FLAGS = { PASID: 1 } as const;

/** Binds a device to an iommufd. */
export const vfio_device_bind_iommufd = struct(
  'vfio_device_bind_iommufd',
  { bytes: 24, source: HEADER, text: 'binds a device to an iommufd' },
  {
    argsz: ARGSZ,
    flags: { offset: 4, width: 4, values: VFIO_DEVICE_BIND_FLAGS },
    iommufd: { offset: 8, width: 4, signed: true },
    out_devid: { offset: 12, width: 4 },
    token_uuid_ptr: { offset: 16, width: 8, text: 'VF token, with TOKEN' },
  },
);

/** Attaches a device, or one PASID of it, to an IOAS or a HWPT; a second attach replaces. */
export const vfio_device_attach_iommufd_pt = struct(
  'vfio_device_attach_iommufd_pt',
  { bytes: 16, source: HEADER, text: 'attaches a device or PASID to an IOAS or HWPT' },
  {
    argsz: ARGSZ,
    flags: { offset: 4, width: 4, values: VFIO_DEVICE_ATTACH_FLAGS },
    pt_id: { offset: 8, width: 4, text: 'in: IOAS or HWPT; out: the HWPT attached' },
    pasid: { offset: 12, width: 4, text: 'with PASID' },
  },
);

/** Detaches a device, or one PASID of it. */
export const vfio_device_detach_iommufd_pt = struct(
  'vfio_device_detach_iommufd_pt',
  { bytes: 12, source: HEADER, text: 'detaches a device or PASID' },
  {
    argsz: ARGSZ,
    flags: { offset: 4, width: 4, values: VFIO_DEVICE_DETACH_FLAGS },
    pasid: { offset: 8, width: 4, text: 'with PASID' },
  },
);

/** These structs by their C name. */
export const VFIO_STRUCTS = {
  vfio_device_bind_iommufd,
  vfio_device_attach_iommufd_pt,
  vfio_device_detach_iommufd_pt,
} as const;

/** The VFIO ioctls by name. */
export const VFIO_IOCTLS = {
  VFIO_DEVICE_BIND_IOMMUFD: ioctl(
    'VFIO_DEVICE_BIND_IOMMUFD',
    VFIO_BASE + 18,
    vfio_device_bind_iommufd,
    vfio_device_bind_iommufd.endOf('out_devid'),
  ),
  VFIO_DEVICE_ATTACH_IOMMUFD_PT: ioctl(
    'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
    VFIO_BASE + 19,
    vfio_device_attach_iommufd_pt,
    vfio_device_attach_iommufd_pt.endOf('pt_id'),
  ),
  VFIO_DEVICE_DETACH_IOMMUFD_PT: ioctl(
    'VFIO_DEVICE_DETACH_IOMMUFD_PT',
    VFIO_BASE + 20,
    vfio_device_detach_iommufd_pt,
    vfio_device_detach_iommufd_pt.endOf('flags'),
  ),
} as const;
