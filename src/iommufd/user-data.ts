/** What drivers get to see of user memory: one struct, or an array of equal ones (include/linux/iommu.h). */
import type { UserArray, UserData } from '../driver/iommu/ops.ts';
import { fail } from './errors.ts';
import type { UserPointer } from './ucmd.ts';
import { copyStructFromUser } from './ucmd.ts';

/** Driver data of an allocation (struct iommu_user_data). */
export function userData(pointer: UserPointer, type: number, length: number): UserData {
  const check = (wanted: number, size: number, minLength: number): void => {
    if (type !== wanted) fail('EINVAL', `data type ${type}, expected ${wanted}`);
    if (length < minLength || length > size)
      fail('EINVAL', `data length ${length}, expected ${minLength} to ${size} bytes`);
  };
  return {
    type,
    length,
    copy: (wanted, size, minLength) => {
      check(wanted, size, minLength);
      return copyStructFromUser(pointer, 0, length, size);
    },
    copyBack: (wanted, bytes, minLength) => {
      check(wanted, bytes.length, minLength);
      pointer.write(0, bytes.subarray(0, length));
    },
  };
}

/** Entries of an invalidation (struct iommu_user_data_array). */
export function userArray(pointer: UserPointer, type: number, entryLength: number, entryNum: number): UserArray {
  return {
    type,
    entryLength,
    entryNum,
    copyAll: (wanted, size) => {
      if (type !== wanted) fail('EINVAL', `entry type ${type}, expected ${wanted}`);
      if (entryNum === 0) fail('EINVAL', 'no entries');
      const entries: Uint8Array[] = [];
      if (entryLength === size) {
        const all = pointer.read(0, size * entryNum);
        for (let i = 0; i < entryNum; i++) entries.push(all.subarray(i * size, (i + 1) * size));
      } else
        for (let i = 0; i < entryNum; i++)
          entries.push(copyStructFromUser(pointer, i * entryLength, entryLength, size));
      return entries;
    },
  };
}
