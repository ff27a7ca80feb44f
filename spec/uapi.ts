/** The kernel's user API of iommufd, and what of VFIO it needs: ioctls, structs, constants. */
import { IOMMUFD_IOCTLS, type Ioctl } from './uapi/ioctls.ts';
import { VFIO_IOCTLS } from './uapi/vfio.ts';

export * from './uapi/constants.ts';
export * from './uapi/data-structs.ts';
export * from './uapi/ioctl-structs.ts';
export * from './uapi/ioctls.ts';
export * from './uapi/struct.ts';
export * from './uapi/vfio.ts';

const byRequest: ReadonlyMap<number, Ioctl> = new Map(
  [...Object.values(IOMMUFD_IOCTLS), ...Object.values(VFIO_IOCTLS)].map((ioctl) => [ioctl.request, ioctl]),
);

/** The ioctl of a request number, iommufd or VFIO. Undefined for an unknown one. */
export const ioctlOf = (request: number): Ioctl | undefined => byRequest.get(request);
