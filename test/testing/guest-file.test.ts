import { expect, test } from 'vitest';
import { Lab } from '../../src/testing/lab.ts';
import { execute } from '../../src/testing/operations.ts';

test('IOAS_MAP_FILE past the end of the memory of a VM: EINVAL, and nothing of it stays', () => {
  const lab = new Lab({ smmus: 1, devices: 1 });
  expect(execute(lab, { op: 'attach', dev: 'd0', to: 'a1' })).toEqual({ status: 'ok' });
  expect(execute(lab, { op: 'unmap', ioas: 'a1', page: 15, pages: 1 })).toEqual({ status: 'ok' });
  const map = { op: 'map', ioas: 'a1', vm: 'vm1', page: 15, from: 15, file: true } as const;
  expect(execute(lab, { ...map, pages: 3 })).toMatchObject({ status: 'error', errno: 'EINVAL' });
  expect(execute(lab, { ...map, pages: 1 })).toEqual({ status: 'ok' });
});
